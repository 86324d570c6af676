from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from transformers import WatermarkDetector, WatermarkingConfig

from decodery.decoding.draw import draw_key
from decodery.decoding.processors.pipeline import process
from decodery.decoding.processors.watermark import detect
from decodery.decoding.request.watermark_params import Watermark
from decodery.errors import ParameterError
from decodery.kernels.vocabulary.dispatch import draw
from tests.decoding.rows import make_row

VOCAB = 400
Scheme = Literal["lefthash", "selfhash"]


def _text(watermark: Watermark | None, length: int, **params: Any) -> list[int]:
    """Returns a text drawn from logits that change at random."""
    row = make_row([5, 6, 7], watermark=watermark, **params)
    generator = torch.Generator().manual_seed(1)
    for step in range(length):
        logits = torch.randn(1, VOCAB, generator=generator) * 1.5
        row = row.after(int(draw(process(logits, [row]), [draw_key(0, step)])[0]))
    return row.tokens[3:].tolist()


@pytest.mark.parametrize("scheme", ["lefthash", "selfhash"])
@pytest.mark.parametrize("width", [1, 3])
def test_marked_text_is_found_and_unmarked_text_is_not(scheme: Scheme, width: int) -> None:
    mark = Watermark(bias=4.0, context_width=width, seeding_scheme=scheme)
    marked = detect(_text(mark, 80), mark, VOCAB)
    assert marked.p_value < 1e-5
    assert marked.green > marked.scored / 2
    assert detect(_text(None, 80), mark, VOCAB).p_value > 0.01
    other = Watermark(bias=4.0, context_width=width, seeding_scheme=scheme, hashing_key=99)
    assert detect(_text(mark, 80), other, VOCAB).p_value > 0.01


def test_p_values_of_unmarked_text_are_not_too_small() -> None:
    random = np.random.default_rng(0)
    mark = Watermark()
    values = [detect(random.integers(0, VOCAB, 60).tolist(), mark, VOCAB).p_value for _ in range(100)]
    assert np.mean(np.array(values) < 0.1) < 0.2


def test_a_repeated_text_is_no_evidence() -> None:
    text = _text(None, 30)
    once, often = detect(text, Watermark(), VOCAB), detect(text * 20, Watermark(), VOCAB)
    assert often.scored <= once.scored + 1


@pytest.mark.parametrize("scheme", ["lefthash", "selfhash"])
def test_the_detector_of_transformers_agrees(scheme: Scheme) -> None:
    mark = Watermark(context_width=2, seeding_scheme=scheme)
    text = _text(mark, 60)
    config: Any = SimpleNamespace(vocab_size=VOCAB, bos_token_id=VOCAB, is_encoder_decoder=False)
    theirs: Any = WatermarkDetector(
        config, "cpu", WatermarkingConfig(**vars(mark)), ignore_repeated_ngrams=True
    )
    found = theirs(torch.tensor([text]), return_dict=True)
    ours = detect(text, mark, VOCAB)
    assert (ours.green, ours.scored) == (int(found.num_green_tokens[0]), int(found.num_tokens_scored[0]))
    assert ours.z == pytest.approx(float(found.z_score[0]))
    assert ours.p_value == pytest.approx(float(found.p_value[0]))


def test_a_green_list_has_its_share_and_depends_on_the_last_token() -> None:
    mark = Watermark(greenlist_ratio=0.3, bias=1.0)
    logits = torch.zeros(3, VOCAB)
    rows = [
        make_row([1, 2], watermark=mark),
        make_row([9, 2], watermark=mark),
        make_row([2, 1], watermark=mark),
    ]
    green = process(logits, rows) > 0
    assert green.sum(-1).tolist() == [120, 120, 120]
    assert torch.equal(green[0], green[1])
    assert not torch.equal(green[0], green[2])


def test_the_green_list_of_selfhash_depends_on_its_whole_context() -> None:
    mark = Watermark(seeding_scheme="selfhash", context_width=3, bias=1.0)
    logits = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(0)).repeat(3, 1)
    rows = [make_row(p, watermark=mark) for p in ([1, 1, 2], [8, 1, 2], [1, 8, 2])]
    changed = process(logits, rows) != logits
    assert torch.equal(changed[0], changed[1])
    assert not torch.equal(changed[0], changed[2])
    assert changed[0].sum() <= 40


def test_tokens_that_are_cut_stay_cut() -> None:
    for scheme in ("lefthash", "selfhash"):
        result = process(
            torch.randn(1, VOCAB), [make_row(top_k=3, watermark=Watermark(bias=50.0, seeding_scheme=scheme))]
        )
        assert int((result > -torch.inf).sum()) == 3


def test_a_text_that_is_too_short_is_one_clear_error() -> None:
    with pytest.raises(ParameterError, match="token_ids has 2 tokens; this watermark needs 3 or more"):
        detect([1, 2], Watermark(context_width=2), VOCAB)
    short = make_row([1], watermark=Watermark(context_width=2))
    assert not process(torch.zeros(1, VOCAB), [short]).any()
