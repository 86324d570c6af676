from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from decodery.errors import CheckpointError
from decodery.text.tokenizer.tokenizer import Tokenizer
from tests.text.sentencepiece_models import character_map
from tests.text.vocabularies import (
    byte_level_metadata,
    odd_strings,
    repaired,
    sentence_piece_metadata,
    write_folder,
)


def test_a_folder_and_a_gguf_file_of_one_byte_level_model_agree(
    tmp_path: Path, byte_level: tokenizers.Tokenizer
) -> None:
    folder = Tokenizer.from_folder(write_folder(tmp_path, byte_level))
    gguf = Tokenizer.from_gguf(byte_level_metadata(byte_level))
    _agree(folder, gguf)


def test_a_folder_and_a_gguf_file_of_one_sentence_piece_model_agree(
    tmp_path: Path, sentence_piece: tokenizers.Tokenizer
) -> None:
    folder = Tokenizer.from_folder(write_folder(tmp_path, sentence_piece))
    gguf = Tokenizer.from_gguf(sentence_piece_metadata(sentence_piece))
    _agree(folder, gguf)


def _agree(folder: Tokenizer, gguf: Tokenizer) -> None:
    assert folder.vocab_size == gguf.vocab_size
    for token in range(folder.vocab_size):
        assert folder.token_bytes(token) == gguf.token_bytes(token)
    for text in odd_strings(300):
        ids = folder.encode(text)
        assert ids == gguf.encode(text)
        assert folder.decode(ids, skip_special_tokens=False) == gguf.decode(ids, skip_special_tokens=False)
        literal = folder.encode(text, parse_special=False)
        assert literal == gguf.encode(text, parse_special=False)
        assert folder.decode(literal) == gguf.decode(literal)
        if "▁" not in text:
            assert folder.decode(literal) in (repaired(text), f" {repaired(text)}")


@pytest.mark.parametrize(
    ("files", "ends"),
    [
        ({"tokenizer_config": {"eos_token": "<|im_end|>"}}, (2,)),
        ({"tokenizer_config": {"eos_token": {"content": "<|im_end|>", "lstrip": False}}}, (2,)),
        ({"special_tokens_map": {"eos_token": "<|im_end|>"}}, (2,)),
        ({"config": {"eos_token_id": 0}}, (0,)),
        ({"config": {"eos_token_id": 1}, "generation_config": {"eos_token_id": [2, 0]}}, (2, 0)),
        ({"generation_config": {"eos_token_id": 0}, "tokenizer_config": {"eos_token": "<|im_end|>"}}, (2, 0)),
        ({"tokenizer_config": {"eos_token": "<|im_end|>", "eot_token": "<|endoftext|>"}}, (2, 0)),
        ({"config": {"eos_token_id": 10**6}}, ()),
        ({"config": {"eos_token_id": None}}, ()),
        ({}, ()),
    ],
)
def test_all_declared_ends_are_ends(
    files: dict[str, Any], ends: tuple[int, ...], tmp_path: Path, byte_level: tokenizers.Tokenizer
) -> None:
    tokenizer = Tokenizer.from_folder(write_folder(tmp_path, byte_level, **files))
    assert tokenizer.eos_token_ids == ends
    assert tokenizer.eos_token == (("<|endoftext|>", "<|im_start|>", "<|im_end|>")[ends[0]] if ends else "")


def test_roles_templates_and_row_counts_come_from_the_small_files(
    tmp_path: Path, byte_level: tokenizers.Tokenizer
) -> None:
    config = {"bos_token": "<|im_start|>", "chat_template": "config"}
    write_folder(
        tmp_path, byte_level, tokenizer_config=config, config={"pad_token_id": 0, "vocab_size": 4096}
    )
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert (tokenizer.bos_token_id, tokenizer.bos_token, tokenizer.pad_token_id) == (1, "<|im_start|>", 0)
    assert tokenizer.vocab_size == 4096
    assert tokenizer.token_bytes(4095) == b""
    assert tokenizer.chat_template == "config"
    (tmp_path / "chat_template.jinja").write_text("file", encoding="utf-8")
    assert Tokenizer.from_folder(tmp_path).chat_template == "file"


def test_of_named_templates_the_default_is_taken(tmp_path: Path, byte_level: tokenizers.Tokenizer) -> None:
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    write_folder(tmp_path, byte_level, tokenizer_config={"chat_template": named})
    assert Tokenizer.from_folder(tmp_path).chat_template == "yes"


def test_the_config_decides_about_bos_and_eos_where_it_speaks(
    tmp_path: Path, byte_level: tokenizers.Tokenizer, sentence_piece: tokenizers.Tokenizer
) -> None:
    said = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": False, "add_eos_token": True}
    tokenizer = Tokenizer.from_folder(write_folder(tmp_path, sentence_piece, tokenizer_config=said))
    ids = tokenizer.encode("a")
    assert (ids[0] == 1, ids[-1] == 2) == (False, True)
    tokenizer = Tokenizer.from_folder(write_folder(tmp_path, sentence_piece, tokenizer_config={}))
    ids = tokenizer.encode("a")
    assert (ids[0] == 1, ids[-1] == 2) == (True, False)


@pytest.mark.parametrize(
    ("template", "keys", "begins", "ends"),
    [
        ("<s> $A", {}, ["<s>"], []),
        ("<s> $A", {"add_eos_token": False}, ["<s>"], []),
        ("<s> $A", {"add_eos_token": True}, ["<s>"], ["</s>"]),
        ("<s> $A", {"add_bos_token": None, "add_eos_token": False}, ["<s>"], []),
        ("<s> $A", {"add_bos_token": False}, [], []),
        ("<s> $A </s>", {"add_bos_token": False}, [], ["</s>"]),
        ("<s> $A </s>", {"add_eos_token": False}, ["<s>"], []),
        ("<s> $A </s>", {"add_bos_token": True}, ["<s>"], ["</s>"]),
        ("<unk> $A", {"add_bos_token": False, "add_eos_token": False}, ["<unk>"], []),
        ("<unk> $A", {"add_bos_token": True}, ["<s>", "<unk>"], []),
        ("<unk> <s> $A", {"add_bos_token": True}, ["<unk>", "<s>"], []),
        ("$A", {"add_bos_token": True, "add_eos_token": True}, ["<s>"], ["</s>"]),
    ],
)
def test_each_key_of_the_config_decides_about_its_own_token_only(
    tmp_path: Path,
    sentence_piece: tokenizers.Tokenizer,
    template: str,
    keys: dict[str, Any],
    begins: list[str],
    ends: list[str],
) -> None:
    changed = tokenizers.Tokenizer.from_str(sentence_piece.to_str())
    marks = {token: place for place, token in enumerate(("<unk>", "<s>", "</s>"))}
    changed.post_processor = processors.TemplateProcessing(single=template, special_tokens=[*marks.items()])
    said = {"bos_token": "<s>", "eos_token": "</s>", **keys}
    tokenizer = Tokenizer.from_folder(write_folder(tmp_path, changed, tokenizer_config=said))
    bare = tokenizer.encode("a", add_special_tokens=False)
    assert tokenizer.encode("a") == [*map(marks.get, begins), *bare, *map(marks.get, ends)]


def test_padding_and_truncation_of_the_file_are_not_applied(
    tmp_path: Path, byte_level: tokenizers.Tokenizer
) -> None:
    changed = tokenizers.Tokenizer.from_str(byte_level.to_str())
    changed.enable_padding(length=40)
    changed.enable_truncation(50)
    tokenizer = Tokenizer.from_folder(write_folder(tmp_path, changed))
    assert tokenizer.encode("a") == byte_level.encode("a").ids
    assert len(tokenizer.encode("1" * 90)) == 90


def test_tokens_that_only_the_config_declares_are_added_at_their_ids(
    tmp_path: Path, byte_level: tokenizers.Tokenizer
) -> None:
    size = byte_level.get_vocab_size()
    flags = {"lstrip": True, "rstrip": True, "normalized": False, "special": True, "single_word": False}
    declared = {str(size): {"content": "<extra>", **flags}}
    write_folder(tmp_path, byte_level, tokenizer_config={"added_tokens_decoder": declared})
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.encode("a  <extra> b") == [
        *byte_level.encode("a").ids,
        size,
        *byte_level.encode("b").ids,
    ]
    assert size in tokenizer.special_ids
    assert tokenizer.token_bytes(size) == b"<extra>"
    declared = {str(size + 7): {"content": "<extra>", **flags}}
    write_folder(tmp_path, byte_level, tokenizer_config={"added_tokens_decoder": declared})
    with pytest.raises(CheckpointError, match=rf"'<extra>' the id {size + 7}.*{size}"):
        Tokenizer.from_folder(tmp_path)


def test_flags_of_added_tokens_hold_with_and_without_parsing_special_text(
    tmp_path: Path, byte_level: tokenizers.Tokenizer
) -> None:
    changed = tokenizers.Tokenizer.from_str(byte_level.to_str())
    changed.normalizer = normalizers.Lowercase()
    changed.add_tokens(
        [
            AddedToken("<left>", lstrip=True, normalized=False),
            AddedToken("<loud>", normalized=True),
            AddedToken("<mark>", special=True, rstrip=True, normalized=False),
        ]
    )
    left, loud, mark = (changed.token_to_id(token) for token in ("<left>", "<loud>", "<mark>"))
    tokenizer = Tokenizer.from_folder(write_folder(tmp_path, changed))
    text = "a  <left><LOUD><mark>  b"
    assert tokenizer.encode(text) == changed.encode(text).ids
    assert {left, loud, mark} <= set(tokenizer.encode(text))
    literal = tokenizer.encode(text, parse_special=False)
    assert {left, loud} <= set(literal)
    assert mark not in literal
    assert tokenizer.decode(literal) == "a<left><loud><mark>  b"


def test_a_word_piece_model_reads_as_words(tmp_path: Path) -> None:
    words = ["[UNK]", "[CLS]", "[SEP]", "play", "##ing", "fair"]
    model = models.WordPiece({word: place for place, word in enumerate(words)}, unk_token="[UNK]")
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer = Tokenizer.from_folder(
        write_folder(tmp_path, backend, special_tokens_map={"cls_token": "[CLS]", "sep_token": "[SEP]"})
    )
    assert tokenizer.encode("playing fair") == [1, 3, 4, 5, 2]
    assert tokenizer.decode([1, 3, 4, 5, 2]) == " playing fair"


def _unigram() -> tokenizers.Tokenizer:
    texts = ["<unk>", "<s>", "<", "s", ">", "a", "▁", "</"]
    backend = tokenizers.Tokenizer(
        models.Unigram([(text, -float(rank)) for rank, text in enumerate(texts)], 0)
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    backend.decoder = decoders.Metaspace()
    return backend


def _words() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "a": 2}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return backend


@pytest.mark.parametrize(("backend", "literal"), [(_unigram(), [6, 2, 3, 4, 6, 5]), (_words(), [0, 2])])
def test_models_that_find_special_tokens_in_a_text_do_not_where_they_are_not_parsed(
    backend: tokenizers.Tokenizer, literal: list[int], tmp_path: Path
) -> None:
    backend.add_special_tokens(["<unk>", "<s>"])
    tokenizer = Tokenizer.from_folder(write_folder(tmp_path, backend))
    assert 1 in tokenizer.encode("<s> a")
    assert tokenizer.decode(tokenizer.encode("a a")) == " a a"
    assert tokenizer.encode("<s> a", parse_special=False) == literal


def test_a_character_map_composes_letters_and_the_other_steps_stay(tmp_path: Path) -> None:
    rules = character_map({"o\u0302\u0323": "ộ", "e\u0301": "é", "\u200b": ""})
    texts = ["<unk>", "▁", "é", "ộ", "b"]
    backend = tokenizers.Tokenizer(models.Unigram([(text, -1.0) for text in texts], 0))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Precompiled(rules), normalizers.Strip(left=False)]
    )
    tokenizer = Tokenizer.from_folder(write_folder(tmp_path, backend))
    for parse in (True, False):
        assert tokenizer.encode("Be\u0301o\u0302\u0323\u200bb  ", parse_special=parse) == [4, 2, 3, 4]
        assert tokenizer.encode("\u200b", parse_special=parse) == []
    backend.normalizer = normalizers.Precompiled(rules)
    assert Tokenizer.from_folder(write_folder(tmp_path, backend)).encode("e\u0301") == [2]


def test_ids_without_a_token_are_holes(tmp_path: Path) -> None:
    model = models.BPE({"a": 0, "b": 5}, [])
    backend = tokenizers.Tokenizer(model)
    backend.decoder = decoders.ByteLevel()
    tokenizer = Tokenizer.from_folder(write_folder(tmp_path, backend))
    assert tokenizer.vocab_size == 6
    assert [tokenizer.token_bytes(token) for token in range(6)] == [b"a", b"", b"", b"", b"", b"b"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": [1]},
            "added_tokens_decoder must map ids to tokens",
        ),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {"content": "a"}}}, "'x' for an id"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"-1": {"content": "a"}}}, "'-1' for an id"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"3": {}}}, "added token 3 has no content"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"3": "a"}}, "added token 3 has no content"),
        ("tokenizer_config.json", {"eos_token": "\ud800"}, "is not Unicode text"),
        pytest.param("tokenizer_config.json", "[" * 100_000, "is not valid JSON", id="nested without end"),
        ("tokenizer_config.json", b"{\xff}", "is not valid JSON"),
        ("chat_template.jinja", b"\xff\xfe", "is not UTF-8 text"),
    ],
    ids=str,
)
def test_a_damaged_small_file_is_one_error_that_names_it(
    file: str,
    content: dict[str, Any] | str | bytes,
    message: str,
    tmp_path: Path,
    byte_level: tokenizers.Tokenizer,
) -> None:
    write_folder(tmp_path, byte_level)
    text = json.dumps(content) if isinstance(content, dict) else content
    (tmp_path / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CheckpointError, match=message) as raised:
        Tokenizer.from_folder(tmp_path)
    assert file in str(raised.value)


def test_chat_templates_with_odd_names_are_passed_over(
    tmp_path: Path, byte_level: tokenizers.Tokenizer
) -> None:
    templates = [{"name": ["default"], "template": "odd"}, {"name": "default", "template": "right"}, 7]
    write_folder(tmp_path, byte_level, tokenizer_config={"chat_template": templates})
    assert Tokenizer.from_folder(tmp_path).chat_template == "right"


def test_a_file_that_may_not_be_read_is_one_error(
    tmp_path: Path, byte_level: tokenizers.Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Path, *arguments: Any, **more: Any) -> str:
        raise PermissionError(13, "Permission denied", str(self))

    write_folder(tmp_path, byte_level, tokenizer_config={})
    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json cannot be read: Permission denied"):
        Tokenizer.from_folder(tmp_path)


def test_a_tokenizer_that_cannot_encode_is_one_error(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer(models.WordPiece({"b": 0}, unk_token="[UNK]"))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot encode"):
        Tokenizer.from_folder(write_folder(tmp_path, backend))


def test_a_missing_or_damaged_file_is_one_clear_error(
    tmp_path: Path, byte_level: tokenizers.Tokenizer
) -> None:
    with pytest.raises(CheckpointError, match=r"has no tokenizer: .* tokenizer\.json"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be read"):
        Tokenizer.from_folder(tmp_path)
    write_folder(tmp_path, byte_level)
    (tmp_path / "generation_config.json").write_text("[1", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"generation_config\.json is not valid JSON"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps([1]), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"holds no JSON object"):
        Tokenizer.from_folder(tmp_path)
