"""Tests the filling of masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decodery import LLM, ModelError, ParameterError, RequestError
from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.tasks.fill_mask import best_tokens, fill_mask
from decodery.text.tokenizer.tokenizer import Tokenizer
from tests.encoding.folders import encoder_folder, write_json, write_tokenizer
from tests.encoding.tasks.fixed_model import fixed_parts

KINDS = {"word pieces": "[MASK]", "byte pairs": "<mask>", "unigrams": "<mask>"}


def likes(parts: EncoderParts, *tokens: str) -> None:
    """Lets the model's scores be those of these tokens, the first the best, at every place."""
    row = [0.0] * parts.tokenizer.vocab_size
    for rank, token in enumerate(tokens):
        found = parts.tokenizer.token_id(token)
        assert found is not None, token
        row[found] = 9.0 - rank
    runner: Any = parts.runner
    runner.scores = lambda token, place: row


@pytest.fixture(params=KINDS)
def parts(request: pytest.FixtureRequest, tmp_path: Path) -> EncoderParts:
    parts = fixed_parts(tmp_path, "masked_lm", lambda token, place: [], tokenizer=request.param)
    space = {"word pieces": "", "byte pairs": "Ġ", "unigrams": "▁"}[request.param]
    likes(parts, f"{space}love", f"{space}hate", ".")
    return parts


def mask_of(parts: EncoderParts) -> str:
    return parts.tokenizer.token_bytes(parts.tokenizer.named_ids["mask"]).decode()


def test_the_text_is_the_given_one_with_the_token_in_place_of_the_mask(parts: EncoderParts) -> None:
    mask = mask_of(parts)
    ((found,),) = fill_mask(parts, f"I  ÁM, {mask} You!", top_k=2)
    assert [one.text for one in found] == ["I  ÁM, love You!", "I  ÁM, hate You!"]
    assert [one.token for one in found] == ["love", "hate"]
    assert found[0].token_id == parts.tokenizer.encode(" love", add_special_tokens=False)[0]
    ((found,),) = fill_mask(parts, f"{mask} you", top_k=1)
    assert found[0].text == "love you"
    ((found,),) = fill_mask(parts, mask, top_k=1)
    assert found[0].text == "love"
    ((found,),) = fill_mask(parts, f"I love {mask}", top_k=3)
    assert found[2].text in ("I love .", "I love.")


def test_two_texts_or_targets_in_a_tuple_are_no_pair(parts: EncoderParts) -> None:
    mask = mask_of(parts)
    texts = [f"I {mask} you", f"they {mask} it"]
    assert fill_mask(parts, tuple(texts), top_k=2) == fill_mask(parts, texts, top_k=2)
    right = fill_mask(parts, texts, targets=["hate", "love"])
    given: Any
    for given in (("hate", "love"), iter(["hate", "love"]), {"hate", "love"}):
        assert fill_mask(parts, texts, targets=given) == right
    with pytest.raises(ParameterError, match="targets must be a list of texts, not int"):
        fill_mask(parts, texts, targets=3)  # type: ignore[arg-type]


def test_the_mask_takes_the_space_before_it(tmp_path: Path) -> None:
    for kind in ("byte pairs", "unigrams"):
        parts = fixed_parts(tmp_path / kind, "masked_lm", lambda token, place: [], tokenizer=kind)
        ids = [parts.tokenizer.encode(text) for text in ("I <mask> you", "I<mask> you", "I   <mask> you")]
        assert ids[0] == ids[1] == ids[2]
        likes(parts, "Ġlove" if kind == "byte pairs" else "▁love", "s")
        ((found,),) = fill_mask(parts, "I<mask> you", top_k=2)
        assert [one.text for one in found] == ["I love you", "Is you"]
        ((found,),) = fill_mask(parts, "I <mask> you", top_k=2)
        assert [one.text for one in found] == ["I love you", "Is you"]


def test_a_piece_that_continues_a_word_and_a_special_token_add_no_space(tmp_path: Path) -> None:
    parts = fixed_parts(tmp_path, "masked_lm", lambda token, place: [])
    likes(parts, "##ing", "[SEP]", "the")
    ((found,),) = fill_mask(parts, "play [MASK] (dogs)", top_k=3)
    assert [one.text for one in found] == ["playing (dogs)", "play  (dogs)", "play the (dogs)"]
    assert [one.token for one in found] == ["ing", "[SEP]", "the"]
    ((found,),) = fill_mask(parts, "([MASK])", top_k=3)
    assert found[2].text == "(the)"


def test_each_mask_is_ranked_alone_and_the_others_stay(parts: EncoderParts) -> None:
    mask = mask_of(parts)
    (found,) = fill_mask(parts, f"i {mask} the {mask}", top_k=2)
    assert [[one.text for one in masked] for masked in found] == [
        [f"i love the {mask}", f"i hate the {mask}"],
        [f"i {mask} the love", f"i {mask} the hate"],
    ]


def test_targets_are_words_of_one_token(parts: EncoderParts) -> None:
    mask = mask_of(parts)
    ((found,),) = fill_mask(parts, f"i {mask} you", targets=["hate", "the", "love", "dog", "cat", "bank"])
    assert [one.token for one in found][:2] == ["love", "hate"]
    assert len(found) == 6
    assert found[0].score == pytest.approx(
        np.exp(9) / (np.exp([9, 8, 7]).sum() + len_of(parts) - 3), rel=1e-6
    )
    ((found,),) = fill_mask(parts, f"i {mask} you", targets="hate")
    assert [one.text for one in found] == ["i hate you"]
    with pytest.raises(ParameterError, match=r"target 'zzqx' has \d tokens .*, and a mask is one"):
        fill_mask(parts, f"i {mask} you", targets=["love", "zzqx"])
    for wrong in ("", " ", 3):
        with pytest.raises(ParameterError, match="each target must be a word"):
            fill_mask(parts, f"i {mask} you", targets=[wrong])  # type: ignore[list-item]


def len_of(parts: EncoderParts) -> int:
    return parts.tokenizer.vocab_size


def test_a_target_that_the_vocabulary_lacks_is_an_error(tmp_path: Path) -> None:
    parts = fixed_parts(tmp_path, "masked_lm", lambda token, place: [])
    likes(parts, "the")
    with pytest.raises(ParameterError, match="target '北' is not in the vocabulary"):
        fill_mask(parts, "[MASK]", targets=["北"])
    ((found,),) = fill_mask(parts, "play [MASK]", targets=["##ing"])
    assert found[0].text == "playing"


def test_a_text_without_a_mask_and_a_vocabulary_without_one_are_errors(
    parts: EncoderParts, tmp_path: Path
) -> None:
    mask = mask_of(parts)
    with pytest.raises(
        RequestError, match=rf"text 1: the text has no mask: write {mask.replace('[', '.')[:5]}"
    ):
        fill_mask(parts, [f"the {mask}", "the dog"])
    with pytest.raises(ParameterError, match=r"must be one text .* not a pair of texts"):
        fill_mask(parts, [(f"the {mask}", "dog")])
    other = tmp_path / "none"
    tiny = write_tokenizer(other)
    roles = {f"{role}_token": text for role, text in tiny.roles.items() if role != "mask"}
    write_json(other / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **roles})
    bare = EncoderParts(parts.model, "", Tokenizer.from_folder(other), parts.runner, {}, other)
    with pytest.raises(ModelError, match="name no mask token"):
        fill_mask(bare, "the [MASK]")
    with pytest.raises(ModelError, match="has no head 'masked_lm'"):
        fill_mask(fixed_parts(tmp_path / "b", "classes", lambda token, place: []), "the [MASK]")
    with pytest.raises(ParameterError, match="top_k must be a whole number from 1 on"):
        fill_mask(parts, mask, top_k=0)


def test_equal_scores_are_in_the_order_of_ids_and_rows_without_tokens_are_left_out(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenizer = Tokenizer.from_folder(tmp_path)
    size = tokenizer.vocab_size
    tokenizer.cover(size + 300)
    logits = np.zeros(size + 300)
    logits[size:] = 9.0
    logits[7] = 1.0
    assert best_tokens(logits, 4, tokenizer) == [7, 0, 1, 2]
    assert best_tokens(logits, size + 5, tokenizer) == [7, *range(7), *range(8, size)]


@pytest.mark.parametrize(
    ("architecture", "tokenizer"),
    [
        ("BertForMaskedLM", "word pieces"),
        ("RobertaForMaskedLM", "byte pairs"),
        ("XLMRobertaForMaskedLM", "unigrams"),
    ],
)
def test_scores_are_those_of_transformers(tmp_path: Path, architecture: str, tokenizer: str) -> None:
    import transformers

    folder = encoder_folder(tmp_path, architecture, tokenizer=tokenizer)
    llm, mask = LLM(folder), KINDS[tokenizer]
    oracle = transformers.pipeline("fill-mask", str(folder))
    texts = [f"the {mask} sat on the mat", f"angela merkel visited {mask}"]
    for text, ((*fills,),) in zip(texts, llm.fill_mask(texts), strict=True):
        theirs = oracle(text)
        assert [one.token_id for one in fills] == [one["token"] for one in theirs]
        assert [one.score for one in fills] == pytest.approx([one["score"] for one in theirs], rel=1e-3)
    assert llm.fill_mask(texts) == [llm.fill_mask(text)[0] for text in texts]


def test_weights_that_are_not_numbers_are_an_error(tmp_path: Path) -> None:
    import transformers

    folder = encoder_folder(tmp_path, "BertForMaskedLM")
    model: Any = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.bias[3] = float("nan")
    model.save_pretrained(folder)
    with pytest.raises(ModelError, match="not finite"):
        LLM(folder).fill_mask("the [MASK]")


def test_a_target_is_one_token_in_the_place_of_its_mask(tmp_path: Path) -> None:
    for kind, space in (("byte pairs", "Ġ"), ("unigrams", "▁")):
        parts = fixed_parts(tmp_path / kind, "masked_lm", lambda token, place: [], tokenizer=kind)
        likes(parts, f"{space}dog", "e")
        # One token alone, but two behind a space.
        with pytest.raises(ParameterError, match=r"target 'e' has 2 tokens \(. e\), and"):
            fill_mask(parts, "the <mask> sat", targets=["dog", "e"])
        ((found,),) = fill_mask(parts, "th<mask> dog", targets=["e"])
        assert (found[0].token, found[0].text) == ("e", "the dog")
        ((found,),) = fill_mask(parts, "the <mask> sat", targets=["dog"])
        assert found[0].text == "the dog sat"
        with pytest.raises(ParameterError, match="target 'zzqx' has"):
            fill_mask(parts, [], targets=["zzqx"])
    # Unigrams have no word without its space.
    with pytest.raises(ParameterError, match="target 'dog' is not in the vocabulary, as a token without a"):
        fill_mask(parts, "the hot<mask>", targets=["dog"])
