// Keeps the messages of a conversation; replies are runs.

/** @typedef {{role: "system" | "user" | "assistant", content: string, run?: string}} Message */

export class Conversation {
  /** @type {Message[]} */
  messages = [];
  system = "";

  /** Returns the messages as the server takes them. */
  forServer() {
    return this.kept().map(({ role, content }) => ({ role, content }));
  }

  /** Returns the conversation up to now, as a run that replies to it keeps it. */
  kept() {
    const first = this.system.trim() === "" ? [] : [{ role: "system", content: this.system }];
    return [...first, ...this.messages.map((message) => ({ ...message }))];
  }

  /** Takes the conversation of a run, with its reply. */
  restore(run) {
    const [first, ...others] = run.messages;
    this.system = first?.role === "system" ? first.content : "";
    this.messages = first?.role === "system" ? others : run.messages.slice();
    this.reply(run);
  }

  ask(content) {
    this.messages.push({ role: "user", content });
  }

  reply(run) {
    this.messages.push({ role: "assistant", content: run.streams[0]?.text ?? "", run: run.id });
  }

  /** Takes the last question back, since nothing was answered. */
  takeBack() {
    return this.messages.pop().content;
  }

  clear() {
    this.messages = [];
  }
}
