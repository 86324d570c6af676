// Keeps the server's key for this browser session.

const NAME = "decodery-key";
const FRAGMENT = "#key=";
/** The key, where the browser forbids the page its storage. */
let kept = null;

/**
 * Takes a key out of the address's fragment and out of the history, and keeps it. Called before the first request.
 * @returns {boolean} true if there was one
 */
export function takeKey() {
  if (!location.hash.startsWith(FRAGMENT)) return false;
  const key = location.hash.slice(FRAGMENT.length);
  history.replaceState(null, "", location.pathname + location.search);
  // Keys are printable ASCII without spaces; anything else is a damaged address.
  if (!/^[\x21-\x7e]+$/.test(key)) return false;
  setKey(key);
  return true;
}

/** Returns the key, or null. */
export function currentKey() {
  try {
    return sessionStorage.getItem(NAME) ?? kept;
  } catch {
    return kept;
  }
}

export function setKey(key) {
  kept = key;
  try {
    sessionStorage.setItem(NAME, key);
  } catch {
    // It holds until the page is closed.
  }
}
