"""Tests what distinguishes XLNet: its memory, its directions, and the token that classes read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from decodery.encoding.text_batches import BatchRunner, TokenText
from decodery.errors import ModelError
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.reference import torch_kernels
from decodery.loading.open_model import open_model
from decodery.models.encoders.xlnet import XLNET as FAMILY
from decodery.models.load import load_for_inference, load_model
from decodery.weights.formats.opening import open_checkpoint
from tests.encoding.folders import write_tokenizer
from tests.kernels.native.fixtures import built
from tests.models.encoders.families import Tiny, write_folder
from tests.models.encoders.relative_families import XLNET


def opened(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    with open_checkpoint(folder) as checkpoint:
        return load_model(checkpoint, dtype=dtype, kernels=torch_kernels)


def random_texts(*shape: int, below: int = 97) -> torch.Tensor:
    return torch.randint(0, below, shape, generator=torch.Generator().manual_seed(0))


CAUSAL = {"attn_type": "uni"}


@pytest.mark.parametrize(
    "settings",
    [
        {"mem_len": 17},
        {"mem_len": None},
        {"mem_len": 30, "reuse_len": 4},
        {"mem_len": 30, "clamp_len": 6},
        {**CAUSAL, "mem_len": 30},
        {**CAUSAL, "mem_len": 11, "same_length": True},
    ],
)
def test_segments_with_memory_are_those_of_transformers(settings: dict[str, Any], tmp_path: Path) -> None:
    import transformers

    folder = write_folder(Tiny("XLNet", {**XLNET, **settings, "use_mems_eval": True}), tmp_path)
    model, theirs = opened(folder), transformers.XLNetModel.from_pretrained(folder).eval()
    tokens, segments = random_texts(2, 40), random_texts(2, 40, below=3)
    # The memory counts as segment 0.
    segments[:, 12:20] = 1
    memory = their_memory = None
    for part in (slice(0, 12), slice(12, 20), slice(20, 40)):
        with torch.no_grad():
            expected = theirs(tokens[:, part], token_type_ids=segments[:, part], mems=their_memory)
            found, memory = model.segment_states(tokens[:, part], memory, segments[:, part])
        their_memory = expected.mems
        torch.testing.assert_close(found, expected.last_hidden_state, atol=3e-5, rtol=1e-5)
        for ours, each in zip(memory, their_memory, strict=True):
            torch.testing.assert_close(ours, each.transpose(0, 1), atol=3e-5, rtol=1e-5)


@pytest.mark.parametrize("settings", [CAUSAL, {**CAUSAL, "same_length": True}])
def test_a_model_that_sees_no_later_token_is_that_of_transformers(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    import transformers

    folder = write_folder(Tiny("XLNet", {**XLNET, **settings}), tmp_path)
    model, theirs = opened(folder), transformers.XLNetModel.from_pretrained(folder).eval()
    tokens, segments = random_texts(2, 40), random_texts(2, 40, below=3)
    with torch.no_grad():
        expected = theirs(tokens, token_type_ids=segments).last_hidden_state
    torch.testing.assert_close(model(tokens, segments=segments), expected, atol=3e-5, rtol=1e-5)


def test_a_model_that_sees_no_later_token_reads_in_segments_what_it_reads_at_once(tmp_path: Path) -> None:
    folder = write_folder(Tiny("XLNet", {**XLNET, **CAUSAL, "mem_len": None}), tmp_path)
    model, tokens = opened(folder, torch.float64), random_texts(2, 40)
    memory, found = None, []
    for part in tokens.split((1, 20, 12, 7), 1):
        states, memory = model.segment_states(part, memory)
        found.append(states)
    torch.testing.assert_close(torch.cat(found, 1), model(tokens), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(
        torch.cat([model(part) for part in tokens.split(20, 1)], 1), model(tokens), atol=0.1
    )


@built
def test_classes_read_the_last_token_of_each_text_whatever_pads_or_packs_it(tmp_path: Path) -> None:
    import transformers

    folder = write_folder(Tiny("XLNet", {**XLNET, "num_labels": 4}), tmp_path, "classes")
    theirs = transformers.XLNetForSequenceClassification.from_pretrained(folder).eval()
    with open_checkpoint(folder) as checkpoint:
        model: Any = load_for_inference(checkpoint, dtype=torch.float32, kernels=NativeKernels())
    head = model.heads["classes"]
    assert head.reads == "last"
    texts = [random_texts(9), random_texts(2), random_texts(33)]
    # The tokenizer numbers <cls>, which is the last one, as a segment of its own.
    segments = [[0] * (len(text) - 1) + [2] for text in texts]
    given = [TokenText(tuple(text.tolist()), tuple(each)) for text, each in zip(texts, segments, strict=True)]
    with torch.inference_mode():
        (batch,) = BatchRunner(model).run(given)
        for place, index in enumerate(batch.indices):
            found = head(batch.of(place)[-1:])
            expected = theirs(texts[index][None], token_type_ids=torch.tensor(segments[index])[None]).logits
            torch.testing.assert_close(found, expected, atol=3e-5, rtol=1e-5)


@built
def test_masked_tokens_are_predicted_by_the_stream_that_does_not_see_them(tmp_path: Path) -> None:
    import transformers

    mask = 6
    folder = write_folder(
        Tiny("XLNet", XLNET, names={"masked_lm": "XLNetLMHeadModel"}), tmp_path, "masked_lm"
    )
    theirs = transformers.XLNetLMHeadModel.from_pretrained(folder).eval()
    with open_checkpoint(folder) as checkpoint:
        native: Any = load_for_inference(checkpoint, dtype=torch.float32, kernels=NativeKernels())
    model = opened(folder)
    model.mask_token = native.mask_token = mask
    for places, length in (([7], 20), ([0, 3, 11], 12)):
        text = random_texts(length).clamp(min=7)
        text[places] = mask
        segments = [0] * (length - 1) + [2]
        unseen = torch.zeros(1, length, length)
        unseen[:, :, places] = 1
        wanted = torch.zeros(1, len(places), length)
        wanted[0, range(len(places)), places] = 1
        with torch.no_grad():
            expected = theirs(
                text[None],
                token_type_ids=torch.tensor(segments)[None],
                perm_mask=unseen,
                target_mapping=wanted,
            ).logits[0]
            states = model(text[None], segments=torch.tensor(segments)[None])[0, places]
        torch.testing.assert_close(model.heads["masked_lm"](states), expected, atol=3e-5, rtol=1e-5)
        given = TokenText(tuple(text.tolist()), tuple(segments))
        others = [given, TokenText((9, 8, 7), (0, 0, 2)), TokenText((mask, 8), (0, 2))]
        alone = next(BatchRunner(native).run([given])).states
        (batch,) = BatchRunner(native).run(others)
        assert torch.equal(batch.of(batch.indices.index(0)), alone)
        found = native.heads["masked_lm"](alone[places])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    # Of a text that is all masks no token sees any, and there is no right result.
    assert model(torch.tensor([[mask, mask]])).isfinite().all()


def test_an_opened_model_knows_the_mask_of_its_tokenizer(tmp_path: Path) -> None:
    settings = {**XLNET, "vocab_size": 400}
    write_folder(Tiny("XLNet", settings, names={"masked_lm": "XLNetLMHeadModel"}), tmp_path, "masked_lm")
    mask = write_tokenizer(tmp_path).id_of("mask")
    opened_model = open_model(tmp_path, dtype="auto", backend="torch")
    assert opened_model.encoder is not None
    assert opened_model.encoder.mask_token == mask


def test_half_of_a_batch_is_not_read_backwards(tmp_path: Path) -> None:
    """`bi_data` says how pretraining mixed its batches; a text's states must not depend on its place."""
    import transformers

    folder = write_folder(Tiny("XLNet", {**XLNET, "bi_data": True}), tmp_path)
    theirs = transformers.XLNetModel.from_pretrained(folder).eval()
    tokens = random_texts(1, 20)
    with torch.no_grad():
        expected = theirs(torch.cat((tokens, tokens))).last_hidden_state
    assert not torch.allclose(expected[0], expected[1], atol=0.1)
    found = opened(folder)(torch.cat((tokens, tokens)))
    for row in found:
        torch.testing.assert_close(row, expected[0], atol=3e-5, rtol=1e-5)


def test_the_head_that_searches_for_answers_is_refused_and_said_to_be_that(tmp_path: Path) -> None:
    names: Any = {"spans": "XLNetForQuestionAnswering"}
    folder = write_folder(Tiny("XLNet", XLNET, names=names), tmp_path, "spans")
    wanted = "XLNetForQuestionAnswering is not supported, since it has a beam search for answers"
    with pytest.raises(ModelError, match=wanted):
        opened(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attn_type", "both"),
        ("summary_type", "attn"),
        ("summary_use_proj", False),
        ("summary_proj_to_labels", True),
        ("d_model", 63),
        ("n_head", 7),
        ("ff_activation", "mish"),
        ("mem_len", -3),
    ],
)
def test_settings_that_have_no_meaning_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ModelError, match=key):
        FAMILY.config.from_hub({**XLNET, key: value})


def test_older_keys_and_null_are_read() -> None:
    config = FAMILY.config.from_hub(
        {
            **{key: each for key, each in XLNET.items() if key != "vocab_size"},
            "n_token": 97,
            "clamp_len": -1,
            "mem_len": None,
            "reuse_len": None,
            "summary_activation": None,
            "summary_type": "cls_index",
        }
    )
    assert (config.vocab_size, config.farthest, config.memory, config.reused) == (97, None, None, None)
    assert (config.summary_activation, config.reads, config.head_dim) == ("linear", "last", 12)
