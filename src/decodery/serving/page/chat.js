// The chat box: keeps a conversation, sends it to /v1/chat/completions and shows the reply as it comes.

const find = (id) => document.getElementById(id);
const log = find("log");
const text = find("text");
const KEY = "decodery-key";
const RETRY_MS = 2000;

let messages = [];
let running = null;

function headers() {
  const key = sessionStorage.getItem(KEY);
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Returns the answer of the server; throws its error.
async function ask(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { ...options.headers, ...headers() } });
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => null);
  throw new ServerError(answer.status, body?.error?.message ?? `The server answered with ${answer.status}.`);
}

function wordsOf(error) {
  if (error instanceof TypeError) return "The server cannot be reached.";
  if (error.status !== 401) return error.message;
  return sessionStorage.getItem(KEY) === null
    ? "This server asks for a key."
    : "The server does not accept this key.";
}

function showError(error) {
  follow(() => {
    find("error").textContent = wordsOf(error);
    find("error").hidden = false;
    find("key-form").hidden = error.status !== 401;
  });
  if (error.status === 401) find("key").focus();
}

function clearError() {
  find("error").hidden = true;
  find("error").textContent = "";
}

async function loadModels() {
  const select = find("model");
  try {
    const { data } = await (await ask("v1/models")).json();
    if (data.length === 0) throw new ServerError(503, "The model is being opened.");
    select.replaceChildren(...data.map(({ id }) => new Option(id, id)));
    select.disabled = data.length < 2;
    find("status").textContent = "";
    clearError();
  } catch (error) {
    if (error.status === 503) {
      find("status").textContent = error.message;
      setTimeout(loadModels, RETRY_MS);
    } else {
      showError(error);
    }
  }
}

function element(name, className, content = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = content;
  return made;
}

// Shows a message, and returns the functions that add to it.
function show(role, content = "") {
  find("empty").hidden = true;
  const message = element("article", `message ${role}`);
  const title = role === "user" ? "You" : find("model").value || "Model";
  const body = element("div", "body", content);
  message.append(element("h2", "", title), body);
  log.append(message);
  log.scrollTop = log.scrollHeight;
  let reasoning = null;
  return {
    add(piece) {
      follow(() => body.append(piece));
    },
    think(piece) {
      if (reasoning === null) {
        const details = element("details", "");
        reasoning = element("div", "");
        details.append(element("summary", "", "Reasoning"), reasoning);
        body.before(details);
      }
      follow(() => reasoning.append(piece));
    },
    note(words) {
      follow(() => message.append(element("p", "note", words)));
    },
    busy(value) {
      message.setAttribute("aria-busy", String(value));
    },
    remove() {
      message.remove();
      find("empty").hidden = log.querySelector(".message") !== null;
    },
  };
}

// Changes the log, and keeps its end in view if it was.
function follow(change) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  change();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

// Yields the data of the server-sent events of an answer.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === "" && data.length > 0) {
        yield data.join("\n");
        data = [];
      } else if (line.startsWith("data:")) {
        data.push(line.replace(/^data: ?/, ""));
      }
    }
  }
}

// Streams a reply into `shown`; returns its finish_reason. `got` is called with each piece of its text.
async function reply(shown, got, signal) {
  const answer = await ask("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ model: find("model").value || undefined, messages, stream: true }),
    signal,
  });
  let finish = null;
  for await (const data of events(answer.body)) {
    if (data === "[DONE]") return finish;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ServerError(0, chunk.error.message);
    const choice = chunk.choices[0];
    if (choice === undefined) continue;
    if (choice.delta.reasoning_content) shown.think(choice.delta.reasoning_content);
    if (choice.delta.content) {
      shown.add(choice.delta.content);
      got(choice.delta.content);
    }
    finish = choice.finish_reason ?? finish;
  }
  throw new ServerError(0, "The server ended the answer early.");
}

function setRunning(controller) {
  running = controller;
  find("send").hidden = controller !== null;
  find("stop").hidden = controller === null;
  find("reset").disabled = controller !== null;
  find("status").textContent = controller === null ? "" : "Writing …";
}

async function send() {
  const content = text.value;
  if (running !== null || content.trim() === "") return;
  const controller = new AbortController();
  clearError();
  text.value = "";
  messages.push({ role: "user", content });
  const asked = show("user", content);
  const shown = show("reply");
  shown.busy(true);
  setRunning(controller);
  let whole = "";
  let ended = false;
  try {
    const finish = await reply(shown, (piece) => (whole += piece), controller.signal);
    ended = true;
    if (finish === "length") shown.note("The text was cut at its longest length.");
    else if (whole === "") shown.note("The reply is empty.");
  } catch (error) {
    if (controller.signal.aborted) shown.note("Stopped.");
    else showError(error);
  }
  shown.busy(false);
  setRunning(null);
  if (ended || whole !== "") {
    messages.push({ role: "assistant", content: whole });
  } else {
    // Nothing was answered: the message goes back into the box.
    messages.pop();
    asked.remove();
    shown.remove();
    text.value = text.value || content;
  }
  if (find("key-form").hidden) text.focus();
}

function stop() {
  running?.abort();
}

text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
});
find("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
find("stop").addEventListener("click", stop);
find("reset").addEventListener("click", () => {
  messages = [];
  for (const message of log.querySelectorAll(".message")) message.remove();
  find("empty").hidden = false;
  clearError();
  text.focus();
});
find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, find("key").value.trim());
  find("key").value = "";
  find("key-form").hidden = true;
  clearError();
  loadModels();
  text.focus();
});
loadModels();
