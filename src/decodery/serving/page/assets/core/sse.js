// Reads server-sent events from the body of an answer. EventSource cannot send the header with the key.

/** Yields the data of each event. */
export async function* dataLines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
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
  } finally {
    reader.cancel().catch(() => {});
  }
}
