from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from decodery.errors import CheckpointError
from decodery.text.tokenizer import split_patterns
from decodery.text.tokenizer.pretokenizers import SCHEMES, build_pre_tokenizer, scheme_named
from decodery.text.tokenizer.spelling import byte_level
from decodery.text.tokenizer.tokenizer import Tokenizer
from tests.text.vocabularies import METADATA, odd_strings, repaired

DATA = Path(__file__).parents[2] / "data"

TEXT = "I'LL pay 12345 €s!\n\n  it's café"


def cut(name: str, text: str) -> list[str]:
    pieces = build_pre_tokenizer(scheme_named(name)).pre_tokenize_str(text)
    return [byte_level(piece).decode() for piece, _ in pieces]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("default", "I|'|LL| pay| |123|45| €|s|!|\n\n | it|'|s| café"),
        ("gpt-2", "I|'|LL| pay| 12345| €|s|!|\n\n | it|'s| café"),
        ("smollm", "I|'|LL| pay| |1|2|3|4|5| €|s|!|\n\n | it|'s| café"),
        ("llama-bpe", "I|'LL| pay| |123|45| €|s|!\n\n| | it|'s| café"),
        ("qwen2", "I|'LL| pay| |1|2|3|4|5| €|s|!\n\n| | it|'s| café"),
        ("gpt-4o", "I'LL| pay| |123|45| €|s|!\n\n| | it's| café"),
        ("tekken", "I|'LL| pay| |1|2|3|4|5| €|s|!\n\n| | it|'s| café"),
        ("falcon", "I|'|LL| pay| |123|45| €|s|!|\n\n | it|'|s| café"),
        # These schemes treat the euro sign as East Asian, and the first separates ASCII from the rest.
        ("deepseek-llm", "I|'|LL| pay| |1|2|3|4|5| |€|s|!|\n|\n| | it|'|s| caf|é"),
        ("deepseek-coder", "I|'|LL| pay| |1|2|3|4|5| |€|s|!|\n|\n| | it|'|s| café"),
        ("deepseek-v3", "I|'LL| pay| |123|45| €|s|!\n\n| | it|'s| café"),
        ("spark2_5", "I|'LL| pay| |1|2|3|4|5| €|s|!|\n|\n| | it|'s| café"),
        ("afmoe", "I|'LL| pay| |12|345| €|s|!\n\n| | it|'s| café"),
        ("tiny_aya", "I'LL| pay| |12|345| €|s|!\n\n| | it's| café"),
        ("kimi-k2", "I'LL| pay| |123|45| €|s|!\n\n| | it's| café"),
        ("youtu", "I'LL| pay| |1|2|3|4|5| €|s|!\n\n| | it's| café"),
        ("minicpm5", "I|'LL| pay| |123|45| €|s|!\n\n| | it|'s| café"),
        ("jais-2", "I|'LL| pay| |123|45| €|s|!\n\n| | it|'s| café"),
        ("qwen35", "I|'LL| pay| |1|2|3|4|5| €|s|!\n\n| | it|'s| café"),
        ("ufakzeka", "I|'LL| pay| |1|2|3|4|5| €|s|!\n\n| | it|'s| café"),
        ("seed-coder", "I|'LL| pay| |1|2|3|4|5| €|s|!|\n\n| | it|'s| café"),
        ("bailingmoe", "I|'LL| pay| |1|2|3|4|5| €|s|!\n\n| | it|'s| café"),
        ("exaone-moe", "I|'LL| pay| |1|2|3|4|5| €|s|!\n|\n| | it|'s| café"),
        ("laguna", "I|'LL| pay| |1|2|3|4|5| €|s|!|\n\n| | it|'s| café"),
        ("bloom", "I'LL| pay| 12345| €s|!\n\n | it's| café"),
        ("viking", "I'LL| pay| |1|2|3|4|5| €s|!\n\n | it's| café"),
        ("superbpe", "I'LL pay |12|345| €s!\n\n  it's café"),
        ("chameleon", "I|'|LL| pay| |1|2|3|4|5| €|s|!|\n|\n|  |it|'|s| café"),
    ],
)
def test_text_is_cut_where_the_models_cut_it(name: str, expected: str) -> None:
    assert "|".join(cut(name, TEXT)) == expected


def test_capitals_within_a_word_begin_a_piece_in_case_aware_schemes() -> None:
    assert cut("gpt-4o", "camelCaseWord HTMLParser") == ["camel", "Case", "Word", " HTMLParser"]
    assert cut("llama-bpe", "camelCaseWord") == ["camelCaseWord"]


@pytest.mark.parametrize(
    ("name", "text", "pieces"),
    [
        ("kimi-k2", "你好abc世界", ["你好", "abc", "世界"]),
        ("deepseek-v3", "(foo) 日本abc", ["(foo", ")", " ", "日本", "abc"]),
        ("qwen35", "हिन्दी", ["हिन्दी"]),
        ("exaone-moe", "two words 3", ["two words", " ", "3"]),
        ("tiny_aya", "1234567 12x", ["1", "234", "567", " ", "12", "x"]),
        ("superbpe", "1234567x", ["1", "234", "567", "x"]),
        ("afmoe", "1234ภาษา", ["1", "234", "ภาษา"]),
        ("jais-2", "a" + " " * 7 + "b", ["a", " " * 4, "  ", " b"]),
        ("jais-2", "a" + " " * 70 + "b", ["a", " " * 64, " " * 4, " ", " b"]),
        ("youtu", "가나ㄱ，日本x", ["가나ㄱ", "，", "日本", "x"]),
        ("chameleon", "<sentinel:3>IMGIMGABZ", ["<", "sentinel", ":", "3", ">", "IMGIMGABZ"]),
        ("ufakzeka", "Ankara'da", ["Ankara", "'da"]),
        ("bailingmoe", "We'Ve 'll", ["We", "'Ve", " '", "ll"]),
        ("llama4", "don'T HTMLParser", ["don'T", " HTMLParser"]),
        ("gemma4", "a b\n\nc", ["a b", "\n\n", "c"]),
        ("whitespace", " a  b\n", ["a", "b"]),
    ],
)
def test_a_scheme_cuts_what_others_leave_whole(name: str, text: str, pieces: list[str]) -> None:
    found = [piece for piece, _ in build_pre_tokenizer(scheme_named(name)).pre_tokenize_str(text)]
    assert [byte_level(piece).decode() if SCHEMES[name].byte_level else piece for piece in found] == pieces


def test_the_schemes_are_those_that_llama_cpp_knows() -> None:
    assert len(SCHEMES) == 91
    assert {"llama-bpe", "gemma4", "minicpm5", "granite-embed-multi-311m", "glm5", "f2llmv2"} < set(SCHEMES)


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_no_scheme_loses_or_adds_a_byte(name: str) -> None:
    build = build_pre_tokenizer(scheme_named(name))
    for text in map(repaired, odd_strings(300)):
        pieces = [piece for piece, _ in build.pre_tokenize_str(text)]
        if SCHEMES[name].byte_level:
            assert b"".join(map(byte_level, pieces)).decode() == text
        elif name == "whitespace":
            assert pieces == text.split()
        else:
            assert "".join(pieces) == text


def test_a_prefix_space_is_added_where_it_is_asked_for() -> None:
    for name in ("gpt-2", "qwen2"):
        build = build_pre_tokenizer(scheme_named(name), add_prefix_space=True)
        assert build.pre_tokenize_str("hi")[0][0] == "Ġhi"


def test_an_unknown_scheme_is_an_error_that_names_the_nearest_or_else_all() -> None:
    with pytest.raises(CheckpointError, match=r"'llama-bp' .* known are llama-bpe, .* and \d\d others$"):
        scheme_named("llama-bp")
    with pytest.raises(CheckpointError, match=r"'@@' .*a\.x-4\.0.*smollm.*youtu$"):
        scheme_named("@@")


def test_the_listed_cased_letters_are_letters_with_case() -> None:
    members = re.sub(r"\\x\{(\w+)\}", lambda code: chr(int(code[1], 16)), split_patterns.CASED_LETTERS)
    listed = re.findall(f"[{members}]", "".join(map(chr, range(0x20000))))
    assert len(listed) > 1500
    assert {unicodedata.category(character) for character in listed} <= {"Lu", "Ll", "Lt", "Cn"}


VECTORS = json.loads((DATA / "pre-tokenizers.json").read_text(encoding="utf-8"))
# Characters where a scheme follows the model's own file, from which llama.cpp's form of it differs: combining
# marks, and the digits of another script.
OWN_FORM = {"qwen2": {"\u0301"}, "superbpe": {"\u0665"}, "kimi-k2": {"\u0301", "\u0939"}}


@pytest.mark.parametrize("name", [name for names in VECTORS["ids"] for name in names.split()])
def test_a_scheme_gives_the_ids_of_llama_cpp(name: str) -> None:
    """Compares with llama-cpp-python 0.3.36 on a vocabulary whose merges go across all kinds of cuts."""
    (expected,) = (ids for names, ids in VECTORS["ids"].items() if name in names.split())
    ours = Tokenizer.from_gguf(_metadata_of_vectors() | {f"{METADATA}pre": name})
    found = {text: ours.encode(text, add_special_tokens=False) for text in VECTORS["texts"][: len(expected)]}
    differing = {text for text, ids in zip(found, expected, strict=True) if found[text] != ids}
    assert differing == {text for text in found if OWN_FORM.get(name, set()) & set(text)}


@pytest.mark.parametrize(
    ("like", "names"),
    [
        ("llama3", "falcon3 pixtral midm-2.0 lfm2"),
        ("gpt-2", "trillion mellum exaone4 a.x-4.0 granite-docling"),
        ("smollm", "minerva-7b"),
        ("stablelm2", "megrez"),
        ("deepseek-v3", "hunyuan-dense"),
    ],
)
def test_names_of_one_scheme_also_share_merges_and_beginnings(like: str, names: str) -> None:
    assert {scheme_named(name) for name in names.split()} == {scheme_named(like)}
    assert (SCHEMES[like].ignore_merges, SCHEMES[like].add_bos) == (like == "llama3", like == "llama3")


def test_a_vocabulary_without_a_scheme_has_the_default_one() -> None:
    ours = Tokenizer.from_gguf(_metadata_of_vectors())
    expected = VECTORS["ids"]["default"]
    assert len(expected) == 200
    assert [ours.encode(text) for text in VECTORS["texts"]] == expected


def _metadata_of_vectors() -> dict[str, Any]:
    merges = VECTORS["merges"]
    tokens = [*VECTORS["alphabet"], *(merge.replace(" ", "", 1) for merge in merges)]
    return {f"{METADATA}model": "gpt2", f"{METADATA}tokens": tokens, f"{METADATA}merges": merges}
