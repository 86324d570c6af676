// Shows the tally of votes by pairs of settings, and saves, opens and clears votes.

import { element } from "../core/dom.js";
import { percent } from "../core/figures.js";
import { ImportError } from "../core/import_run.js";
import { readVotes } from "../core/import_votes.js";
import { saveFile } from "../core/save_file.js";
import { tallies, toLines, wilson } from "../core/votes.js";
import { nameOf } from "./ballot.js";

const NAME = "decodery-votes.jsonl";

/** @param {import("../core/kept_votes.js").KeptVotes} votes */
export function mountTally(place, app, votes) {
  const list = element("div", { class: "tallies" });
  const input = element("input", { type: "file", accept: ".jsonl", multiple: true, hidden: true, "aria-label": "Files of votes" });
  const button = (text, click, kind) => element("button", { type: "button", class: kind, text, on: { click } });
  const save = button("Save the votes", () => saveFile(toLines(votes.list), "application/jsonl", NAME));
  const open = button("Open votes from a file…", () => input.click());
  const clear = button("Clear the tally", () => ask(true));
  const sure = button("Remove all votes", () => {
    votes.clear();
    ask(false);
  });
  const keep = button("Keep them", () => ask(false));
  const question = element("div", { class: "row clearing", role: "group", "aria-label": "Clear the tally", hidden: true }, element("span", { text: "Votes that are not saved are lost." }), sure, keep);
  const status = element("p", { class: "small dim", role: "status" });
  place.append(
    element("h3", { text: "Tally" }),
    list,
    element("div", { class: "row" }, save, open, input, clear),
    question,
    status,
    element("p", { class: "small dim" }, "The file has a vote on each line, with the question and both answers. ", element("code", { text: `decodery eval judge --votes ${NAME} --judge MODEL` }), " lets a model judge the same answers and tells how far it agrees with you."),
  );

  /** Asks before the tally is cleared, or asks no more. */
  function ask(asking) {
    question.hidden = !asking;
    clear.hidden = asking;
    (asking ? keep : clear.disabled ? open : clear).focus();
  }

  input.addEventListener("change", async () => {
    const files = [...input.files];
    input.value = "";
    try {
      for (const file of files) {
        const read = await readVotes(file);
        const added = votes.add(read);
        status.textContent = `${votesOf(added)} came from “${file.name}”${added < read.length ? `; ${read.length - added} were here already` : ""}.`;
      }
    } catch (error) {
      app.notify(error.message, "error");
      if (!(error instanceof ImportError)) throw error;
    }
  });

  function show() {
    const found = tallies(votes.list);
    list.replaceChildren(...(found.length === 0 ? [element("p", { class: "dim", text: "There are no votes yet. This browser keeps them." })] : found.map(tallyOf)));
    save.disabled = clear.disabled = found.length === 0;
  }

  votes.addEventListener("change", show);
  show();
}

/** Returns the counts of one pair of settings. */
function tallyOf(tally) {
  const { settings, one, other, tie, both_bad, first, decided } = tally;
  const rows = [
    [settings.one, one],
    [settings.other, other],
  ].map(([setting, wins]) => element("tr", {}, element("th", { scope: "row" }, nameOf(setting)), element("td", { class: "number", text: String(wins) }), shareCell(wins, decided)));
  const head = ["Setting", "Better", "Share of the decided votes, 95 % interval"].map((text) => element("th", { scope: "col", text }));
  const caption = `${votesOf(one + other + tie + both_bad)}: ${decided} decided, ${tie} ${tie === 1 ? "tie" : "ties"}, ${both_bad} both bad`;
  return element(
    "div",
    { class: "tally" },
    element("table", {}, element("caption", { class: "small dim", text: caption }), element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows)),
    element("p", { class: "small dim", text: placeSentence(first, decided) }),
  );
}

function shareCell(hits, count) {
  const interval = wilson(hits, count);
  if (interval === null) return element("td", { class: "number", text: "–" });
  return element("td", { class: "number" }, element("span", { text: shareOf(hits, count, interval) }), intervalBar(hits / count, interval));
}

function shareOf(hits, count, [low, high]) {
  // No line ends before the sign.
  return `${percent(hits / count)} (${percent(low)} to ${percent(high)})`.replaceAll(" %", "\u00a0%");
}

function placeSentence(first, decided) {
  if (decided === 0) return "No vote is for one of the two yet.";
  return `Answer A, which is shown first, won ${first} of ${decided}: ${shareOf(first, decided, wilson(first, decided))}. Without a preference for a place it is 50 %.`;
}

/** Returns the picture of an interval on a line from 0 to 1 with its middle; the numbers beside it say the same. */
function intervalBar(share, [low, high]) {
  const bar = element("span", { class: "interval", "aria-hidden": "true" });
  for (const [name, value] of Object.entries({ share, low, high })) bar.style.setProperty(`--${name}`, value);
  return bar;
}

function votesOf(count) {
  return `${count} ${count === 1 ? "vote" : "votes"}`;
}
