// Keeps the server's key for this browser session.

const NAME = "decodery-key";

/** Takes a key out of the address's fragment, before the first request, and keeps it. */
export function takeKey() {
  const found = /^#key=(.+)$/.exec(location.hash);
  if (found === null) return;
  setKey(decodeURIComponent(found[1]));
  history.replaceState(null, "", location.pathname + location.search);
}

/** Returns the key, or null. */
export function currentKey() {
  return sessionStorage.getItem(NAME);
}

export function setKey(key) {
  sessionStorage.setItem(NAME, key);
}
