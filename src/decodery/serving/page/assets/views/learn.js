// The view with the learner's pages: `#learn` lists them, `#learn/NAME` shows one, whose example runs at a click.

import { element } from "../core/dom.js";
import { nodes } from "../parts/tree_nodes.js";

export const view = { name: "learn", title: "Learn", mount };

const FOLDER = "/assets/learn";

function mount(place, app) {
  const shown = element("div", { class: "learn" });
  place.append(shown);
  const answers = new Map();
  // The number of the last call of `show`: an answer that comes after a later one is dropped.
  let last = 0;

  /** Returns the content of a file, which is asked for once. */
  function asked(name) {
    if (!answers.has(name)) {
      const answer = app.api.json(`${FOLDER}/${name}.json`);
      answers.set(name, answer);
      answer.catch(() => answers.delete(name));
    }
    return answers.get(name);
  }

  async function show({ path = "" }) {
    const mine = ++last;
    try {
      const index = await asked("index");
      const number = index.findIndex((one) => one.name === path);
      const content = number < 0 ? list(index) : article(index, number, await asked(path), app);
      if (mine !== last) return;
      shown.replaceChildren(content);
      place.scrollTo(0, 0);
      shown.querySelector("h2").focus();
    } catch (error) {
      if (mine === last) app.notify(error.message, "error");
    }
  }
  return { show, hide() {} };
}

function list(index) {
  const items = index.map(({ name, title, summary }) =>
    element("li", {}, element("a", { class: "sheet", href: `#learn/${name}` }, element("strong", { text: title }), element("span", { text: summary }))),
  );
  return element(
    "div",
    {},
    element("h2", { tabindex: -1, text: "Ways to choose the next token" }),
    element("p", {
      class: "dim",
      text: "A language model gives each token a probability of coming next. It does not say which one to take. Each page explains one way to decide.",
    }),
    element("ol", { class: "learn-list" }, ...items),
  );
}

function article(index, number, { run, blocks }, app) {
  const [heading, ...rest] = nodes(blocks);
  heading.tabIndex = -1;
  return element(
    "article",
    {},
    element("div", { class: "row learn-top" }, element("a", { href: "#learn", text: "All pages" }), element("span", { class: "spread" }), tryButton(run, app)),
    heading,
    ...rest,
    element("nav", { class: "row learn-next", "aria-label": "Other pages" }, neighbour(index[number - 1], "←"), element("span", { class: "spread" }), neighbour(index[number + 1], "→")),
  );
}

/** Returns the button that runs the page's example: it writes, divides a text into tokens, or shows the layers. */
function tryButton(run, app) {
  const open = () => {
    if (run.layers !== undefined) app.open("layers", { text: run.layers });
    else app.open(run.text === undefined ? "write" : "tokens", run);
  };
  return element("button", { type: "button", class: "primary", text: "Try it", on: { click: open } });
}

function neighbour(page, arrow) {
  if (page === undefined) return null;
  const text = arrow === "←" ? `← ${page.title}` : `${page.title} →`;
  return element("a", { href: `#learn/${page.name}`, text });
}
