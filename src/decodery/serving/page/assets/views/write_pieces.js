// Lists what other modules show in the view "Write".
//
// A piece has a `slot` and `load`, which gives mount(element, app, asking) -> {show, setMode?}. In the slot "token" its
// show gets (run, stream, index, {preview}) of the token that the reader opened, or passes with the pointer (`preview`);
// in the slots "tree" and "run" (beside the text) and "foot" (above the prompt) it gets the run that is shown. `asking` has the
// `text` field of the prompt, `params()`, and `start(request)`, which shows what it starts. `setMode` gets "completion" or
// "chat".

export const PIECES = [
  { slot: "token", load: async () => (await import("../parts/inspector.js")).mountInspector },
  { slot: "token", load: async () => (await import("../parts/from_here.js")).mountFromHere },
  { slot: "tree", load: async () => (await import("../parts/branch_piece.js")).mountBranchPiece },
  { slot: "foot", load: async () => (await import("../parts/step_piece.js")).mountStepPiece },
  { slot: "run", load: async () => (await import("../parts/share_menu.js")).mountShare },
];
