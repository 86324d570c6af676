from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from decodery.errors import CheckpointError
from decodery.text.tokenizer import split_patterns
from decodery.text.tokenizer.tokenizer import Tokenizer
from tests.text.direct import merged_by_rank
from tests.text.vocabularies import odd_strings, repaired

# All bytes in an order of their own, then tokens of several bytes, some of which several pairs make.
TOKENS = [
    *(bytes([byte]) for byte in [*range(97, 123), *range(97), *range(123, 256)]),
    *(
        b"th",
        b"he",
        b" t",
        b"the",
        b" the",
        b"in",
        b"aa",
        b"aaa",
        b"ing",
        b"12",
        b"123",
        b" a",
        b"'s",
        b"\n\n",
    ),
    *("é".encode(), "日".encode(), "日本".encode(), b"  ", b"<|", b"|>"),
]
RANKS = {token: rank for rank, token in enumerate(TOKENS)}
SIZE = len(TOKENS)
TEXTS = st.text(st.sampled_from("the ainsg'123 日本é\n<|>"), max_size=16)


def tiktoken(ranks: dict[bytes, int] = RANKS) -> bytes:
    return b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in ranks.items())


def tekken(**changes: Any) -> bytes:
    config = {
        "pattern": split_patterns.TEKKEN,
        "default_vocab_size": SIZE + 30,
        "default_num_special_tokens": 30,
    }
    entries = [
        {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
        for token, rank in RANKS.items()
    ]
    # Files list more tokens than they use.
    more = {"rank": SIZE, "token_bytes": base64.b64encode(b"unused").decode(), "token_str": "unused"}
    return json.dumps({"config": config, "vocab": [*entries, more], **changes}).encode()


def opened(folder: Path, name: str, data: bytes, **files: Any) -> Tokenizer:
    (folder / name).write_bytes(data)
    for file, content in files.items():
        (folder / f"{file}.json").write_text(json.dumps(content), encoding="utf-8")
    return Tokenizer.from_folder(folder)


@pytest.mark.parametrize(
    ("name", "data", "files", "pattern", "shift"),
    [
        ("qwen.tiktoken", tiktoken(), {}, split_patterns.QWEN2, 0),
        ("tokenizer.model", tiktoken(), {"config": {"model_type": "llama"}}, split_patterns.LLAMA3, 0),
        ("tiktoken.model", tiktoken(), {}, split_patterns.KIMI_K2, 0),
        (
            "tokenizer.model",
            tiktoken(),
            {"tokenizer_config": {"tokenizer_class": "ChatGLM4Tokenizer"}},
            split_patterns.LLAMA3,
            0,
        ),
        ("tekken.json", tekken(), {}, split_patterns.TEKKEN, 30),
    ],
    ids=["qwen", "llama", "kimi", "glm", "tekken"],
)
def test_the_pair_of_the_lowest_rank_merges_first(
    name: str, data: bytes, files: dict[str, Any], pattern: str, shift: int, tmp_path: Path
) -> None:
    tokenizer = opened(tmp_path, name, data, **files)
    split = pre_tokenizers.Split(Regex(pattern), "isolated")

    @given(TEXTS)
    def check(text: str) -> None:
        pieces = [piece.encode() for piece, _ in split.pre_tokenize_str(text)]
        expected = [rank + shift for piece in pieces for rank in merged_by_rank(piece, RANKS)]
        assert tokenizer.encode(text, add_special_tokens=False, parse_special=False) == expected

    check()
    for text in map(repaired, odd_strings(200)):
        ids = tokenizer.encode(text, add_special_tokens=False, parse_special=False)
        if name != "qwen.tiktoken":  # It composes characters.
            assert tokenizer.decode(ids, skip_special_tokens=False) == text
        assert not tokenizer.special_ids & set(ids)


def test_qwens_tokens_follow_the_ranks(tmp_path: Path) -> None:
    tokenizer = opened(tmp_path, "qwen.tiktoken", tiktoken())
    assert tokenizer.vocab_size == SIZE + 208
    assert tokenizer.encode("<|endoftext|><|im_start|><|im_end|>the<|extra_204|>") == [
        *(SIZE, SIZE + 1, SIZE + 2, TOKENS.index(b"the"), SIZE + 207),
    ]
    assert tokenizer.eos_token_ids == (SIZE, SIZE + 2)
    assert tokenizer.encode("e\u0301") == [TOKENS.index("é".encode())]


def test_llama_3s_tokens_follow_the_ranks_and_one_begins_a_prompt(tmp_path: Path) -> None:
    tokenizer = opened(tmp_path, "tokenizer.model", tiktoken())
    assert tokenizer.vocab_size == SIZE + 256
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|eot_id|>", "<|python_tag|>"]
    assert [tokenizer.token_id(name) for name in names] == [SIZE, SIZE + 1, SIZE + 6, SIZE + 9, SIZE + 10]
    assert tokenizer.token_id("<|reserved_special_token_246|>") == SIZE + 255
    assert tokenizer.encode("the") == [SIZE, TOKENS.index(b"the")]
    assert tokenizer.eos_token_ids == (SIZE + 1, SIZE + 9)


def test_the_config_names_the_tokens_that_a_family_reserves(tmp_path: Path) -> None:
    declared = {str(SIZE): {"content": "[BOS]", "special": True}, str(SIZE + 3): {"content": "<|im_end|>"}}
    config = {
        "added_tokens_decoder": declared,
        "eos_token": "<|im_end|>",
        "tokenizer_class": "TikTokenTokenizer",
    }
    tokenizer = opened(tmp_path, "tiktoken.model", tiktoken(), tokenizer_config=config)
    assert tokenizer.encode("[BOS]<|im_end|>") == [SIZE, SIZE + 3]
    assert tokenizer.token_id(f"<|reserved_token_{SIZE + 1}|>") == SIZE + 1
    assert tokenizer.eos_token_ids == (SIZE + 3,)
    assert tokenizer.vocab_size == SIZE + 256


def test_tekkens_special_tokens_come_first(tmp_path: Path) -> None:
    tokenizer = opened(tmp_path, "tekken.json", tekken())
    assert tokenizer.vocab_size == SIZE + 30
    assert tokenizer.encode("[INST]the</s>") == [1, 3, TOKENS.index(b"the") + 30, 2]
    assert (tokenizer.token_bytes(29), tokenizer.token_bytes(30)) == (b"<SPECIAL_29>", b"a")
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token_id) == ("<s>", "</s>", 11)
    listed = [
        {"rank": 0, "token_str": "<unk>"},
        {"rank": 1, "token_str": "<s>"},
        {"rank": 5, "token_str": "[X]"},
    ]
    tokenizer = opened(tmp_path, "tekken.json", tekken(special_tokens=listed))
    assert tokenizer.encode("[X][INST]", add_special_tokens=False)[:1] == [5]
    assert tokenizer.token_id("[INST]") is None
    assert tokenizer.eos_token_ids == ()


LINE = base64.b64encode(b"zz")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tiktoken() + b"%%%% 700\n", r"line 277: .* no token in base64"),
        (tiktoken() + LINE + b"\n", r"line 277: "),
        (tiktoken() + LINE + b" x\n", r"line 277: "),
        (tiktoken() + LINE + b" 5\n", r"line 277: the token or the rank 5 occurs twice"),
        (
            tiktoken() + base64.b64encode(b"a") + b" 900\n",
            r"line 277: the token or the rank 900 occurs twice",
        ),
        (tiktoken() + LINE + b" 99999999\n", r"line 277: the rank 99999999 is too large"),
        (
            tiktoken({token: rank for token, rank in RANKS.items() if token != b"\x07"}),
            r"no token for the byte 0x07",
        ),
    ],
)
def test_a_damaged_list_is_one_error_that_names_the_file_and_the_line(
    data: bytes, words: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=rf"qwen\.tiktoken.*{words}"):
        opened(tmp_path, "qwen.tiktoken", data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "no intact tekken.json"),
        (b"[]", "no intact tekken.json"),
        (tekken(vocab=[]), "no token for the byte 0x00"),
        (tekken(vocab=[{"rank": 0, "token_bytes": "%"}]), "no intact tekken.json"),
        (tekken(vocab=[{"rank": 1, "token_bytes": "AA=="}]), "ranks are missing"),
        (tekken(config={"pattern": "x"}), "no intact tekken.json: KeyError"),
        (tekken(special_tokens=[{"rank": 30, "token_str": "x"}]), "not below 30"),
        (
            tekken(special_tokens=[{"rank": 1, "token_str": "x"}, {"rank": 1, "token_str": "y"}]),
            "occurs twice",
        ),
        (
            tekken(
                config={"pattern": "(", "default_vocab_size": SIZE + 30, "default_num_special_tokens": 30}
            ),
            "does not hold together",
        ),
    ],
)
def test_a_damaged_tekken_json_is_one_error_that_names_it(data: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"tekken\.json.*{words}") as caught:
        opened(tmp_path, "tekken.json", data)
    assert "\n" not in str(caught.value)


def test_a_list_whose_pattern_is_unknown_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    config = {"tokenizer_class": "NewTokenizer"}
    with pytest.raises(CheckpointError, match=r"new\.tiktoken: .*NewTokenizer.*\(none\).*tokenizer\.json"):
        opened(tmp_path, "new.tiktoken", tiktoken(), tokenizer_config=config)
