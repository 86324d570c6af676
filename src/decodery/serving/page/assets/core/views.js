// Lists the views of the page, in the order of the navigation. A view's module exports `view`: {name, title, mount}.

export const VIEWS = [
  { name: "write", title: "Write", load: () => import("../views/write.js") },
  { name: "compare", title: "Compare", load: () => import("../views/compare.js") },
  { name: "vote", title: "Vote", load: () => import("../views/vote.js") },
  { name: "tokens", title: "Tokens", load: () => import("../views/tokens.js") },
  { name: "prompt", title: "Prompt", load: () => import("../views/prompt.js") },
  { name: "layers", title: "Layers", load: () => import("../views/layers.js") },
  { name: "surprise", title: "Surprise", load: () => import("../views/surprise.js") },
  { name: "learn", title: "Learn", load: () => import("../views/learn.js") },
];
