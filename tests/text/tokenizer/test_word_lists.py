from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from decodery.errors import CheckpointError, RequestError
from decodery.text.tokenizer.tokenizer import Tokenizer
from tests.text.vocabularies import CORPUS, odd_strings, repaired, write_folder

PIECES = [
    *(
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "play",
        "##ing",
        "##ed",
        "the",
        "a",
        "b",
        "c",
        "##a",
        "##b",
    ),
    *("naive", "cafe", "Paris", "paris", "!", ",", ".", "<", ">", "日", "本", "##er", "fair", "un", "##fair"),
]
GPT1 = [
    "<unk>",
    *"abcdeh",
    *(f"{letter}</w>" for letter in "abcdeh.,日"),
    "th",
    "the</w>",
    "t",
    "ab</w>",
    "e</w>x",
]
GPT1_MERGES = ["t h", "th e</w>", "a b</w>"]


def write(folder: Path, **files: Any) -> Path:
    """Writes files, of which the double underscore in a name stands for the dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return folder


def bpe_files(reference: tokenizers.Tokenizer) -> dict[str, Any]:
    """Returns the vocab.json and the merges.txt of a tokenizer."""
    model = json.loads(reference.to_str())["model"]
    lines = ["#version: 0.2", *(" ".join(merge) for merge in model["merges"]), ""]
    return {"vocab__json": model["vocab"], "merges__txt": "\n".join(lines)}


def oracle(name: str, folder: Path, **options: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    return getattr(transformers, name).from_pretrained(str(folder), **options)


@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "Qwen2Tokenizer", "CohereTokenizer", "GPTNeoXTokenizer"])
def test_byte_level_merges_are_those_of_transformers(
    kind: str, tmp_path: Path, byte_level: tokenizers.Tokenizer
) -> None:
    folder = write(tmp_path, **bpe_files(byte_level), tokenizer_config__json={"tokenizer_class": kind})
    ours = Tokenizer.from_folder(folder)
    theirs = oracle(kind, folder)
    for text in [*odd_strings(300), *CORPUS[:8]]:
        if "<" not in text:
            ids = ours.encode(text, add_special_tokens=False)
            assert ids == theirs.encode(repaired(text), add_special_tokens=False), ascii(text)


def test_a_model_type_names_the_way_to_cut_where_the_class_does_not(
    tmp_path: Path, byte_level: tokenizers.Tokenizer
) -> None:
    files = bpe_files(byte_level)
    named = Tokenizer.from_folder(
        write(tmp_path / "a", **files, tokenizer_config__json={"tokenizer_class": "Qwen2TokenizerFast"})
    )
    typed = Tokenizer.from_folder(write(tmp_path / "b", **files, config__json={"model_type": "qwen2"}))
    plain = Tokenizer.from_folder(write(tmp_path / "c", **files))
    for text in CORPUS[:8]:
        assert named.encode(text) == typed.encode(text)
    assert named.encode("e\u0301") == plain.encode("é") != plain.encode("e\u0301")


def test_a_byte_level_folder_and_its_tokenizer_json_agree(
    tmp_path: Path, byte_level: tokenizers.Tokenizer
) -> None:
    changed = tokenizers.Tokenizer.from_str(byte_level.to_str())
    changed.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    declared = {
        str(token): {"content": added.content, "special": added.special}
        for token, added in byte_level.get_added_tokens_decoder().items()
    }
    config = {"add_prefix_space": True, "added_tokens_decoder": declared}
    (tmp_path / "json").mkdir()
    json_folder = Tokenizer.from_folder(write_folder(tmp_path / "json", changed))
    slow = Tokenizer.from_folder(
        write(tmp_path / "slow", **bpe_files(byte_level), tokenizer_config__json=config)
    )
    assert slow.vocab_size == json_folder.vocab_size
    for text in odd_strings(300):
        ids = json_folder.encode(text)
        assert slow.encode(text) == ids
        assert slow.encode(text, parse_special=False) == json_folder.encode(text, parse_special=False)
        assert slow.decode(ids) == json_folder.decode(ids)
    assert (slow.bos_token, slow.eos_token) == ("<|endoftext|>", "<|endoftext|>")


def test_gpt_1s_merges_are_those_of_transformers(tmp_path: Path) -> None:
    vocabulary = {text: place for place, text in enumerate(GPT1)}
    folder = write(tmp_path, vocab__json=vocabulary, merges__txt="#version: 0.2\n" + "\n".join(GPT1_MERGES))
    ours = Tokenizer.from_folder(folder)
    theirs = oracle("OpenAIGPTTokenizer", folder)
    for text in ("The ab. bad", "the the,cab", "日 é x", "", "ABBEY  \n head"):
        assert ours.encode(text) == theirs.encode(text), text
    ids = ours.encode("The ab.")
    assert [GPT1[token] for token in ids] == ["the</w>", "ab</w>", ".</w>"]
    assert ours.decode(ids) == "the ab . "


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_lower_case": False},
        {"do_lower_case": False, "strip_accents": True},
        {"strip_accents": False},
        {"tokenize_chinese_chars": False},
    ],
    ids=str,
)
def test_word_pieces_are_those_of_transformers(options: Mapping[str, Any], tmp_path: Path) -> None:
    folder = write(tmp_path, vocab__txt="\n".join(PIECES) + "\n", tokenizer_config__json=options)
    ours = Tokenizer.from_folder(folder)
    theirs = oracle("BertTokenizer", folder, **options)
    texts = [
        "Playing the unfair, fairer!",
        "NAÏVE café Paris",
        "日本 <a> played",
        "aab",
        "x" * 120,
        "[MASK] a[SEP]",
    ]
    for text in [*texts, *odd_strings(200)]:
        assert ours.encode(text) == theirs.encode(repaired(text)), ascii(text)
    assert ours.special_ids == {0, 1, 2, 3, 4}
    assert ours.named_ids == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}


def test_a_list_of_word_pieces_and_the_gguf_made_of_it_agree(tmp_path: Path) -> None:
    folder = Tokenizer.from_folder(write(tmp_path, vocab__txt="\n".join(PIECES)))
    special = PIECES[:5]
    marked = [
        text if text in special else text[2:] if text.startswith("##") else f"▁{text}" for text in PIECES
    ]
    keys = {
        **{"model": "bert", "tokens": marked, "token_type": [3] * 5 + [1] * (len(PIECES) - 5)},
        **{"unknown_token_id": 1, "cls_token_id": 2, "seperator_token_id": 3, "padding_token_id": 0},
    }
    gguf = Tokenizer.from_gguf({f"tokenizer.ggml.{name}": value for name, value in keys.items()})
    assert gguf.special_ids == folder.special_ids
    for text in ["Playing the unfair, fairer!", "NAÏVE café", "日本 played", *odd_strings(200)]:
        ids = folder.encode(text)
        assert gguf.encode(text) == ids
        assert gguf.encode(text, parse_special=False) == folder.encode(text, parse_special=False)
        assert gguf.decode(ids) == folder.decode(ids)
    cased = {f"tokenizer.ggml.{name}": value for name, value in keys.items()}
    cased |= {"tokenizer.ggml.normalizer.lowercase": False}
    assert Tokenizer.from_gguf(cased).encode("Paris café") == [2, PIECES.index("Paris"), 1, 3]
    assert gguf.encode("Paris café") == [2, PIECES.index("paris"), PIECES.index("cafe"), 3]


def test_a_list_of_characters_makes_each_a_token(tmp_path: Path) -> None:
    texts = ["<pad>", "<unk>", "a", "b", " ", "\n", "日", "e\u0301"[1]]
    folder = write(tmp_path, vocab__json={text: place for place, text in enumerate(texts)})
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.encode("ab\n 日a<pad>") == [2, 3, 5, 4, 6, 2, 0]
    assert tokenizer.encode("xa") == [1, 2]
    assert tokenizer.decode(tokenizer.encode("ab\n 日a")) == "ab\n 日a"
    assert tokenizer.special_ids == {0, 1}


def test_a_list_of_characters_without_an_unknown_token_leaves_others_out(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(write(tmp_path, vocab__json={"a": 0, "b": 1}))
    assert tokenizer.encode("ab") == [0, 1]
    assert tokenizer.encode("axb") == [0, 1]


def test_a_list_of_words_makes_each_a_token(tmp_path: Path) -> None:
    texts = ["<unk>", "hello", "world", ",", "!", "</s>"]
    vocabulary = {text: place for place, text in enumerate(texts)}
    tokenizer = Tokenizer.from_folder(
        write(tmp_path / "a", vocab__json=vocabulary, tokenizer_config__json={"eos_token": "</s>"})
    )
    assert tokenizer.encode("hello, world! what</s>") == [1, 3, 2, 4, 0, 5]
    assert tokenizer.decode([1, 3, 2]) == " hello , world"
    assert tokenizer.eos_token_ids == (5,)
    # Words with signs in them end at whitespace alone.
    mixed = {**vocabulary, "don't": 6, "end.": 7}
    tokenizer = Tokenizer.from_folder(write(tmp_path / "b", vocab__json=mixed))
    assert tokenizer.encode("don't hello, end.") == [6, 0, 7]
    lines = "\n".join(texts)
    assert Tokenizer.from_folder(write(tmp_path / "c", vocab__txt=lines)).encode("hello world") == [1, 2]


def test_a_text_that_the_vocabulary_cannot_express_is_one_error(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="<unk>"))
    tokenizer = Tokenizer.from_folder(write_folder(tmp_path, backend))
    assert tokenizer.encode("a") == [0]
    with pytest.raises(RequestError, match="vocabulary cannot express this text"):
        tokenizer.encode("b")


A_B = {"a": 0, "b": 1, "ab": 2}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"vocab__json": "{"}, r"vocab\.json is not valid JSON"),
        ({"vocab__json": []}, r"vocab\.json must map tokens to ids"),
        ({"vocab__json": {"a": -1}}, r"vocab\.json: the token 'a' has the id -1, which is out of range"),
        ({"vocab__json": {"a": 1 << 24}}, r"vocab\.json: the token 'a' has the id 16777216"),
        ({"vocab__json": {"a": True}}, r"vocab\.json: the token 'a' has the id True"),
        ({"vocab__json": {"a": "0"}}, r"vocab\.json: the token 'a' has the id '0'"),
        ({"vocab__json": {"a": 0, "b": 0}}, r"vocab\.json: the tokens 'a' and 'b' both have the id 0"),
        ({"vocab__json": A_B, "merges__txt": "a b\nab"}, r"merges\.txt, line 2: 'ab' is not a pair"),
        ({"vocab__json": A_B, "merges__txt": "a b c"}, r"merges\.txt, line 1: 'a b c' is not a pair"),
        ({"vocab__json": A_B, "merges__txt": "#version\nb a"}, r"merges\.txt, line 2: 'b a' names a token"),
        ({"vocab__json": A_B, "merges__txt": "a z"}, r"merges\.txt, line 1: 'a z' names a token"),
        ({"vocab__txt": "##a\nb\n##a\n"}, r"vocab\.txt: the token '##a' stands in lines 1 and 3"),
        ({"vocab__txt": ""}, r"vocab\.txt has no tokens"),
        ({"vocab__txt": "a\n##b\n"}, r"vocab\.txt has no token '\[UNK\]', which it needs as unk_token"),
        ({"vocab__json": {"word": 0}}, r"vocab\.json lists words and has no unknown token"),
        (
            {"vocab__json": {"a</w>": 0}, "merges__txt": ""},
            r"vocab\.json has no token '<unk>', which it needs as unk_token",
        ),
        (
            {
                **{"vocab__json": {"a</w>": 0}, "merges__txt": ""},
                "tokenizer_config__json": {"tokenizer_class": "HerbertTokenizer"},
            },
            r"merges\.txt: how a HerbertTokenizer cuts text is unknown",
        ),
    ],
)
def test_a_damaged_list_is_one_error_that_names_the_file(
    files: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        Tokenizer.from_folder(write(tmp_path, **files))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["vocab.txt", "merges.txt"])
def test_a_list_that_is_not_utf_8_is_one_error(name: str, tmp_path: Path) -> None:
    write(tmp_path, vocab__json=A_B) if name == "merges.txt" else None
    (tmp_path / name).write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=rf"{name} is not UTF-8"):
        Tokenizer.from_folder(tmp_path)


def test_an_id_out_of_range_in_a_tokenizer_json_is_one_error(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "b": 1}, []))
    text = backend.to_str().replace('"b":1', '"b":4000000000')
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(
        CheckpointError, match=r"tokenizer\.json: the token 'b' has the id 4000000000, which is"
    ):
        Tokenizer.from_folder(tmp_path)


def test_two_tokens_with_one_id_in_a_tokenizer_json_are_one_error(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "b": 1}, []))
    text = backend.to_str().replace('"b":1', '"b":0')
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(
        CheckpointError, match=r"tokenizer\.json: the tokens '[ab]' and '[ab]' both have the id 0"
    ):
        Tokenizer.from_folder(tmp_path)
