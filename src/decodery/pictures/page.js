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
  let held = links.find((link) => link.hash === location.hash) || links[0];
  if (held) show(held);
  links.forEach((link, place) => {
    link.addEventListener("mouseenter", () => show(link));
    link.addEventListener("mouseleave", () => show(held));
    link.addEventListener("focus", () => show((held = link)));
    link.addEventListener("click", (event) => {
      event.preventDefault();
      link.focus({ preventScroll: true });
      show((held = link));
      try { history.replaceState(null, "", link.hash); } catch { /* a page without a history */ }
    });
    link.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step && links[place + step]) { event.preventDefault(); links[place + step].focus(); }
    });
  });
}
const told = document.getElementById("told");
for (const node of document.querySelectorAll(".node")) {
  const light = () => {
    for (const lit of document.querySelectorAll(".lit")) lit.classList.remove("lit");
    let at = node;
    while (at) {
      at.classList.add("lit");
      const edge = document.getElementById("e" + at.id.slice(1));
      if (edge) edge.classList.add("lit");
      at = at.dataset.parent === undefined ? null : document.getElementById("n" + at.dataset.parent);
    }
    told.textContent = node.querySelector("title").textContent;
  };
  node.addEventListener("mouseenter", light);
  node.addEventListener("focus", light);
}
