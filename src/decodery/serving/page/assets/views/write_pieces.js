// Lists what other modules show in the view "Write".
//
// A piece has a `slot` and `load`, which gives mount(element, app) -> {show, clear?}. In the slot "token" its show gets
// (run, stream, index) of the token that the reader opened; in the slot "run" it gets the run that is shown.

export const PIECES = [];
