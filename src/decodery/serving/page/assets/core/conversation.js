// Keeps the messages of a conversation; replies are runs.

/** @typedef {{role: "system" | "user" | "assistant", content: string, run?: string}} Message */

export class Conversation {
  /** @type {Message[]} */
  messages = [];
  system = "";
  /** The run that replies to the last message, until it has ended; else null. */
  pending = null;
  /** True while the request of a reply is being made. */
  asking = false;

  get busy() {
    return this.asking || this.pending !== null;
  }

  /** Returns the messages as the server takes them. */
  forServer() {
    return this.kept().map(({ role, content }) => ({ role, content }));
  }

  /** Returns the conversation up to now, as a run that replies to it keeps it. */
  kept() {
    const first = this.system.trim() === "" ? [] : [{ role: "system", content: this.system }];
    return [...first, ...this.messages.map((message) => ({ ...message }))];
  }

  /** Returns the conversation that a run replies to, without its reply. */
  static before(run) {
    const found = new Conversation();
    const [first, ...others] = run.messages;
    found.system = first?.role === "system" ? first.content : "";
    found.messages = first?.role === "system" ? others : run.messages.slice();
    return found;
  }

  ask(content) {
    this.messages.push({ role: "user", content });
  }

  /** Adds a run's text as the reply. It may grow on, by steps. */
  reply(run) {
    const text = () => run.streams[0]?.text ?? "";
    this.messages.push({ role: "assistant", run: run.id, get content() { return text(); } });
  }

  /** Takes the last question back, since nothing was answered. */
  takeBack() {
    return this.messages.pop().content;
  }
}
