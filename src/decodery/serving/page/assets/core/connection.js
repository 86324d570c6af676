// Says when the server cannot be reached, and asks again until it can.

import { ConnectionError } from "./api.js";

const RETRY_MS = 1500;

/** Watches the api. `back` is called when the server answers again. */
export function watchConnection(api, notify, back) {
  let close = null;
  api.addEventListener("unreachable", () => {
    close ??= notify("The server cannot be reached. What is here can still be read; the page tries again by itself.", "error");
    setTimeout(probe, RETRY_MS);
  });

  async function probe() {
    try {
      await api.json("/health");
    } catch (error) {
      if (error instanceof ConnectionError) {
        setTimeout(probe, RETRY_MS);
        return;
      }
    }
    close?.();
    close = null;
    notify("The server answers again.");
    back();
  }
}
