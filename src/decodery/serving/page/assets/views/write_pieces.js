// Lists what other modules show in the view "Write".
//
// A piece has a `slot` and `load`, which gives mount(element, app) -> {show, clear?}. In the slot "token" its show gets
// (run, stream, index, {preview}) of the token that the reader opened, or passes with the pointer (`preview`); in the slot "run" it gets the run that is shown.

export const PIECES = [
  { slot: "token", load: async () => (await import("../parts/inspector.js")).mountInspector },
];
