// Keeps the end of a growing text in view, until the reader moves.

const MOVES = new Set(["PageUp", "PageDown", "ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "Home", "End", " "]);
const NEAR = 40;

/**
 * @param {HTMLElement} scroller
 * @param {HTMLElement} button shown while the end is out of view and not followed
 * @returns {{start(): void, stop(): void, grown(): void, readonly following: boolean}} `start` follows from now on,
 *   and `grown` is to be called after the content has grown
 */
export function followEnd(scroller, button) {
  let following = true;

  function showButton() {
    const hidden = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
    button.hidden = following || hidden < NEAR;
  }

  function stop() {
    if (!following) return;
    following = false;
    showButton();
  }

  function start() {
    following = true;
    scroller.scrollTop = scroller.scrollHeight;
    button.hidden = true;
  }

  scroller.addEventListener("wheel", stop, { passive: true });
  scroller.addEventListener("touchmove", stop, { passive: true });
  // A press on the scrollbar has the scroller as its target; one on the text does not move it.
  scroller.addEventListener("pointerdown", ({ target }) => target === scroller && stop());
  scroller.addEventListener("keydown", ({ key }) => MOVES.has(key) && stop());
  scroller.addEventListener("scroll", () => !following && showButton(), { passive: true });
  button.addEventListener("click", start);
  return {
    start,
    stop,
    grown() {
      if (following) scroller.scrollTop = scroller.scrollHeight;
      else showButton();
    },
    get following() {
      return following;
    },
  };
}
