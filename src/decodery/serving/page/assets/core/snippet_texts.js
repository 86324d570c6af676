// Writes texts inside code: for JSON, for Python and for a shell.

/** A run that cannot be written in a form; the message says why, and what can. */
export class SnippetError extends Error {}

// Controls, formats, private characters and halves of characters, and separators other than the space: a reader of
// code cannot see them, and a terminal may obey them.
const UNSEEN = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/u;

/** Returns a text as a literal of JSON, without characters that cannot be seen; "!" too, which shells replace. */
export function jsonText(text) {
  return JSON.stringify(text).replace(new RegExp(`${UNSEEN.source}|!`, "gu"), (found) =>
    Array.from({ length: found.length }, (_, i) => `\\u${hex(found.charCodeAt(i), 4)}`).join(""),
  );
}

/** Returns a text as a literal of Python. */
export function pythonText(text) {
  return JSON.stringify(text).replace(new RegExp(UNSEEN.source, "gu"), (found) => {
    const code = found.codePointAt(0);
    return code > 0xffff ? `\\U${hex(code, 8)}` : `\\u${hex(code, 4)}`;
  });
}

/** Returns a text as one word of bash and zsh. Throws `SnippetError` for one that no command line can hold. */
export function shellText(text) {
  if (/\0|\p{Cs}/u.test(text)) {
    throw new SnippetError("A text holds a character that a command line cannot: copy the run as Python or curl.");
  }
  if (/^[\w@%+:,./-][\w@%+:,./=-]*$/.test(text)) return text;
  const readable = text.replaceAll("\n", "");
  if (!UNSEEN.test(readable) && !text.includes("!")) return `'${text.replaceAll("'", "'\\''")}'`;
  // By bytes, since what a shell makes of \u depends on its locale.
  const escaped = text.replace(new RegExp(`${UNSEEN.source}|['\\\\!]`, "gu"), (found) =>
    Array.from(new TextEncoder().encode(found), (byte) => `\\x${hex(byte, 2)}`).join(""),
  );
  return `$'${escaped}'`;
}

/** Returns the name of a field, as a run that somebody gave may have others. Throws `SnippetError`. */
export function fieldName(name) {
  if (/^[a-z][a-z0-9_]*$/.test(name)) return name;
  throw new SnippetError("The run has a parameter that is none of Decodery's.");
}

/** Returns what a table has for the `type` of an object. Throws `SnippetError` for a type that it does not have. */
export function known(table, type) {
  if (typeof type === "string" && Object.hasOwn(table, type)) return table[type];
  throw new SnippetError("The run has a parameter that is none of Decodery's.");
}

/** Returns the fields of a plain object, or the pairs of a list. Throws `SnippetError` for another value. */
export function entriesOf(value) {
  if (typeof value !== "object" || value === null) throw new SnippetError("The run has a parameter of a wrong kind.");
  if (!Array.isArray(value)) return Object.entries(value);
  if (value.every((pair) => Array.isArray(pair) && pair.length === 2)) return value;
  throw new SnippetError("The run has a parameter of a wrong kind.");
}

function hex(value, digits) {
  return value.toString(16).padStart(digits, "0");
}
