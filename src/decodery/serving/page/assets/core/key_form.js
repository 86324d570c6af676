// Asks for the server's key when a request was refused without a right one.

import { setKey } from "./key.js";

/** @param {import("./api.js").Api} api @param {() => void} used called after a key was given */
export function keyForm(api, used) {
  const dialog = document.getElementById("key-dialog");
  const field = document.getElementById("key");
  api.addEventListener("unauthorized", ({ detail }) => {
    const reason = detail.hadKey ? "The server does not accept this key." : "This server asks for a key.";
    document.getElementById("key-reason").textContent = `${reason} It is kept until this tab is closed.`;
    if (!dialog.open) dialog.showModal();
    field.focus();
  });
  document.getElementById("key-form").addEventListener("submit", () => {
    setKey(field.value.trim());
    field.value = "";
    used();
  });
}
