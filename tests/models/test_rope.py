"""Checks rotary positions where they differ from those of transformers."""

from __future__ import annotations

import torch

from decodery.models.layers.rope import DynamicRope, Rope, Rotary

POSITIONS = torch.arange(100)


def test_dynamic_scaling_rests_within_the_original_context() -> None:
    plain = Rotary(Rope(1000.0), 12, 32)(POSITIONS)
    opened = Rotary(DynamicRope(1000.0, factor=4.0, original_length=32), 12, 32)
    assert torch.equal(opened(POSITIONS).cos, plain.cos)
    assert torch.equal(opened(POSITIONS, length=20).sin, plain.sin)


def test_dynamic_scaling_turns_by_the_length_that_the_model_was_opened_for() -> None:
    rope = DynamicRope(1000.0, factor=4.0, original_length=32)
    opened = Rotary(rope, 12, 100)
    whole = opened(POSITIONS)
    # The angle of a position does not depend on the current length of a sequence.
    assert torch.equal(opened(POSITIONS[:40]).cos, whole.cos[:40])
    assert torch.equal(Rotary(rope, 12, 32)(POSITIONS, length=100).cos, whole.cos)
    assert not torch.equal(Rotary(rope, 12, 32)(POSITIONS).cos, whole.cos)


def test_angles_do_not_depend_on_how_many_are_computed() -> None:
    rotary = Rotary(Rope(10000.0), 12, 5000)
    positions = torch.arange(5000)
    whole = rotary(positions)
    for count in (1, 2, 3, 5, 17, 100, 1001, 4999):
        assert torch.equal(rotary(positions[-count:]).cos, whole.cos[-count:])
        assert torch.equal(rotary(positions[-count:]).sin, whole.sin[-count:])
