// Shows two answers as A and B, takes the vote, and tells only then which setting wrote which.

import { element } from "../core/dom.js";

const CHOICES = [
  { choice: "first", key: "a", text: "A is better" },
  { choice: "second", key: "b", text: "B is better" },
  { choice: "tie", key: "t", text: "Tie" },
  { choice: "both_bad", key: "x", text: "Both are bad" },
];
const TOLD = { first: "You chose A.", second: "You chose B.", tie: "You called it a tie.", both_bad: "You found both bad." };

/**
 * Mounts the ballot in `place`, which takes the focus. Keys vote only while the focus is in it.
 * @param {{next: () => void, retry: () => void, stop: () => void, look: (answer: 0 | 1) => void}} on what its buttons
 *   do; `look` is called with the place of an answer
 */
export class Ballot {
  #place;
  #heading = element("h3", { tabindex: -1 });
  #prompt = element("p", { class: "vote-prompt", dir: "auto" });
  #status = element("p", { class: "vote-status", role: "status" });
  #answers = element("div", { class: "answers" });
  #buttons = element("div", { class: "row choices", role: "group", "aria-label": "Your vote" });
  #further = element("div", { class: "row end" });
  #on;
  #voted = null;

  constructor(place, on) {
    this.#place = place;
    this.#on = on;
    place.append(this.#heading, this.#prompt, this.#answers, this.#buttons, this.#status, this.#further);
    place.addEventListener("keydown", (event) => this.#press(event));
  }

  /** Shows that two answers to a prompt are being written. Nothing of them is shown before both have ended. */
  showWriting(title, prompt) {
    this.#place.hidden = false;
    this.#place.dataset.state = "writing";
    this.#heading.textContent = title;
    this.#prompt.textContent = prompt;
    this.#empty();
    this.#status.textContent = "Two answers are being written. They come together, when both have ended.";
    this.#further.append(this.#button("Stop", this.#on.stop));
    this.#heading.focus();
  }

  /** Shows the answers, and calls `voted` with "first", "second", "tie" or "both_bad", once. */
  showAnswers(texts, voted) {
    this.#place.dataset.state = "voting";
    this.#empty();
    this.#answers.append(...texts.map((text, i) => answerOf("AB"[i], text)));
    this.#voted = voted;
    for (const { choice, key, text } of CHOICES) {
      const button = this.#button(text, () => this.#vote(choice));
      button.setAttribute("aria-keyshortcuts", key);
      button.append(element("kbd", { "aria-hidden": "true", text: key.toUpperCase() }));
      this.#buttons.append(button);
    }
    this.#status.textContent = "Which answer is better? The settings are named after the vote.";
    this.#further.append(this.#button("No vote on these", this.#on.next));
    this.#focus(this.#heading);
  }

  /**
   * Names the settings of the answers after a vote.
   * @param {{name: string, model: string}[]} settings those of A and B
   * @param {boolean} more true if another prompt follows
   */
  showNames(choice, settings, more) {
    this.#place.dataset.state = "voted";
    this.#buttons.replaceChildren();
    this.#further.replaceChildren();
    [...this.#answers.children].forEach((answer, i) => {
      const chosen = choice === ["first", "second"][i];
      answer.classList.toggle("chosen", chosen);
      answer.querySelector("header").append(nameOf(settings[i]), chosen ? element("span", { class: "mark", text: "Your choice" }) : "");
      answer.append(element("div", { class: "row" }, this.#button("Look at its tokens", () => this.#on.look(i), `Look at the tokens of ${"AB"[i]}`)));
    });
    this.#status.textContent = `${TOLD[choice]} A was ${settings[0].name}, B was ${settings[1].name}.${more ? "" : " That was the last prompt."}`;
    if (more) this.#further.append(this.#button("Next prompt", this.#on.next, undefined, "primary"));
    this.#focus(this.#further.firstChild ?? this.#heading);
  }

  /** Shows why there is nothing to vote on. */
  showFault(message, more) {
    this.#place.dataset.state = "failed";
    this.#empty();
    this.#status.textContent = `${message} This prompt has no vote.`;
    this.#further.append(this.#button("Try again", this.#on.retry), more ? this.#button("Next prompt", this.#on.next) : "");
    this.#focus(this.#heading);
  }

  showEnd(message) {
    this.#place.dataset.state = "ended";
    this.#empty();
    this.#status.textContent = message;
    this.#focus(this.#heading);
  }

  /** Moves the focus, unless the reader is at another place of the page. */
  #focus(target) {
    const { activeElement, body } = document;
    // That of a button that is gone is at the body.
    if (activeElement === body || this.#place.contains(activeElement)) target.focus();
  }

  #empty() {
    this.#voted = null;
    for (const part of [this.#answers, this.#buttons, this.#further]) part.replaceChildren();
  }

  #vote(choice) {
    const voted = this.#voted;
    this.#voted = null;
    voted?.(choice);
  }

  #press(event) {
    if (this.#voted === null || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    const found = CHOICES.find(({ key }) => key === event.key.toLowerCase());
    if (found === undefined) return;
    event.preventDefault();
    this.#vote(found.choice);
  }

  #button(text, click, label = undefined, kind = undefined) {
    return element("button", { type: "button", class: kind, text, "aria-label": label, on: { click } });
  }
}

/** Returns an answer. All answers are made alike, of their text and their place alone. */
function answerOf(letter, text) {
  const body = text === "" ? element("p", { class: "dim", text: "The answer has no text." }) : element("div", { class: "vote-text", dir: "auto", text });
  return element("article", { class: "answer", "aria-label": `Answer ${letter}` }, element("header", { class: "row" }, element("h4", { text: letter })), body);
}

/** Returns the name of a setting, with its model. */
export function nameOf({ name, model }) {
  return element("span", { class: "setting-name" }, element("b", { text: name }), " ", element("span", { class: "dim small", text: model }));
}
