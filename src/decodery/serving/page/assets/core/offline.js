// Is the page's service worker: keeps the page's own files, so that it opens when the server is gone.
//
// The server is always asked first, so no file is older than the server that answers. Requests to its other routes
// are left alone.

const CACHE = "decodery-page";
const scope = () => self.registration.scope;

self.addEventListener("install", (event) => {
  self.skipWaiting();
  event.waitUntil(keepAll());
});

self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const [address] = request.url.split(/[?#]/);
  const own = address === scope() || address.startsWith(`${scope()}assets/`);
  if (request.method === "GET" && own) event.respondWith(answer(request, address));
});

/** Keeps the page and all its files, also those that no view has loaded yet. */
async function keepAll() {
  const paths = await (await fetch(`${scope()}assets/files.json`)).json();
  const cache = await caches.open(CACHE);
  await cache.addAll([scope(), ...paths.map((path) => scope() + path)]);
}

async function answer(request, address) {
  const cache = await caches.open(CACHE);
  let found;
  try {
    found = await fetch(request);
  } catch (error) {
    const kept = await cache.match(address);
    if (kept === undefined) throw error;
    return kept;
  }
  if (found.ok) await cache.put(address, found.clone());
  return found;
}
