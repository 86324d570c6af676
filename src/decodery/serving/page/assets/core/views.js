// Lists the views of the page, in the order of the navigation. A view's module exports `view`: {name, title, mount}.

export const VIEWS = [
  { name: "write", title: "Write", load: () => import("../views/write.js") },
  { name: "learn", title: "Learn", load: () => import("../views/learn.js") },
];
