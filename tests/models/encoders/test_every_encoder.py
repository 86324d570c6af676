"""Checks the laws that hold for every encoder family, against transformers and in every form of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from decodery.encoding.text_batches import BatchRunner, TokenText
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.reference import torch_kernels
from decodery.models.contract import Head
from decodery.models.families import find_family, names_of
from decodery.models.load import load_for_inference, load_model
from decodery.weights.formats.checkpoint import Checkpoint
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.parameters import export_parameters, load_parameters
from tests.kernels.native.fixtures import built
from tests.models.encoders.families import FAMILIES as ABSOLUTE_FAMILIES
from tests.models.encoders.families import write_folder
from tests.models.encoders.head_traits import head_traits
from tests.models.encoders.relative_families import RELATIVE_FAMILIES

FAMILIES = {**ABSOLUTE_FAMILIES, **RELATIVE_FAMILIES}

every_family = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if t.slow else ()) for n, t in FAMILIES.items()]
)
every_head = pytest.mark.parametrize(
    ("name", "head"),
    [
        pytest.param(n, head, marks=pytest.mark.slow if t.slow else ())
        for n, t in FAMILIES.items()
        for head in t.heads
    ],
)
LENGTHS = 40, 17, 1
PAD = 1
Folders = Callable[..., Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Returns the function that writes the folder of a family with a head, by default the family's first."""
    root = tmp_path_factory.mktemp("encoders")

    @cache
    def written(name: str, head: Head | None = None) -> Path:
        head = head or FAMILIES[name].heads[0]
        folder = root / f"{name}-{head}".replace(" ", "-").replace(",", "")
        return write_folder(FAMILIES[name], folder, head)

    return written


def opened(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    with open_checkpoint(folder) as checkpoint:
        return load_model(
            checkpoint, dtype=dtype, kernels=torch_kernels, context_length=context_of(checkpoint)
        )


def context_of(checkpoint: Checkpoint) -> int | None:
    """Returns the length for which a model that has no limit of its own is opened."""
    return None if "max_position_embeddings" in checkpoint.config else 43


def served(folder: Path, quantization: str | None = None) -> Any:
    """Returns the model as it is run natively, its weights packed."""
    with open_checkpoint(folder) as checkpoint:
        return load_for_inference(
            checkpoint,
            dtype=torch.float32,
            kernels=NativeKernels(),
            context_length=context_of(checkpoint),
            quantization=quantization,
        )


def oracle(name: str, folder: Path, head: Head) -> Any:
    import transformers

    return getattr(transformers, FAMILIES[name].architecture(head)).from_pretrained(folder).eval()


def some_texts(name: str, lengths: Sequence[int], *, seed: int = 0, least: int = 0) -> list[TokenText]:
    """Returns texts of random ids and of sorted random segments; with `least` 0, a padding id is in each."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for length in lengths:
        ids = torch.randint(least, 97, (length,), generator=generator)
        if length > 3 and not least:
            ids[length // 2] = FAMILIES[name].settings.get("pad_token_id", 0)
        segments = torch.randint(0, FAMILIES[name].segments, (length,), generator=generator)
        found.append(TokenText(tuple(ids.tolist()), tuple(segments.sort().values.tolist())))
    return found


def padded(texts: Sequence[TokenText], *, left: bool = False, to: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Returns ids, segments and False at padding [texts, longest], padded on one side."""
    longest = max(to, *(len(text.ids) for text in texts))
    tokens = torch.full((len(texts), longest), PAD)
    segments, keep = torch.zeros_like(tokens), torch.zeros_like(tokens, dtype=torch.bool)
    for row, text in enumerate(texts):
        place = slice(-len(text.ids), None) if left else slice(len(text.ids))
        tokens[row, place] = torch.tensor(text.ids)
        segments[row, place] = torch.tensor(text.segments)
        keep[row, place] = True
    return tokens, segments, keep


def ends_of(keep: Tensor) -> list[tuple[int, int]]:
    """Returns the first and the last place of each text."""
    return [(int(row.nonzero()[0]), int(row.nonzero()[-1])) for row in keep]


def their_scores(model: Any, head: Head, tokens: Tensor, segments: Tensor, keep: Tensor) -> dict[str, Tensor]:
    """Returns transformers' scores by our names of heads, those of whole texts [texts, labels]."""
    given = {"input_ids": tokens, "attention_mask": keep.long()}
    if segments.any():
        given["token_type_ids"] = segments
    if head == "choices":
        given = {key: each[:, None] for key, each in given.items()}
    out = model(**given)
    if head == "states":
        return {"states": out.last_hidden_state}
    if head == "spans":
        return {head: torch.stack((out.start_logits, out.end_logits), -1)}
    if head == "pretraining":
        order = out.sop_logits if "sop_logits" in out else out.seq_relationship_logits
        return {"masked_lm": out.prediction_logits, "next_sentence": order}
    if head == "replaced":
        return {head: out.logits[..., None]}
    return {head: out.logits}


def our_scores(model: Any, states: Tensor, ends: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
    """Returns the scores of all heads, and the states of a model without heads.

    `ends` are the first and the last place of each text.
    """
    rows = range(len(ends))
    read = {
        "tokens": lambda: states,
        "first": lambda: torch.stack([states[row, ends[row][0]] for row in rows]),
        "last": lambda: torch.stack([states[row, ends[row][1]] for row in rows]),
        "mean": lambda: torch.stack([states[row, ends[row][0] : ends[row][1] + 1].mean(0) for row in rows]),
    }
    return {name: head(read[head.reads]()) for name, head in model.heads.items()} or {"states": states}


def scores_alone(model: Any, text: TokenText) -> dict[str, Tensor]:
    states = model(torch.tensor(text.ids)[None], segments=torch.tensor(text.segments)[None])
    return our_scores(model, states, [(0, len(text.ids) - 1)])


def assert_near(found: Tensor, theirs: Tensor) -> None:
    """Asserts that scores are theirs but for rounding."""
    assert found.shape == theirs.shape
    error = ((found - theirs).abs() / (1 + theirs.abs())).max().item()
    assert error <= 1e-5, error


@every_head
def test_states_and_scores_are_those_of_transformers(name: str, head: Head, folders: Folders) -> None:
    model, expected = opened(folders(name, head)), oracle(name, folders(name, head), head)
    full = model.context_length
    for lengths in (LENGTHS, (full,), (9,), (1,)):
        texts = some_texts(name, lengths, seed=lengths[0])
        tokens, segments, keep = padded(texts, left=FAMILIES[name].last)
        with torch.no_grad():
            theirs = their_scores(expected, head, tokens, segments, keep)
            states = model(tokens, None if len(texts) == 1 else keep, segments)
            ours = our_scores(model, states, ends_of(keep))
        assert ours.keys() == theirs.keys()
        for kind, scores in theirs.items():
            assert scores.numel() < 9 or scores.std() > 0.1, kind
            rows = keep if scores.dim() == 3 else slice(None)
            assert_near(ours[kind][rows], scores[rows])


@every_family
def test_the_states_of_each_layer_are_those_of_transformers(name: str, folders: Folders) -> None:
    head = FAMILIES[name].heads[0]
    model, expected = opened(folders(name)), oracle(name, folders(name), head)
    (text,) = some_texts(name, (30,))
    tokens, segments, keep = padded([text])
    given = {"token_type_ids": segments} if segments.any() else {}
    with torch.no_grad():
        theirs = expected(
            tokens, attention_mask=keep.long(), **given, output_hidden_states=True
        ).hidden_states
    assert len(theirs) == model.depth + 1
    (batch,) = BatchRunner(model).run([text], layers=range(model.depth))
    assert list(batch.layers) == list(range(model.depth))
    for layer, states in batch.layers.items():
        assert_near(states, theirs[layer][0])


@every_family
def test_in_bfloat16_the_error_is_small_or_that_of_transformers(name: str, folders: Folders) -> None:
    head = FAMILIES[name].heads[0]
    texts, folder = some_texts(name, LENGTHS), folders(name)
    tokens, segments, keep = padded(texts)
    ends = ends_of(keep)
    # Of the same rounded weights: what rounding them changes is no error of the computation.
    exact_model = opened(folder, torch.bfloat16).double()
    (exact,) = our_scores(exact_model, exact_model(tokens, keep, segments), ends).values()

    def error(scores: Tensor) -> float:
        rows = keep if scores.dim() == 3 else slice(None)
        return ((scores - exact)[rows].square().mean().sqrt() / exact[rows].std()).item()

    with torch.no_grad():
        (theirs,) = their_scores(oracle(name, folder, head).bfloat16(), head, tokens, segments, keep).values()
    model = opened(folder, torch.bfloat16)
    (found,) = our_scores(model, model(tokens, keep, segments), ends).values()
    assert 0 < error(found) < max(2e-2, 1.2 * error(theirs))


@every_head
def test_padded_on_either_side_or_packed_a_text_is_what_it_is_alone(
    name: str, head: Head, folders: Folders
) -> None:
    model = opened(folders(name, head), torch.float64)
    texts = some_texts(name, LENGTHS)
    alone = [scores_alone(model, text) for text in texts]
    for left in (False, True):
        tokens, segments, keep = padded(texts, left=left, to=43)
        found = our_scores(model, model(tokens, keep, segments), ends_of(keep))
        for row, text in enumerate(alone):
            for kind, expected in text.items():
                row_found = found[kind][row]
                mine = row_found[keep[row]] if expected.dim() == 3 else row_found
                torch.testing.assert_close(mine, expected[0], atol=1e-9, rtol=1e-6)
    packed = scores_packed(model, texts)
    for found_text, text in zip(packed, alone, strict=True):
        for kind, expected in text.items():
            torch.testing.assert_close(found_text[kind], expected[0], atol=1e-9, rtol=1e-6)


@torch.inference_mode()
def scores_packed(model: Any, texts: Sequence[TokenText], **options: Any) -> list[dict[str, Tensor]]:
    """Returns the scores of each text, all of a batch computed at once."""
    found: list[dict[str, Tensor]] = [{} for _ in texts]
    for batch in BatchRunner(model).run(texts, **options):
        first = torch.tensor(batch.starts)
        last = first + torch.tensor(batch.lengths) - 1
        means = torch.stack([batch.of(place).mean(0) for place in range(len(first))])
        read = {
            "tokens": batch.states,
            "first": batch.states[first],
            "last": batch.states[last],
            "mean": means,
        }
        scores = {name: head(read[head.reads]) for name, head in model.heads.items()}
        for place, index in enumerate(batch.indices):
            found[index] = {"states": batch.of(place)} if not scores else {}
            for kind, each in scores.items():
                whole = model.heads[kind].reads == "tokens"
                found[index][kind] = batch.of(place, each) if whole else each[place]
    return found


@built
@every_head
@pytest.mark.parametrize("quantization", [None, "int8"])
def test_natively_a_text_among_others_is_what_it_is_alone_bit_for_bit_and_that_of_transformers(
    name: str, head: Head, quantization: str | None, folders: Folders
) -> None:
    model, expected = served(folders(name, head), quantization), oracle(name, folders(name, head), head)
    texts = some_texts(name, (model.context_length, *LENGTHS, 16, 33, 1))
    packed = scores_packed(model, texts)
    for text, together in zip(texts, packed, strict=True):
        (alone,) = scores_packed(model, [text])
        with torch.no_grad():
            theirs = their_scores(expected, head, *padded([text]))
        assert together.keys() == theirs.keys()
        for kind, scores in theirs.items():
            assert torch.equal(together[kind], alone[kind])
            if quantization is None:
                assert_near(together[kind], scores[0])


@built
@every_family
@pytest.mark.parametrize("quantization", [None, "int8"])
def test_natively_300_texts_of_mixed_length_are_each_what_they_are_alone(
    name: str, quantization: str | None, folders: Folders
) -> None:
    model = served(folders(name), quantization)
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, model.context_length + 1, (300,), generator=generator).tolist()
    lengths[:2] = 1, model.context_length
    texts = some_texts(name, lengths)
    runner = BatchRunner(model)
    alone = [next(runner.run([text])).states for text in texts]
    for tokens in (4096, 300):
        done = 0
        for batch in runner.run(texts, tokens=tokens):
            for place, index in enumerate(batch.indices):
                assert torch.equal(batch.of(place), alone[index])
            done += len(batch.indices)
        assert done == 300


@built
@every_family
def test_with_packed_weights_states_are_near_the_exact_ones(name: str, folders: Folders) -> None:
    (text,) = some_texts(name, (40,))
    (expected,) = scores_alone(opened(folders(name)), text).values()
    for quantization, bound in (("int8", 0.06), ("int4", 0.5)):
        ((found,),) = (one.values() for one in scores_packed(served(folders(name), quantization), [text]))
        assert (found - expected).square().mean().sqrt() / expected.std() < bound, quantization


@every_family
def test_each_trait_of_a_family_changes_its_states(name: str, folders: Folders) -> None:
    tiny = FAMILIES[name]
    (text,) = some_texts(name, (40,))
    (expected,) = scores_alone(opened(folders(name)), text).values()
    models: dict[str, Any] = {}
    for trait, without in tiny.traits.items():
        with open_checkpoint(folders(name)) as checkpoint:
            found = find_family(checkpoint)
            config = found.family.config.read(checkpoint)
            with torch.device("meta"):
                models[trait] = found.family.build[found.head](without(config), torch_kernels)
            names = names_of(found, config, checkpoint)
            load_parameters(models[trait], checkpoint, names.rules, config.layers, ["*"])
    for trait, edit in tiny.edits.items():
        models[trait] = opened(folders(name))
        edit(models[trait])
    for trait, model in models.items():
        # A hundred times what the law of transformers allows.
        (changed,) = scores_alone(model, text).values()
        assert (changed - expected).abs().max() > 1e-3, trait


@every_head
def test_each_trait_of_a_head_changes_its_scores(name: str, head: Head, folders: Folders) -> None:
    model = opened(folders(name, head))
    tokens, segments, keep = padded(some_texts(name, (40, 17, 3)))
    states, ends = model(tokens, keep, segments).detach(), ends_of(keep)
    assert bool(model.heads) == (head != "states")
    for kind, module in model.heads.items():
        expected = our_scores(model, states, ends)[kind]
        for trait in head_traits(module):
            changed = opened(folders(name, head))
            with torch.no_grad():
                trait.remove(changed.heads[kind])
                scores = our_scores(changed, states, ends)[kind]
            assert (scores - expected).abs().max() > trait.least, (kind, trait.name)


@every_head
def test_gradients_are_those_of_transformers(name: str, head: Head, folders: Folders) -> None:
    folder = folders(name, head)
    model, expected = opened(folder).requires_grad_(), oracle(name, folder, head)
    # Without padding ids, whose rows transformers does not train.
    texts = some_texts(name, (12, 7), least=4)
    tokens, segments, keep = padded(texts, left=FAMILIES[name].last)
    ours = our_scores(model, model(tokens, keep, segments), ends_of(keep))
    theirs = their_scores(expected, head, tokens, segments, keep)
    for scores in (ours, theirs):
        sum(loss(each, keep) for each in scores.values()).backward()  # type: ignore[union-attr]
    with open_checkpoint(folder) as checkpoint:
        family = find_family(checkpoint).family
        names = family.hub_names(family.config.read(checkpoint))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    wanted = dict(expected.named_parameters(remove_duplicate=False))
    compared = set()
    for stored, gradient in export_parameters(model, names.rules, model.config.layers):
        # A model without a head has names without the prefix.
        parameter = wanted[stored if stored in wanted else stored.partition(".")[2]]
        if parameter.grad is None:
            assert not gradient.any(), stored
            continue
        assert gradient.any(), stored
        torch.testing.assert_close(gradient, parameter.grad, atol=1e-4, rtol=1e-4)
        compared.add(parameter)
    assert compared == {parameter for parameter in wanted.values() if parameter.grad is not None}


def loss(scores: Tensor, keep: Tensor) -> Tensor:
    """Returns a number that every real score changes, each in its own way."""
    rows = scores[keep] if scores.dim() == 3 else scores
    return (rows * torch.linspace(-1, 1, rows.numel()).view_as(rows).sin()).square().mean().sqrt()


@every_head
def test_a_written_folder_is_the_same_model_to_transformers(
    name: str, head: Head, folders: Folders, tmp_path: Path
) -> None:
    import transformers

    folder = folders(name, head)
    model, texts = opened(folder), some_texts(name, LENGTHS)
    architecture = FAMILIES[name].architecture(head)
    with open_checkpoint(folder) as checkpoint:
        family = find_family(checkpoint).family
    kind = getattr(transformers, architecture).config_class.model_type
    settings = {
        "architectures": [architecture],
        "model_type": kind,
        "pad_token_id": 0,
        **family.config.to_hub(model.config),
    }
    (tmp_path / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    save_file(
        dict(export_parameters(model, family.hub_names(model.config).rules, model.config.layers)),
        tmp_path / "model.safetensors",
    )
    again = opened(tmp_path)
    assert again.config == model.config
    tokens, segments, keep = padded(texts)
    assert torch.equal(again(tokens, keep, segments), model(tokens, keep, segments))
    with torch.no_grad():
        first, second = (
            their_scores(oracle(name, each, head), head, tokens, segments, keep)
            for each in (folder, tmp_path)
        )
    for scores, expected in zip(second.values(), first.values(), strict=True):
        rows = keep if scores.dim() == 3 else slice(None)
        torch.testing.assert_close(scores[rows], expected[rows], atol=1e-5, rtol=1e-5)
