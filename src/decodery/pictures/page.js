"use strict";
document.documentElement.classList.add("js");
for (const section of document.querySelectorAll("section")) {
  const links = [...section.querySelectorAll("a.t")];
  const panels = section.querySelector(".panels");
  const show = (link) => {
    for (const other of links) other.classList.toggle("on", other === link);
    for (const panel of panels.children) panel.classList.toggle("open", "#" + panel.id === link.hash);
    for (const other of document.querySelectorAll(".panels")) other.classList.toggle("idle", other !== panels);
  };
  let selected = links.find((link) => link.hash === location.hash) || links[0];
  if (selected) show(selected);
  links.forEach((link, place) => {
    link.addEventListener("mouseenter", () => show(link));
    link.addEventListener("mouseleave", () => show(selected));
    link.addEventListener("focus", () => show((selected = link)));
    link.addEventListener("click", (event) => {
      event.preventDefault();
      link.focus({ preventScroll: true });
      show((selected = link));
      try { history.replaceState(null, "", link.hash); } catch { /* a page without a history */ }
    });
    link.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step && links[place + step]) { event.preventDefault(); links[place + step].focus(); }
    });
  });
}
const nodeText = document.getElementById("node-text");
for (const node of document.querySelectorAll(".node")) {
  const highlight = () => {
    for (const marked of document.querySelectorAll(".on-path")) marked.classList.remove("on-path");
    let current = node;
    while (current) {
      current.classList.add("on-path");
      const edge = document.getElementById("e" + current.id.slice(1));
      if (edge) edge.classList.add("on-path");
      current = current.dataset.parent === undefined ? null : document.getElementById("n" + current.dataset.parent);
    }
    nodeText.textContent = node.querySelector("title").textContent;
  };
  node.addEventListener("mouseenter", highlight);
  node.addEventListener("focus", highlight);
}
