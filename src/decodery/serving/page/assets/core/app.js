// Starts the page: joins its parts and shows the view that the address names.

import { Api, ConnectionError } from "./api.js";
import { watchConnection } from "./connection.js";
import { takeKey } from "./key.js";
import { keyForm } from "./key_form.js";
import { Models } from "./models.js";
import { notices } from "./notices.js";
import { Router } from "./router.js";
import { Runs } from "./runs.js";
import { Settings } from "./settings.js";
import { Store } from "./store.js";

const RETRY_MS = 2000;

function start() {
  takeKey();
  const api = new Api();
  const settings = new Settings();
  const store = new Store();
  const app = {
    api,
    settings,
    models: new Models(api, settings),
    runs: new Runs(api, store),
    notify: notices(document.getElementById("notices")),
    open: (name, args) => router.open(name, args),
  };
  const router = new Router(app, document.getElementById("main"), document.getElementById("views"));
  store.addEventListener("trouble", ({ detail }) => app.notify(detail, "error"));
  showTheme(settings);
  fitKeyboard();
  showModels(app.models);
  keyForm(api, () => loadModels(app));
  watchConnection(api, app.notify, () => loadModels(app));
  // A key may also come into a page that is open, from an address that is pasted.
  addEventListener("hashchange", () => takeKey() && loadModels(app));
  app.runs.load().catch((error) => app.notify(error.message, "error"));
  loadModels(app);
  router.start();
  keepPage();
}

/** Lets the browser keep the page's files. It does so for pages of this machine and over HTTPS only. */
async function keepPage() {
  try {
    await navigator.serviceWorker?.register("assets/core/offline.js", { scope: "./" });
  } catch {
    // The page works without it, while the server is there.
  }
}

function showTheme(settings) {
  const show = () => {
    document.documentElement.dataset.theme = settings.get("theme");
  };
  settings.addEventListener("change", show);
  show();
}

/** Shrinks the page to the part that an on-screen keyboard leaves, in browsers that do not. */
function fitKeyboard() {
  const fit = () => {
    const { height, scale } = visualViewport;
    // A reader who zooms in sees a part of the page; then it keeps its size.
    if (scale <= 1.01) document.body.style.setProperty("max-height", `${height}px`);
  };
  visualViewport?.addEventListener("resize", fit);
}

function showModels(models) {
  const select = document.getElementById("model");
  select.addEventListener("change", () => models.choose(select.value));
  models.addEventListener("change", () => {
    select.replaceChildren(...models.list.map((name) => new Option(name, name)));
    select.value = models.current ?? "";
    select.disabled = models.list.length < 2;
  });
}

/** Loads the list of models, again and again while the server opens the first one. */
async function loadModels(app) {
  try {
    await app.models.load();
    if (app.models.list.length > 0) return;
    if (app.models.encoders.length > 0) {
      app.notify(onlyEncoders(app.models.encoders), "error");
      return;
    }
  } catch (error) {
    // The form asks for a key, and the watch of the connection calls again when the server answers.
    if (error.status === 401 || error instanceof ConnectionError) return;
    if (error.status !== 503) {
      app.notify(error.message, "error");
      return;
    }
  }
  app.notify("The model is being opened.");
  setTimeout(() => loadModels(app), RETRY_MS);
}

function onlyEncoders(names) {
  const [are, read] = names.length === 1 ? ["is an encoder", "reads texts and writes none"] : ["are encoders", "read texts and write none"];
  return `${names.join(", ")} ${are}, which ${read}: this page needs a model that continues texts. Start the server with one (decodery serve -m MODEL).`;
}

start();
