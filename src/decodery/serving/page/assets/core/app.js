// Starts the page: joins its parts and shows the view that the address names.

import { Api } from "./api.js";
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
  const app = {
    api,
    settings,
    models: new Models(api, settings),
    runs: new Runs(api, new Store()),
    notify: notices(document.getElementById("notices")),
    open: (name, args) => router.open(name, args),
  };
  const router = new Router(app, document.getElementById("main"), document.getElementById("views"));
  showTheme(settings);
  showModels(app.models);
  keyForm(api, () => loadModels(app));
  loadModels(app);
  app.runs.load().catch((error) => app.notify(error.message, "error"));
  router.start();
}

function showTheme(settings) {
  const show = () => {
    document.documentElement.dataset.theme = settings.get("theme");
  };
  settings.addEventListener("change", show);
  show();
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

/** Loads the list of models, again and again while the server opens one or cannot be reached. */
async function loadModels(app) {
  try {
    await app.models.load();
    if (app.models.list.length > 0) return;
    app.notify("The model is being opened.");
  } catch (error) {
    if (error.status === 401) return;
    app.notify(error.message, error.status === 503 ? "info" : "error");
    if (error.status !== undefined && error.status !== 503) return;
  }
  setTimeout(() => loadModels(app), RETRY_MS);
}

start();
