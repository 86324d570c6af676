from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import tokenizers

from decodery.errors import CheckpointError
from decodery.text.tokenizer.pieces import merges_from_scores
from decodery.text.tokenizer.tokenizer import Tokenizer
from tests.text.vocabularies import (
    CORPUS,
    METADATA,
    byte_level_metadata,
    odd_strings,
    plain_text_metadata,
    repaired,
    sentence_piece_metadata,
)

SIZE = 698
"""The number of tokens of the trained byte-level vocabulary."""


def test_a_byte_level_vocabulary_encodes_and_decodes_like_its_tokenizer_json(
    byte_level: tokenizers.Tokenizer,
) -> None:
    ours = Tokenizer.from_gguf(byte_level_metadata(byte_level))
    for text in [*odd_strings(), *CORPUS]:
        ids = byte_level.encode(repaired(text)).ids
        assert ours.encode(text) == ids, ascii(text)
        assert ours.decode(ids, skip_special_tokens=False) == byte_level.decode(
            ids, skip_special_tokens=False
        )
        assert ours.decode(ids, skip_special_tokens=False) == repaired(text)
        assert ours.decode(ids) == byte_level.decode(ids)


def test_a_sentence_piece_vocabulary_encodes_and_decodes_like_its_tokenizer_json(
    sentence_piece: tokenizers.Tokenizer,
) -> None:
    ours = Tokenizer.from_gguf(sentence_piece_metadata(sentence_piece))
    for text in [*odd_strings(), *CORPUS]:
        ids = sentence_piece.encode(repaired(text)).ids
        assert ours.encode(text) == ids, ascii(text)
        assert ours.decode(ids).removeprefix(" ") == sentence_piece.decode(ids), ascii(text)


def test_a_sentence_piece_vocabulary_merges_the_best_scored_pair_first(
    sentence_piece: tokenizers.Tokenizer,
) -> None:
    metadata = sentence_piece_metadata(sentence_piece)
    ours = Tokenizer.from_gguf(metadata)
    for text in [*CORPUS, *(text for text in odd_strings(400) if "<" not in text)]:
        expected = _greedy(repaired(text), metadata)
        assert ours.encode(text, add_special_tokens=False) == expected, ascii(text)


def _greedy(text: str, metadata: dict[str, Any]) -> list[int]:
    """Encodes by SentencePiece's own algorithm: merges the neighbours whose token has the best score."""
    ids = {token: place for place, token in enumerate(metadata[f"{METADATA}tokens"])}
    scores = metadata[f"{METADATA}scores"]
    pieces = list(f"▁{text}".replace(" ", "▁")) if text else []
    while True:
        joined = [pieces[place] + pieces[place + 1] for place in range(len(pieces) - 1)]
        known = [place for place, token in enumerate(joined) if token in ids]
        if not known:
            break
        best = max(known, key=lambda place: (scores[ids[joined[place]]], -place))
        pieces[best : best + 2] = [joined[best]]
    found: list[int] = []
    for piece in pieces:
        found += [ids[piece]] if piece in ids else [ids[f"<0x{byte:02X}>"] for byte in piece.encode()]
    return found


def test_special_text_is_plain_text_when_it_is_not_parsed(byte_level: tokenizers.Tokenizer) -> None:
    ours = Tokenizer.from_gguf(byte_level_metadata(byte_level))
    text = "a<|im_end|>b<think>"
    assert 2 in ours.encode(text)
    literal = ours.encode(text, parse_special=False)
    assert not set(literal) & ours.special_ids
    assert ours.encode("<think>")[0] in literal  # User-defined tokens are not special.
    assert ours.decode(literal) == text


def test_the_roles_are_those_that_the_file_declares(byte_level: tokenizers.Tokenizer) -> None:
    metadata = byte_level_metadata(byte_level)
    ours = Tokenizer.from_gguf(
        metadata | {"tokenizer.chat_template": "{{ messages }}", "llama.vocab_size": 5000}
    )
    assert (ours.bos_token_id, ours.eos_token_ids, ours.pad_token_id) == (1, (2, 0), 0)
    assert (ours.bos_token, ours.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert ours.special_ids == {0, 1, 2}
    assert ours.chat_template == "{{ messages }}"
    assert ours.vocab_size == 5000
    assert ours.token_bytes(4999) == b""


@pytest.mark.parametrize("role", ["bos", "eos", "eot", "eom", "padding", "mask", "fim_pre", "unknown"])
@pytest.mark.parametrize("value", [2**32 - 1, SIZE, -1])
def test_an_id_beyond_the_vocabulary_counts_as_missing_and_is_told(
    byte_level: tokenizers.Tokenizer, role: str, value: int
) -> None:
    metadata = byte_level_metadata(byte_level)
    assert len(metadata[f"{METADATA}tokens"]) == SIZE
    key = f"{METADATA}{role}_token_id"
    ours = Tokenizer.from_gguf(metadata | {key: value})
    missing = Tokenizer.from_gguf({name: other for name, other in metadata.items() if name != key})
    assert ours.named_ids == missing.named_ids
    assert (ours.bos_token_id, ours.pad_token_id) == (missing.bos_token_id, missing.pad_token_id)
    assert ours.eos_token_ids == missing.eos_token_ids
    assert ours.warnings == (
        f"{key} is {value}, beyond the vocabulary of {SIZE} tokens: there is no such token",
    )
    assert missing.warnings == ()


@pytest.mark.parametrize("declared", [None, 2**32 - 1])
def test_a_sentence_piece_vocabulary_without_ids_has_those_of_its_library(
    sentence_piece: tokenizers.Tokenizer, declared: int | None
) -> None:
    metadata = sentence_piece_metadata(sentence_piece)
    for role in ("bos", "eos"):
        del metadata[f"{METADATA}{role}_token_id"]
        if declared is not None:
            metadata[f"{METADATA}{role}_token_id"] = declared
    ours = Tokenizer.from_gguf(metadata)
    assert (ours.bos_token_id, ours.eos_token_ids, ours.pad_token_id) == (1, (2,), None)
    assert (ours.bos_token, ours.eos_token) == ("<s>", "</s>")
    assert ours.encode("a")[0] == 1
    assert [told[-9:] for told in ours.warnings] == ([] if declared is None else ["1 is used", "2 is used"])


def test_a_unigram_vocabulary_without_ids_has_those_of_its_library() -> None:
    metadata = _tiny(["<pad>", "</s>", "<unk>", "▁a"], []) | {
        f"{METADATA}model": "t5",
        f"{METADATA}scores": [0.0, 0.0, 0.0, -1.0],
        f"{METADATA}token_type": [3, 3, 2, 1],
    }
    ours = Tokenizer.from_gguf(metadata)
    assert (ours.pad_token_id, ours.eos_token_ids) == (0, (1,))
    assert ours.encode(" a") == [3, 1]


def test_tokens_of_known_texts_are_ends_beside_the_declared_one(byte_level: tokenizers.Tokenizer) -> None:
    metadata = byte_level_metadata(byte_level) | {f"{METADATA}eos_token_id": 0}
    assert Tokenizer.from_gguf(metadata).eos_token_ids == (0, 2)
    declared = metadata | {f"{METADATA}eot_token_id": 1, f"{METADATA}eom_token_id": 2}
    assert Tokenizer.from_gguf(declared).eos_token_ids == (0, 1, 2)
    assert Tokenizer.from_gguf(declared).warnings == ()


def _ends(texts: Sequence[str], kinds: Sequence[int], **keys: Any) -> list[str]:
    """Returns the texts that end a text in a vocabulary of `texts`; its eos is the first of them."""
    metadata = _tiny([*texts], []) | {f"{METADATA}token_type": [*kinds], f"{METADATA}eos_token_id": 0}
    ours = Tokenizer.from_gguf(metadata | {f"{METADATA}{name}": value for name, value in keys.items()})
    return [texts[token] for token in ours.eos_token_ids]


@pytest.mark.parametrize(
    "texts",
    [
        ["<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|end|>"],
        ["<eos>", "<end_of_turn>", "<turn|>", "<|tool_response>", "<end_of_utterance>", "[e~["],
        ["</s>", "<EOT>", "_<EOT>", "▁<EOT>", "< EOT >", "[EOT]", "[EOS]", "<|END_OF_TURN_TOKEN|>"],
        ["<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "<｜end▁of▁sentence｜>"],
        ["<|fim_pad|>", "<|fim_repo|>", "<|repo_name|>", "<reponame>", "<|file_sep|>", "[PAD]"],
    ],
)
def test_control_tokens_of_known_texts_are_ends(texts: list[str]) -> None:
    assert set(_ends(["x", *texts, "<|im_start|>"], [1] + [3] * (len(texts) + 1))) == {"x", *texts}


def test_an_end_of_a_message_does_not_end_a_turn_that_has_several() -> None:
    for others in (["<|return|>", "<|call|>"], ["<|call|>", "<|flush|>"], ["<|calls|>", "<|flush|>"]):
        assert _ends([*others, "<|end|>"], [3, 3, 3]) == others
    assert _ends(["<|flush|>", "<|end|>"], [3, 3]) == ["<|flush|>", "<|end|>"]


def test_a_tag_of_html_is_no_end_unless_it_is_a_control_token() -> None:
    assert _ends(["<eos>", "</s>"], [3, 4]) == ["<eos>"]
    assert _ends(["<eos>", "</s>"], [3, 1]) == ["<eos>"]
    assert _ends(["<eos>", "</s>"], [3, 3]) == ["<eos>", "</s>"]


def test_the_declared_tokens_between_files_are_ends() -> None:
    texts = ["x", "[file]", "<|file_sep|>"]
    assert _ends(texts, [1, 3, 3], fim_sep_token_id=1) == ["x", "[file]"]
    assert _ends(texts, [1, 3, 3]) == ["x", "<|file_sep|>"]


@pytest.mark.parametrize("kind", [1, 4])
def test_an_end_that_is_not_marked_as_control_is_read_as_one_and_told(kind: int) -> None:
    metadata = _tiny(["a", "<|im_end|>"], []) | {f"{METADATA}token_type": [1, kind]}
    ours = Tokenizer.from_gguf(metadata)
    assert ours.eos_token_ids == (1,)
    assert ours.special_ids == {1}
    assert ours.encode("a<|im_end|>a") == [0, 1, 0]
    assert ours.decode([0, 1]) == "a"
    (told,) = ours.warnings
    assert "'<|im_end|>' ends a text" in told
    assert "\n" not in told


def test_a_normal_token_that_merges_form_is_text() -> None:
    tokens = ["<", "E", "O", "T", ">", "<E", "OT", "OT>", "<EOT>"]
    metadata = _tiny(tokens, ["< E", "O T", "OT >", "<E OT>"])
    ours = Tokenizer.from_gguf(metadata | {f"{METADATA}pre": "superbpe"})
    assert ours.eos_token_ids == ()
    assert ours.encode("<EOT>") == [8]
    assert ours.warnings == ()


def test_beginnings_and_ends_are_added_as_the_file_says(
    byte_level: tokenizers.Tokenizer, sentence_piece: tokenizers.Tokenizer
) -> None:
    metadata = byte_level_metadata(byte_level)
    both = Tokenizer.from_gguf(
        metadata | {f"{METADATA}add_bos_token": True, f"{METADATA}add_eos_token": True}
    )
    bare = both.encode("Paris", add_special_tokens=False)
    assert both.encode("Paris") == [1, *bare, 2]
    assert both.encode("") == [1, 2]
    spm = sentence_piece_metadata(sentence_piece)
    assert Tokenizer.from_gguf(spm).encode("a")[0] == 1
    assert Tokenizer.from_gguf(spm | {f"{METADATA}add_bos_token": False}).encode("a")[0] != 1
    undeclared = {key: value for key, value in metadata.items() if key != f"{METADATA}add_bos_token"}
    assert Tokenizer.from_gguf(undeclared).encode("a")[0] != 1
    assert Tokenizer.from_gguf(undeclared | {f"{METADATA}pre": "llama-bpe"}).encode("a")[0] == 1


@pytest.mark.parametrize("scheme", ["default", "gpt-2", "smollm", "qwen2", "llama-bpe"])
def test_a_space_prefix_is_that_of_a_whole_text(byte_level: tokenizers.Tokenizer, scheme: str) -> None:
    metadata = byte_level_metadata(byte_level) | {f"{METADATA}pre": scheme}
    prefixed = Tokenizer.from_gguf(metadata | {f"{METADATA}add_space_prefix": True})
    plain = Tokenizer.from_gguf(metadata)
    for text in ("hi there! 12", "\nhi", "12", "!"):
        assert prefixed.encode(text) == plain.encode(f" {text}")
    for text in ("", " hi there! 12", "  hi", " "):
        assert prefixed.encode(text) == plain.encode(text)


def test_without_a_space_prefix_a_text_begins_as_it_is(sentence_piece: tokenizers.Tokenizer) -> None:
    metadata = sentence_piece_metadata(sentence_piece) | {f"{METADATA}add_space_prefix": False}
    ours = Tokenizer.from_gguf(metadata)
    assert ours.decode(ours.encode("the end")) == "the end"


def test_a_piece_that_is_a_token_ignores_merges_only_where_the_scheme_says_so() -> None:
    metadata = _tiny(["a", "b", "c", "ab", "abc"], ["a b"])
    assert Tokenizer.from_gguf(metadata | {f"{METADATA}pre": "llama-bpe"}).encode("abc") == [4]
    assert Tokenizer.from_gguf(metadata | {f"{METADATA}pre": "gpt-2"}).encode("abc") == [3, 2]


def test_composing_schemes_join_combining_marks() -> None:
    metadata = _tiny(["Ã", "©", "e", "Ì", "ģ", "Ã©"], ["Ã ©"])
    assert Tokenizer.from_gguf(metadata | {f"{METADATA}pre": "qwen2"}).encode("e\u0301") == [5]
    assert Tokenizer.from_gguf(metadata | {f"{METADATA}pre": "gpt-2"}).encode("e\u0301") == [2, 3, 4]


def test_unused_and_repeated_tokens_leave_holes() -> None:
    metadata = _tiny(["a", "", "", "b", "[PAD4]"], [])
    metadata[f"{METADATA}token_type"] = [1, 1, 1, 1, 5]
    ours = Tokenizer.from_gguf(metadata)
    assert [ours.token_bytes(token) for token in range(5)] == [b"a", b"", b"", b"b", b""]
    assert ours.encode("ab") == [0, 3]


def test_scores_give_merges_best_first_and_longer_left_halves_first() -> None:
    tokens = ["<s>", "a", "aa", "aaa", "b", "ab"]
    merges = merges_from_scores(tokens, [0, -9, -2, -1, -9, -3], [3, 1, 1, 1, 1, 1])
    assert merges == [("aa", "a"), ("a", "aa"), ("a", "a"), ("a", "b")]


def _tiny(tokens: list[str], merges: list[str]) -> dict[str, Any]:
    return {f"{METADATA}model": "gpt2", f"{METADATA}tokens": tokens, f"{METADATA}merges": merges}


def test_plain_text_merges_without_an_alphabet_of_bytes() -> None:
    metadata = plain_text_metadata()
    tokens = metadata[f"{METADATA}tokens"]
    ours = Tokenizer.from_gguf(metadata)
    assert [tokens[token] for token in ours.encode("the the\n\n\n")] == ["<bos>", "the", "▁the", "\n\n", "\n"]
    assert [tokens[token] for token in ours.encode("é<turn|>")] == ["<bos>", "<0xC3>", "<0xA9>", "<turn|>"]
    assert ours.eos_token_ids == (1, len(tokens) - 1)
    for text in map(repaired, odd_strings(300)):
        if "▁" not in text:
            assert ours.decode(ours.encode(text, parse_special=False)) == text


def test_gemma_4_begins_with_a_token_whatever_its_file_says() -> None:
    assert Tokenizer.from_gguf(plain_text_metadata(add_bos_token=False)).encode("the")[0] == 2
    sarvam = plain_text_metadata(model="gpt2", pre="sarvam-moe")
    assert Tokenizer.from_gguf(sarvam).encode("the")[0] != 2
    assert (
        Tokenizer.from_gguf(sarvam).encode("the the")[-2:]
        == Tokenizer.from_gguf(plain_text_metadata()).encode("the the")[-2:]
    )


def test_words_without_their_spaces_are_cut_by_the_scheme_for_whitespace() -> None:
    metadata = plain_text_metadata(model="gpt2", pre="whitespace")
    tokens = metadata[f"{METADATA}tokens"]
    assert [tokens[token] for token in Tokenizer.from_gguf(metadata).encode(" the \n he")] == ["the", "he"]


def test_phi_3s_special_tokens_remove_the_whitespace_behind_them(
    sentence_piece: tokenizers.Tokenizer,
) -> None:
    metadata = sentence_piece_metadata(sentence_piece)
    tokens = [*metadata[f"{METADATA}tokens"], "<|user|>", "<|endoftext|>"]
    metadata |= {
        f"{METADATA}tokens": tokens,
        f"{METADATA}token_type": [*metadata[f"{METADATA}token_type"], 3, 3],
        f"{METADATA}scores": [*metadata[f"{METADATA}scores"], 0.0, 0.0],
    }
    phi = Tokenizer.from_gguf({**metadata, "general.architecture": "phi3"})
    llama = Tokenizer.from_gguf(metadata)
    for name, removed in (("<|user|>", True), ("</s>", True), ("<|endoftext|>", False), ("<s>", False)):
        assert (phi.encode(f"{name} \n the") == llama.encode(f"{name}the")) == removed
        assert phi.encode(f"the {name}") == llama.encode(f"the {name}")


def test_every_declared_id_is_readable_by_its_name(byte_level: tokenizers.Tokenizer) -> None:
    metadata = byte_level_metadata(byte_level) | {
        f"{METADATA}fim_pre_token_id": 1,
        f"{METADATA}mask_token_id": 0,
    }
    ours = Tokenizer.from_gguf(metadata)
    assert ours.named_ids == {"bos": 1, "eos": 2, "padding": 0, "fim_pre": 1, "mask": 0}
    assert (ours.token_id("<|im_end|>"), ours.token_id("<none>")) == (2, None)


def test_an_encoders_tokens_stand_around_a_text_whatever_its_file_says() -> None:
    tokens = ["[UNK]", "[CLS]", "[SEP]", "▁a", "b"]
    keys = {"model": "bert", "tokens": tokens, "token_type": [2, 3, 3, 1, 1], "unknown_token_id": 0}
    roles = {"cls_token_id": 1, "seperator_token_id": 2, "add_bos_token": False}
    tokenizer = Tokenizer.from_gguf({f"{METADATA}{name}": value for name, value in {**keys, **roles}.items()})
    assert tokenizer.encode("ab") == [1, 3, 4, 2]
    assert tokenizer.encode("ab", add_special_tokens=False) == [3, 4]
    roles = {"bos_token_id": 2, "seperator_token_id": 1}
    tokenizer = Tokenizer.from_gguf({f"{METADATA}{name}": value for name, value in {**keys, **roles}.items()})
    assert tokenizer.encode("ab") == [2, 3, 4, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "rwkv"}, "'rwkv'.*llama, gpt2, bert, t5, gemma4"),
        ({"model": None}, "None"),
        ({"pre": "qwen3"}, "'qwen3'.*qwen35, qwen2"),
        ({"tokens": []}, "no vocabulary"),
        ({"tokens": [1, 2]}, "tokens is not an array of the right type"),
        ({"merges": None}, "merges"),
        ({"merges": ["ab"]}, "'ab'.*not a pair"),
        ({"merges": ["a z"]}, "'a' \\+ 'z'"),
        ({"merges": ["b a"]}, "'b' \\+ 'a'"),
        ({"token_type": [1]}, "token_type has 1 entries for 3 tokens"),
        ({"bos_token_id": "x"}, "bos_token_id is 'x'"),
        ({"model": "llama"}, "scores has 0 entries for 3 tokens"),
        ({"model": "t5"}, "scores has 0 entries for 3 tokens"),
        (
            {"model": "t5", "scores": [0, 0, 0], "precompiled_charsmap": [1, 0, 0, 0]},
            "character map is damaged",
        ),
        ({"model": "bert"}, "no unknown token"),
        ({"model": "gemma4", "merges": None}, "merges"),
        ({"model": "gemma4", "merges": ["a z"]}, "'a' \\+ 'z'"),
        ({"tokens": ["a", "b", "a"], "merges": []}, "'a' twice, with the ids 0 and 2"),
    ],
)
def test_a_vocabulary_that_does_not_hold_together_is_one_clear_error(
    change: dict[str, Any], words: str
) -> None:
    metadata = _tiny(["a", "b", "ab"], ["a b"])
    metadata.update({f"{METADATA}{name}": value for name, value in change.items()})
    with pytest.raises(CheckpointError, match=words) as caught:
        Tokenizer.from_gguf(metadata)
    assert "\n" not in str(caught.value)


def test_a_byte_level_vocabulary_without_merges_is_an_error() -> None:
    with pytest.raises(CheckpointError, match=r"merges is missing"):
        Tokenizer.from_gguf({f"{METADATA}model": "gpt2", f"{METADATA}tokens": ["a"]})


def test_chat_templates_are_read_by_their_names(byte_level: tokenizers.Tokenizer) -> None:
    templates = {"": "default", ".tool_use": "tools", ".a.b": "dotted", ".odd": 3}
    metadata = byte_level_metadata(byte_level) | {"tokenizer.chat_templates": ["tool_use"]}
    metadata |= {f"tokenizer.chat_template{name}": text for name, text in templates.items()}
    found = {"default": "default", "tool_use": "tools", "a.b": "dotted"}
    assert Tokenizer.from_gguf(metadata).chat_templates == found
    del metadata["tokenizer.chat_template"]
    tokenizer = Tokenizer.from_gguf(metadata)
    assert (sorted(tokenizer.chat_templates), tokenizer.chat_template) == (["a.b", "tool_use"], None)
