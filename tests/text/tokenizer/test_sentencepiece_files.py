from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from decodery.errors import CheckpointError
from decodery.text.tokenizer.character_rules import CharacterRules
from decodery.text.tokenizer.pieces import Pieces
from decodery.text.tokenizer.score_merges import order_is_by_place
from decodery.text.tokenizer.sentencepiece_files import BPE, CHARACTERS
from decodery.text.tokenizer.sentencepiece_files import WORDS as BY_WORDS
from decodery.text.tokenizer.spelling import NORMAL, UNUSED
from decodery.text.tokenizer.tokenizer import Tokenizer
from tests.text.direct import likeliest, merged_by_score
from tests.text.sentencepiece_models import (
    BYTES,
    MARK,
    MERGED,
    SPECIAL,
    TIED,
    WORDS,
    Piece,
    character_map,
    model_bytes,
)
from tests.text.vocabularies import (
    METADATA,
    odd_strings,
    sentence_piece_metadata,
    write_folder,
)

TEXTS = st.text(st.sampled_from("the abcXé日本ß<s>/0xA"), max_size=12)
RULES = {"ﬁ": "fi", "é": "e", "éa": "E", "\t": " ", "\u200b": "", "Ａ": "A", "日本": "J", "日": "j"}


def write(folder: Path, data: bytes, *, name: str = "tokenizer.model", **files: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    for file, content in files.items():
        (folder / f"{file}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def opened(folder: Path, data: bytes, **files: Any) -> Tokenizer:
    return Tokenizer.from_folder(write(folder, data, **files))


def of(pieces: list[Piece], **more: Any) -> Pieces:
    texts, scores, kinds = zip(*pieces, strict=True)
    return Pieces(texts=texts, scores=scores, kinds=kinds, unknown=0, **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize("algorithm", [1, BPE], ids=["unigram", "bpe"])
@pytest.mark.parametrize("more", [[], BYTES], ids=["unknown", "bytes"])
@pytest.mark.parametrize("words", [WORDS, MERGED, TIED], ids=["words", "merged", "tied"])
def test_a_text_is_cut_by_the_definition_of_the_algorithm(
    algorithm: int, more: list[Piece], words: list[Piece], folder: Path
) -> None:
    pieces = [*SPECIAL, *more, *words]
    tokenizer = opened(folder / f"{algorithm}{len(pieces)}", model_bytes(pieces, algorithm=algorithm))
    direct = likeliest if algorithm == 1 else merged_by_score

    @given(TEXTS)
    def check(text: str) -> None:
        expected = direct(f" {text}".replace(" ", "▁") if text else "", of(pieces))
        assert tokenizer.encode(text, add_special_tokens=False, parse_special=False) == expected

    check()


@pytest.mark.parametrize(("words", "by_place"), [(WORDS, True), (MERGED, False), (TIED, True)])
def test_merges_are_ours_only_where_ranks_of_pairs_cannot_order_them(
    words: list[Piece], by_place: bool
) -> None:
    pieces = of([*SPECIAL, *words])
    assert order_is_by_place(pieces.texts, pieces.scores, pieces.kinds) == by_place


@given(TEXTS)
def test_a_gguf_file_with_equal_scores_merges_the_leftmost_first(text: str) -> None:
    pieces = [*SPECIAL, *BYTES, *TIED]
    columns = map(list, zip(*pieces, strict=True))
    keys: dict[str, Any] = dict(zip(("tokens", "scores", "token_type"), columns, strict=True))
    tokenizer = Tokenizer.from_gguf(
        {f"{METADATA}{name}": value for name, value in {**keys, "model": "llama"}.items()}
    )
    expected = merged_by_score(f" {text}" if text else "", of(pieces))
    assert tokenizer.encode(text, add_special_tokens=False, parse_special=False) == expected


def test_a_file_and_the_gguf_made_of_it_agree(tmp_path: Path, sentence_piece: tokenizers.Tokenizer) -> None:
    metadata = sentence_piece_metadata(sentence_piece)
    columns = (metadata[f"{METADATA}{name}"] for name in ("tokens", "scores", "token_type"))
    pieces = list(zip(*columns, strict=True))
    ours = opened(tmp_path, model_bytes(pieces, algorithm=BPE))
    gguf = Tokenizer.from_gguf(metadata)
    assert (ours.bos_token_id, ours.eos_token_ids, ours.special_ids) == (1, (2,), {0, 1, 2})
    for text in odd_strings(300):
        assert ours.encode(text) == gguf.encode(text)
        literal = ours.encode(text, parse_special=False)
        assert literal == gguf.encode(text, parse_special=False)
        assert ours.decode(literal) == gguf.decode(literal)
    for token in range(ours.vocab_size):
        assert ours.token_bytes(token) == gguf.token_bytes(token)


def test_a_unigram_file_and_the_gguf_made_of_it_agree(tmp_path: Path) -> None:
    pieces = [*SPECIAL, *WORDS, MARK]
    ours = opened(tmp_path, model_bytes(pieces, rules=character_map(RULES), merge_spaces=True))
    gguf = Tokenizer.from_gguf(_t5(pieces, precompiled_charsmap=list(character_map(RULES))))
    assert (ours.eos_token_ids, gguf.eos_token_ids) == ((2,), (2,))
    for text in odd_strings(300):
        assert ours.encode(text) == gguf.encode(text)
        assert ours.encode(text, parse_special=False) == gguf.encode(text, parse_special=False)


def _t5(pieces: list[Piece], **more: Any) -> dict[str, Any]:
    texts, scores, kinds = map(list, zip(*pieces, strict=True))
    keys = {
        **{"model": "t5", "tokens": texts, "scores": scores, "token_type": kinds, "eos_token_id": 2},
        **{"unknown_token_id": 0, "remove_extra_whitespaces": True, "add_space_prefix": True},
    }
    return {f"{METADATA}{name}": value for name, value in {**keys, **more}.items()}


@pytest.mark.parametrize(
    ("options", "text", "tokens"),
    [
        ({}, " the  a", ["▁", "▁the", "▁", "▁a"]),
        ({"merge_spaces": True}, "  the  a  ", ["▁the", "▁a"]),
        ({"merge_spaces": True}, "   ", []),
        ({"space_prefix": False}, "the a", ["the", "▁a"]),
        ({"space_prefix": False, "space_behind": True}, "abc", ["abc"]),
        ({"space_behind": True}, "the", ["the", "▁"]),
        ({}, "", []),
    ],
)
def test_spaces_are_changed_as_the_file_says(
    options: Mapping[str, Any], text: str, tokens: list[str], tmp_path: Path
) -> None:
    pieces = [*SPECIAL, *WORDS]
    tokenizer = opened(
        tmp_path, model_bytes(pieces, algorithm=BPE if "merge_spaces" not in options else 1, **options)
    )
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert [pieces[token][0] for token in ids] == tokens


@pytest.mark.parametrize(
    ("config", "text", "tokens"),
    [
        ({}, "<s>the</s>the", ["<s>", "▁the", "</s>", "▁the"]),
        ({"legacy": True}, "<s>the", ["<s>", "▁the"]),
        ({"legacy": False}, "the<s>the the", ["▁the", "<s>", "the", "▁the"]),
        ({"legacy": False}, "<s>the", ["<s>", "the"]),
        ({"add_prefix_space": False}, "the<s>the", ["the", "<s>", "the"]),
        # A symbol of the user is a part of the text: no space stands behind it.
        ({}, "the<mark>the", ["▁the", "<mark>", "the"]),
    ],
)
def test_a_space_stands_in_front_of_a_text_as_the_folder_says(
    config: dict[str, Any], text: str, tokens: list[str], tmp_path: Path
) -> None:
    pieces = [*SPECIAL, *WORDS, MARK]
    tokenizer = opened(tmp_path, model_bytes(pieces, algorithm=BPE), tokenizer_config=config)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert [pieces[token][0] for token in ids] == tokens


def test_special_tokens_and_bytes_are_plain_text_where_they_are_not_parsed(tmp_path: Path) -> None:
    pieces = [*SPECIAL, *BYTES, *WORDS]
    tokenizer = opened(tmp_path, model_bytes(pieces))
    ids = tokenizer.encode("</s><0x0A>", add_special_tokens=False, parse_special=False)
    assert not set(ids) & tokenizer.special_ids
    assert [pieces[token][0] for token in ids] == ["▁", "</", "s>", "<", "0x", "0", "A", ">"]
    assert tokenizer.encode("</s>", add_special_tokens=False) == [2]


def test_spaces_that_the_user_defined_are_found_in_a_text(tmp_path: Path) -> None:
    pieces = [*SPECIAL, *BYTES, *WORDS[:2], ("▁▁▁", 0.0, MARK[2]), ("\n\n", 0.0, MARK[2])]
    declared = {str(len(pieces) - 2): {"content": "▁▁▁", "special": False}}
    tokenizer = opened(
        tmp_path,
        model_bytes(pieces, algorithm=BPE, space_prefix=False),
        tokenizer_config={"added_tokens_decoder": declared},
    )
    ids = tokenizer.encode("the   \n\n", add_special_tokens=False)
    assert ids[-2:] == [len(pieces) - 2, len(pieces) - 1]
    assert tokenizer.decode(ids) == "the   \n\n"


def test_unused_pieces_are_in_no_text(tmp_path: Path) -> None:
    pieces = [*SPECIAL, *WORDS, ("theb", 0.0, UNUSED)]
    for algorithm in (1, BPE):
        tokenizer = opened(tmp_path, model_bytes(pieces, algorithm=algorithm))
        assert len(pieces) - 1 not in tokenizer.encode("theb")


def test_characters_and_words_are_whole_tokens(tmp_path: Path) -> None:
    letters: list[Piece] = [(text, 0.0, NORMAL) for text in "▁the"]
    tokenizer = opened(tmp_path / "c", model_bytes([*SPECIAL, *letters], algorithm=CHARACTERS))
    assert tokenizer.encode("the tXX", add_special_tokens=False) == [3, 4, 5, 6, 3, 4, 0]
    words: list[Piece] = [("▁the", 0.0, NORMAL), ("▁end", 0.0, NORMAL)]
    tokenizer = opened(tmp_path / "w", model_bytes([*SPECIAL, *words], algorithm=BY_WORDS))
    assert tokenizer.encode("the end", add_special_tokens=False) == [3, 4]
    assert tokenizer.encode("the ending end", add_special_tokens=False) == [3, 0, 4]
    assert tokenizer.decode([3, 4]) == " the end"


def test_the_tokens_around_a_prompt_follow_the_algorithm_unless_the_folder_says_otherwise(
    tmp_path: Path,
) -> None:
    pieces = [*SPECIAL, *WORDS]
    bpe, unigram = model_bytes(pieces, algorithm=BPE), model_bytes(pieces)
    assert [*opened(tmp_path, bpe).encode("a")[:1], *opened(tmp_path, bpe).encode("a")[-1:]] == [1, 18]
    assert opened(tmp_path, unigram).encode("a")[-1] == 2
    config = {"add_bos_token": False, "add_eos_token": True}
    ids = opened(tmp_path, bpe, tokenizer_config=config).encode("a")
    assert (ids[0] == 1, ids[-1] == 2) == (False, True)


@pytest.mark.parametrize("name", ["tokenizer.model", "spiece.model", "sentencepiece.bpe.model"])
def test_the_file_may_have_any_of_its_names(name: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(write(tmp_path, model_bytes([*SPECIAL, *WORDS]), name=name))
    assert tokenizer.vocab_size == len(SPECIAL) + len(WORDS)


def test_a_tokenizer_json_is_read_in_place_of_the_file(
    tmp_path: Path, byte_level: tokenizers.Tokenizer
) -> None:
    write(tmp_path, model_bytes([*SPECIAL, *WORDS]))
    assert Tokenizer.from_folder(write_folder(tmp_path, byte_level)).vocab_size == byte_level.get_vocab_size()


def test_added_tokens_and_extra_ids_follow_the_pieces(tmp_path: Path) -> None:
    pieces = [*SPECIAL, *WORDS]
    size = len(pieces)
    tokenizer = opened(
        tmp_path,
        model_bytes(pieces),
        tokenizer_config={"extra_ids": 3, "additional_special_tokens": ["<call>"]},
        added_tokens={"<call>": size + 3, "<word>": size + 4},
    )
    ids = tokenizer.encode("<extra_id_0><extra_id_2><call><word>", add_special_tokens=False)
    assert ids == [size + 2, size, size + 3, size + 4]
    assert tokenizer.special_ids == {0, 1, 2, size, size + 1, size + 2, size + 3}
    with pytest.raises(CheckpointError, match=rf"added_tokens\.json gives '<call>' the id 9, .* {size}$"):
        opened(tmp_path / "x", model_bytes(pieces), added_tokens={"<call>": 9})


@given(st.text(st.sampled_from("abﬁéa\t\u200bＡ日本x"), max_size=12))
def test_character_rules_replace_the_longest_beginning(text: str) -> None:
    expected, rest = "", text
    while rest:
        found = max((rule for rule in RULES if rest.startswith(rule)), key=len, default="")
        expected += RULES[found] if found else rest[0]
        rest = rest[len(found) or 1 :]
    assert CharacterRules(character_map(RULES))(text) == expected


@pytest.mark.parametrize(
    "data", [b"", b"\0\0\0\0", b"\x05\0\0\0abcdefgh", b"\x08\0\0\0abcd", b"\xff\xff\xff\xff"]
)
def test_a_character_map_without_a_valid_size_is_one_error(data: bytes) -> None:
    with pytest.raises(CheckpointError, match="character map is damaged"):
        CharacterRules(data)


def test_a_damaged_character_map_is_one_error_at_any_place() -> None:
    whole = character_map(RULES)
    source = random.Random(3)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(3):
            data[source.randrange(4, len(data))] = source.randrange(256)
        error = _error(lambda data: CharacterRules(bytes(data))("".join(RULES) + "abc"), data)
        assert error is None or "character map is damaged" in error


def test_a_damaged_file_is_one_error_that_names_it(tmp_path: Path) -> None:
    whole = model_bytes([*SPECIAL, *BYTES[:4], *WORDS], rules=character_map(RULES))
    source = random.Random(5)
    damaged = [whole[:cut] for cut in range(1, len(whole), 37)]
    for _ in range(200):
        data = bytearray(whole)
        data[source.randrange(len(data))] = source.randrange(256)
        damaged.append(bytes(data))
    errors = [
        _error(lambda data: opened(tmp_path, data).encode("the ﬁ é <0x00> \t"), data) for data in damaged
    ]
    found = [error for error in errors if error is not None]
    assert len(found) > 50
    assert all("tokenizer.model" in error and "\n" not in error for error in found)


def _error(call: Callable[[Any], object], data: Any) -> str | None:
    try:
        call(data)
    except CheckpointError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (model_bytes([*SPECIAL, ("a", 0, NORMAL), ("a", 0, NORMAL)]), "'a' has the ids 3 and 4"),
        (model_bytes([*SPECIAL, ("a", 0, 9)]), "'a' is of the unknown kind 9"),
        (model_bytes([*SPECIAL], begin=7), "id 7, and there are 3 pieces"),
        (model_bytes([*SPECIAL], algorithm=8), "algorithm has the unknown number 8"),
        (model_bytes([]), "no pieces"),
        (model_bytes([*SPECIAL], unknown=-1), "no unknown token"),
        (b"\x0a\x05ab", "ends within a field"),
        (b"\x0a\x02\x0a\xff", "ends within a number"),
        (b"\x0f", "wire type 7"),
        (b"", "no pieces"),
    ],
)
def test_a_model_that_does_not_hold_together_is_one_error(data: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"tokenizer\.model is no intact .*{words}"):
        opened(tmp_path, data)


def test_tokenizers_that_number_the_tokens_anew_are_refused(tmp_path: Path) -> None:
    (tmp_path / "marian").mkdir()
    (tmp_path / "marian" / "vocab.json").write_text('{"a": 0}', encoding="utf-8")
    marian = {"tokenizer_class": "MarianTokenizer"}
    (tmp_path / "marian" / "tokenizer_config.json").write_text(json.dumps(marian), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"vocab\.json: a MarianTokenizer gives"):
        Tokenizer.from_folder(tmp_path / "marian")
    config = {"tokenizer_class": "XLMRobertaTokenizerFast"}
    with pytest.raises(
        CheckpointError, match=r"tokenizer\.model: a XLMRobertaTokenizerFast gives .* other ids"
    ):
        opened(tmp_path, model_bytes([*SPECIAL, *WORDS]), tokenizer_config=config)
