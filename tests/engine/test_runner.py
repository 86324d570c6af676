from __future__ import annotations

from decodery.engine.captured_steps import MOST_KEPT_TOKENS, CapturedStep, CapturedSteps


def test_a_step_larger_than_all_that_may_be_kept_is_never_captured_and_drives_no_other_out() -> None:
    steps = CapturedSteps()
    small, _ = CapturedStep(None, None, None), steps.find(4, ())  # type: ignore[arg-type]
    steps.keep(4, (), small)
    for _ in range(3):
        assert steps.find(MOST_KEPT_TOKENS + 1, ()) == (None, False)
    assert steps.find(4, ()) == (small, True)
