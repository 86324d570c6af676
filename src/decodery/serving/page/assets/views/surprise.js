// The view that shows how surprising a person's text is to the model, beside a text that the model decoded.

import { element } from "../core/dom.js";
import { decimal } from "../core/figures.js";
import { spellTokens } from "../core/spell_tokens.js";
import { Speller } from "../core/spelling.js";
import { promptSurprises, spread, streamSurprises } from "../core/surprise.js";
import { surpriseChart } from "../parts/surprise_chart.js";
import { levelOf } from "../parts/token_text.js";

/** Tokens of the person's text with which the model's text begins too. */
const SHARED = 16;
const MOST_TOKENS = 400;
const PASSAGE =
  "The ferry was late, so Marta bought a second coffee and read the back of a cereal box that someone had left on " +
  "the bench. It promised iron and a plastic dinosaur. Across the water a man in a red coat was arguing with a gull, " +
  "and losing. She thought of her grandmother, who had kept bees on the roof of a bank and told everyone, the bees " +
  "too, when there was a death in the family. By the time the boat came the fog had eaten the far shore, the cranes, " +
  "and most of the man. Only the coat remained, and then only his voice.";
const PLAIN = { temperature: 1, top_k: 0, top_p: 1, min_p: 0, repetition_penalty: 1, logprobs: 0, seed: 1 };
const METHODS = [
  { name: "beam search, 4 beams", params: { ...PLAIN, strategy: { type: "beam_search", num_beams: 4 } } },
  { name: "greedy", params: { ...PLAIN, temperature: 0 } },
  { name: "top-p 0.9", params: { ...PLAIN, top_p: 0.9 } },
  { name: "temperature 1, nothing cut", params: PLAIN },
];

export const view = { name: "surprise", title: "Surprise", mount };

function mount(place, app) {
  const text = element("textarea", { id: "passage", rows: 6, value: PASSAGE });
  const method = element("select", { id: "method" }, ...METHODS.map(({ name }, i) => new Option(name, String(i))));
  const draw = element("button", { type: "submit", class: "primary", text: "Compare" });
  const note = element("p", { class: "dim small", role: "status" });
  const result = element("div", { class: "surprise-result" });
  const form = element(
    "form",
    { class: "surprise-form" },
    element("label", { for: "passage", text: "A text that a person wrote" }),
    text,
    element("div", { class: "row" }, element("label", { for: "method", text: "The model goes on from its first words by" }), method, draw),
  );
  place.append(
    element("h2", { text: "What a person writes, and what a model decodes" }),
    element("p", {
      class: "lead",
      text:
        "Surprise is −log₂ of the probability that the model gives to a token. People surprise it again and again. A search for the likeliest text " +
        "surprises it hardly at all, and that reads dull (Holtzman et al. 2019).",
    }),
    form,
    note,
    result,
  );
  let asking = new AbortController();
  let begun = false;

  async function compare() {
    begun = true;
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    const stop = (run) => signal.addEventListener("abort", () => app.runs.stop(run), { once: true });
    try {
      note.textContent = "The model reads the text…";
      const person = await score(app, text.value, stop);
      const shared = Math.min(SHARED, person.promptTokenIds.length - 1);
      note.textContent = "The model writes…";
      const model = await goOn(app, person.promptTokenIds, shared, METHODS[method.value], stop);
      await spellTokens(app.api, person, person.promptTokenIds);
      if (signal.aborted) return;
      note.textContent = "";
      show(person, model, shared, METHODS[method.value].name);
    } catch (error) {
      if (!signal.aborted) note.textContent = error.message;
    }
  }

  function show(person, model, shared, name) {
    const own = promptSurprises(person.promptTokenIds, person.promptLogprobs);
    const begin = own.slice(0, shared);
    const series = [
      { name: "person", kind: "person", tokens: own, pieces: person.pieces },
      { name, kind: "model", tokens: [...begin, ...streamSurprises(model.streams[0])], pieces: joined(person, model) },
    ];
    result.replaceChildren(surpriseChart(series, shared), ...series.map((one) => textOf(one, shared)));
  }

  /** Compares the example when the view opens first, or when the models are known. */
  function begin() {
    if (!begun && !place.hidden && app.models.current !== null) compare();
  }

  app.models.addEventListener("change", begin);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    compare();
  });
  return { show: begin, hide() {} };
}

/** Returns a run whose prompt's tokens are scored. */
async function score(app, text, stop) {
  if (text.trim() === "") throw new Error("There is no text to compare.");
  const params = { max_tokens: 1, prompt_logprobs: 0, temperature: 0 };
  const run = await finished(app, { prompt: text, params, title: "Surprise of a text" }, stop);
  if (run.promptLogprobs === null || run.promptTokenIds.length < 2) throw new Error("The text is too short.");
  return run;
}

/** Returns a run that goes on from the first `shared` tokens, for as many as follow there. */
async function goOn(app, tokens, shared, { name, params }, stop) {
  const most = Math.min(tokens.length - shared, MOST_TOKENS);
  return await finished(
    app,
    { prompt: tokens.slice(0, shared), params: { ...params, max_tokens: most }, title: `Surprise: ${name}` },
    stop,
  );
}

async function finished(app, request, stop) {
  const [run] = app.runs.start({ model: app.models.current, requests: [request], candidates: 1, view: view.name });
  stop(run);
  await new Promise((done) => {
    const check = () => run.ended && done();
    run.addEventListener("change", check);
    check();
  });
  if (run.state !== "done") throw new Error(run.error ?? "The run was stopped.");
  return run;
}

/** Returns the spelling of the tokens of both runs. */
function joined(...runs) {
  return new Map(runs.flatMap(({ pieces }) => [...pieces]));
}

/** Returns a text with each token coloured by its surprise, under what its tokens amount to. */
function textOf({ name, kind, tokens, pieces }, shared) {
  const speller = new Speller(pieces);
  const own = tokens.slice(shared);
  const { mean, deviation, count } = spread(own);
  const words = element("p", { class: "tokens", "data-colour": "surprise" });
  tokens.forEach(({ token, bits }, place) => {
    const level = bits === null || place < shared ? 0 : levelOf(2 ** -bits);
    words.append(element("span", { class: `s${level}${place < shared ? " dim" : ""}`, text: speller.push(token).text }));
  });
  const amount = `${decimal(mean)} bits a token, ± ${decimal(deviation)} (${count} tokens after the shared beginning)`;
  return element(
    "section",
    { class: "surprise-text" },
    element("h3", {}, element("span", { class: `swatch-line ${kind}` }), name, element("small", { class: "dim number", text: ` ${amount}` })),
    words,
  );
}
