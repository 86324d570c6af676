// Shows, beside the text, the tree of its branches and that of its beams, and makes branches where one is asked for.

import { Brancher } from "../core/brancher.js";
import { element } from "../core/dom.js";
import { renderBeamTree } from "./beam_tree.js";
import { mountBranchTree } from "./branch_tree.js";

/** Mounts the piece; "branch" events of the whole view are answered here. */
export function mountBranchPiece(place, app) {
  const brancher = new Brancher(app);
  const branches = element("section", { class: "branch-tree", "aria-label": "Branches" });
  const beams = element("section", { class: "beam-tree", "aria-label": "Beams", hidden: true });
  const help = element("p", { class: "help", text: "Choose a token of the text and then one of its candidates: the text goes on from there, and the old one stays." });
  place.append(help, branches, beams);
  const tree = mountBranchTree(branches, app);
  let close = () => {};

  const view = place.closest(".view");
  view.addEventListener("branch", ({ detail }) => {
    if (detail.tokens === undefined) brancher.branch(detail);
    else brancher.branchFromBeam(detail);
  });
  view.addEventListener("open", ({ detail }) => app.open("write", { run: detail.run.id }));

  return {
    show(run) {
      close();
      tree.show(run);
      const shown = renderBeamTree(beams, run);
      const update = () => {
        beams.hidden = run.steps.length === 0;
        help.hidden = !branches.hidden || !beams.hidden;
      };
      run.addEventListener("change", update);
      update();
      close = () => {
        shown.close();
        run.removeEventListener("change", update);
      };
    },
  };
}
