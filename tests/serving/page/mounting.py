"""Mounts one part of the page in an empty document, as the tests of that part need it."""

from __future__ import annotations

from typing import Any

BLANK = """<!doctype html><html lang="en"><head><title>test</title>
<link rel="icon" href="/assets/style/icon.svg"><link rel="stylesheet" href="/assets/style/base.css">
<link rel="stylesheet" href="/assets/style/inspector.css"></head><body><main></main></body></html>"""
# Makes `window.app`, with what parts of the page use of it.
APP = """async () => {
  const of = async (name) => await import(`/assets/core/${name}.js`);
  const [{ Api }, { Models }, { Settings }, { Runs }, { Store }] =
    await Promise.all(["api", "models", "settings", "runs", "store"].map(of));
  const api = new Api();
  const models = new Models(api, new Settings());
  await models.load();
  window.app = { api, models, runs: new Runs(api, new Store()), notify: () => {}, open: () => {} };
}"""
# Starts requests in one batch, waits for their end, and returns the states; the runs are `window.runs`.
RUN = """async ({ requests, candidates }) => {
  const model = window.app.models.current;
  window.runs = window.app.runs.start({ model, requests, candidates });
  const ended = (run) => new Promise((done) => {
    run.addEventListener("change", () => { if (run.ended) done(run.error ?? run.state); });
  });
  return await Promise.all(window.runs.map(ended));
}"""


def open_blank(page: Any, url: str) -> Any:
    """Opens an empty document of the server's origin, with `window.app` in it."""
    page.route(
        "**/blank.html",
        lambda route: route.fulfill(body=BLANK, headers={"content-type": "text/html; charset=utf-8"}),
    )
    page.goto(f"{url}/blank.html")
    page.evaluate(APP)
    return page


def run_in(page: Any, prompt: str | list[int], candidates: int = 10, **params: Any) -> None:
    """Runs one request to its end; it is `window.runs[0]` then."""
    asked = {"requests": [{"prompt": prompt, "params": params}], "candidates": candidates}
    states = page.evaluate(RUN, asked)
    assert states == ["done"], states
