"""Reads the vocabulary of a model folder: tokenizer.json and the small files beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, models, normalizers

from decodery.errors import CheckpointError
from decodery.text.tokenizer import spelling
from decodery.text.tokenizer.character_rules import CharacterRules
from decodery.text.tokenizer.slow_files import Built, build_from_files
from decodery.text.tokenizer.vocabulary import Vocabulary
from decodery.text.tokenizer.word_lists import MOST_IDS

_ROLES = (
    "bos_token",
    "eos_token",
    "eot_token",
    "eom_token",
    "unk_token",
    "pad_token",
    "sep_token",
    "cls_token",
    "mask_token",
)
_MOST_EXTRA = 10_000
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def read_vocabulary(path: Path) -> Vocabulary:
    """Returns the vocabulary of a folder: of its tokenizer.json, else of the slow tokenizer's files.

    Also reads those of tokenizer_config.json, special_tokens_map.json, added_tokens.json, the chat
    templates, config.json and generation_config.json that exist. Raises `CheckpointError` when no vocabulary
    is found, or when a file is damaged or cannot be read.
    """
    try:
        return _read(path)
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or path} cannot be read: {error.strerror or error}"
        ) from error


def _read(path: Path) -> Vocabulary:
    config = _read_json(path / "special_tokens_map.json") | _read_json(path / "tokenizer_config.json")
    model = _read_json(path / "config.json")
    built = _read_backend(path) or _build_backend(path, config, str(model.get("model_type", "")))
    backend, config = built.backend, {**built.implied, **config}
    generation = _read_json(path / "generation_config.json")
    _add_declared(backend, config)
    ids: dict[int, str] = {token: text for text, token in backend.get_vocab().items()}
    size = max(max(ids, default=-1) + 1, _row_count(model))
    roles = {role: token for role in _ROLES if (token := _role(backend, config, role)) is not None}
    ends = _declared_ends(generation, model, size)
    bos = roles.get(
        "bos_token", _first(_id_list(generation, "bos_token_id") + _id_list(model, "bos_token_id"), size)
    )
    pad = roles.get(
        "pad_token", _first(_id_list(generation, "pad_token_id") + _id_list(model, "pad_token_id"), size)
    )
    eos = roles.get("eos_token", _first(ends, size))
    named_ends = [roles[role] for role in ("eos_token", "eot_token", "eom_token") if role in roles]
    eos_ids = tuple(dict.fromkeys([*named_ends, *ends]))
    added = backend.get_added_tokens_decoder()
    special = (
        {token for token, content in added.items() if content.special} | set(roles.values()) | set(eos_ids)
    )
    special.update(token for token in (bos, pad) if token is not None)
    prefix, suffix = _surroundings(backend, config, bos, eos)
    return Vocabulary(
        backend=backend,
        literal_model=built.literal_model or _literal_model(backend),
        spell=_speller(ids, frozenset(added), _decoder_steps(backend)),
        size=size,
        special_ids=frozenset(special),
        named_ids={role.removesuffix("_token"): token for role, token in roles.items()},
        bos_token_id=bos,
        eos_token_ids=eos_ids,
        pad_token_id=pad,
        bos_token=ids.get(bos, "") if bos is not None else "",
        eos_token=ids.get(eos, "") if eos is not None else "",
        prefix=prefix,
        suffix=suffix,
        chat_templates=_chat_templates(path, config),
    )


def _read_backend(path: Path) -> Built | None:
    file = path / "tokenizer.json"
    if not file.is_file():
        return None
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # The library raises bare exceptions.
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    _check_ids(file, backend.get_vocab(with_added_tokens=False))
    _apply_whole_rules(file, backend)
    backend.no_truncation()
    backend.no_padding()
    return Built(backend)


def _apply_whole_rules(file: Path, backend: tokenizers.Tokenizer) -> None:
    """Replaces the library's character maps, which it applies to each grapheme apart."""
    if backend.normalizer is None or b"precompiled_charsmap" not in backend.normalizer.__getstate__():
        return
    state = json.loads(backend.normalizer.__getstate__())
    steps = [_normalizer(file, step) for step in state.get("normalizers", [state])]
    backend.normalizer = normalizers.Sequence(steps)


def _normalizer(file: Path, state: Mapping[str, Any]) -> normalizers.Normalizer:
    if state["type"] != "Precompiled":
        whole = json.loads(tokenizers.Tokenizer(models.BPE()).to_str()) | {"normalizer": state}
        step: normalizers.Normalizer = tokenizers.Tokenizer.from_str(json.dumps(whole)).normalizer
        return step
    try:
        rules = CharacterRules(base64.b64decode(state["precompiled_charsmap"]))
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    return normalizers.Normalizer.custom(rules)


def _check_ids(file: Path, vocabulary: Mapping[str, int]) -> None:
    large = max(vocabulary.values(), default=0)
    if large >= MOST_IDS:
        text = next(text for text, token in vocabulary.items() if token == large)
        raise CheckpointError(f"{file}: the token {text!r} has the id {large}, which is out of range")
    if len(set(vocabulary.values())) == len(vocabulary):
        return
    texts: dict[int, str] = {}
    for text, token in vocabulary.items():
        if texts.setdefault(token, text) != text:
            raise CheckpointError(
                f"{file}: the tokens {texts[token]!r} and {text!r} both have the id {token}"
            )


def _build_backend(path: Path, config: Mapping[str, Any], model_type: str) -> Built:
    built = build_from_files(path, config, model_type)
    if built is None:
        raise CheckpointError(
            f"{path} has no tokenizer: a model folder needs a tokenizer.json, a SentencePiece model"
            " (tokenizer.model or spiece.model), a tiktoken file, a tekken.json, a vocab.json or a vocab.txt"
        )
    _add_listed(built.backend, path / "added_tokens.json", config)
    return built


def _add_listed(backend: tokenizers.Tokenizer, file: Path, config: Mapping[str, Any]) -> None:
    """Adds to `backend` the tokens that older folders declare: added_tokens.json and `extra_ids`."""
    extra = config.get("extra_ids")
    if isinstance(extra, int) and 0 < extra <= _MOST_EXTRA:
        names = [f"<extra_id_{place}>" for place in reversed(range(extra))]
        backend.add_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    others = config.get("additional_special_tokens")
    special = {_content(entry) for entry in others} if isinstance(others, list) else set()
    listed = _read_json(file)
    if not all(isinstance(token, int) for token in listed.values()):
        raise CheckpointError(f"{file} must map tokens to ids")
    for text, token in sorted(listed.items(), key=lambda entry: int(entry[1])):
        backend.add_tokens([AddedToken(_content(text), special=text in special, normalized=False)])
        if backend.token_to_id(text) != token:
            raise CheckpointError(
                f"{file} gives {text!r} the id {token}, the vocabulary {backend.token_to_id(text)}"
            )


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds no JSON object")
    return content


def _add_declared(backend: tokenizers.Tokenizer, config: Mapping[str, Any]) -> None:
    """Adds to `backend` the tokens that only tokenizer_config.json declares, with the ids it gives them."""
    known = {token: added.content for token, added in backend.get_added_tokens_decoder().items()}
    for token, fields in _declared_tokens(config):
        content = _content(fields)
        if known.get(token) == content.replace(spelling.SPACE_MARK, " "):
            continue
        if token not in known:
            flags = {flag: bool(fields[flag]) for flag in _FLAGS if flag in fields}
            backend.add_tokens([AddedToken(content, **flags)])
        if backend.token_to_id(content) != token:
            raise CheckpointError(
                f"tokenizer_config.json gives {content!r} the id {token}, "
                f"the vocabulary {backend.token_to_id(content)}"
            )
    added = backend.get_added_tokens_decoder()
    for role in _ROLES:
        named = _role(backend, config, role)
        if named is not None and named not in added:
            backend.add_special_tokens([_content(config[role])])


def _declared_tokens(config: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    """Returns the entries of added_tokens_decoder, ordered by id."""
    declared = config.get("added_tokens_decoder") or {}
    if not isinstance(declared, dict):
        raise CheckpointError("tokenizer_config.json: added_tokens_decoder must map ids to tokens")
    for token, fields in declared.items():
        if not (token.isascii() and token.isdecimal() and len(token) < 10):
            raise CheckpointError(f"tokenizer_config.json: added_tokens_decoder has {token!r} for an id")
        if not isinstance(fields, dict) or not isinstance(fields.get("content"), str):
            raise CheckpointError(f"tokenizer_config.json: the added token {token} has no content")
    return sorted(((int(token), fields) for token, fields in declared.items()), key=lambda entry: entry[0])


def _content(value: Any) -> str:
    text = str(value.get("content", "")) if isinstance(value, dict) else str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CheckpointError(f"tokenizer_config.json: the token {text!r} is not Unicode text") from None
    return text


def _role(backend: tokenizers.Tokenizer, config: Mapping[str, Any], role: str) -> int | None:
    return backend.token_to_id(_content(config[role])) if config.get(role) is not None else None


def _id_list(config: Mapping[str, Any], key: str) -> list[int]:
    value = config.get(key)
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, int)]


def _first(ids: list[int], size: int) -> int | None:
    return next((token for token in ids if 0 <= token < size), None)


def _declared_ends(generation: Mapping[str, Any], model: Mapping[str, Any], size: int) -> list[int]:
    """Returns the end tokens of generation_config.json, or else of config.json.

    config.json often contains an architecture's default.
    """
    ids = _id_list(generation, "eos_token_id") or _id_list(model, "eos_token_id")
    return [token for token in ids if 0 <= token < size]


def _row_count(model: Mapping[str, Any]) -> int:
    text = model.get("text_config")
    rows = model.get("vocab_size", text.get("vocab_size") if isinstance(text, dict) else None)
    return rows if isinstance(rows, int) else 0


def _surroundings(
    backend: tokenizers.Tokenizer, config: Mapping[str, Any], bos: int | None, eos: int | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the tokens before and after a prompt, as the post-processor has them.

    A key of tokenizer_config.json decides about its own token only.
    """
    prefix, suffix = _processed(backend)
    prefix = _decided(prefix, bos, config.get("add_bos_token"), first=True)
    return prefix, _decided(suffix, eos, config.get("add_eos_token"), first=False)


def _decided(tokens: tuple[int, ...], token: int | None, is_added: Any, *, first: bool) -> tuple[int, ...]:
    """Returns the tokens with or without one of them; unless `is_added` is true or false, as they are."""
    if token is None or not isinstance(is_added, bool) or is_added == (token in tokens):
        return tokens
    if not is_added:
        return tuple(other for other in tokens if other != token)
    return (token, *tokens) if first else (*tokens, token)


def _processed(backend: tokenizers.Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the tokens that the post-processor adds before and after a text."""
    try:
        bare = backend.encode("a", add_special_tokens=False).ids
        full = backend.encode("a").ids
    except Exception as error:  # The library raises bare exceptions.
        raise CheckpointError(f"tokenizer.json cannot encode a text: {error}") from error
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return tuple(full[:start]), tuple(full[start + len(bare) :])
    return (), ()


def _chat_templates(path: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Returns the templates that lie in files of their own, else those of the JSON files."""
    files = {file.stem: file for file in sorted((path / "additional_chat_templates").glob("*.jinja"))}
    if (path / "chat_template.jinja").is_file():
        files["default"] = path / "chat_template.jinja"
    if files:
        return {name: _template_text(file) for name, file in files.items()}
    found = _read_json(path / "chat_template.json").get("chat_template") or config.get("chat_template")
    if isinstance(found, list):
        entries = [entry for entry in found if isinstance(entry, dict)]
        found = {
            entry["name"]: entry.get("template") for entry in entries if isinstance(entry.get("name"), str)
        }
    named = found if isinstance(found, dict) else {"default": found}
    return {name: text for name, text in named.items() if isinstance(text, str)}


def _template_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file} is not UTF-8 text: {error}") from error


def _decoder_steps(backend: tokenizers.Tokenizer) -> list[dict[str, Any]]:
    if backend.decoder is None:
        # The library joins tokens with spaces then; those of the other models are parts of words.
        words = isinstance(backend.model, models.WordLevel)
        return [{"type": "WordPiece", "prefix": "\uffff"}] if words else []
    decoder = json.loads(backend.decoder.__getstate__())
    steps: list[dict[str, Any]] = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    return steps


def _literal_model(backend: tokenizers.Tokenizer) -> Callable[[], Any] | None:
    """Returns a function that makes the model without special tokens, if that of `backend` can find them."""
    if not isinstance(backend.model, (models.Unigram, models.WordLevel)):
        return None
    special = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}

    def hidden(text: str) -> str:
        return f"\uffff{text}\uffff" if text in special else text

    def build() -> Any:
        state = json.loads(backend.model.__getstate__())
        if state["type"] == "Unigram":
            scored = [(hidden(text), score) for text, score in state["vocab"]]
            return models.Unigram(scored, state["unk_id"], bool(state.get("byte_fallback")))
        vocabulary = {hidden(text): token for text, token in state["vocab"].items()}
        return models.WordLevel(vocabulary, hidden(state["unk_token"]))

    return build


def _speller(
    ids: Mapping[int, str], added: frozenset[int], steps: list[dict[str, Any]]
) -> Callable[[int], bytes]:
    """Returns a function from id to bytes. It follows the decoder, but not its rules for a first token."""
    kinds = {step["type"]: step for step in steps}
    mark = _space_mark(steps)

    def spell(token: int) -> bytes:
        text = ids.get(token, "")
        if "ByteLevel" in kinds:
            return spelling.plain(text) if token in added else spelling.byte_level(text)
        if token not in added:
            if "ByteFallback" in kinds and (single := spelling.byte_token(text)) is not None:
                return single
            if "WordPiece" in kinds:
                return spelling.word_piece(text, kinds["WordPiece"]["prefix"])
            if "BPEDecoder" in kinds:
                return spelling.plain(text.replace(kinds["BPEDecoder"]["suffix"], " "))
        return spelling.plain(text.replace(mark, " ")) if mark else spelling.plain(text)

    return spell


def _space_mark(steps: list[dict[str, Any]]) -> str:
    for step in steps:
        if step["type"] == "Metaspace":
            return str(step["replacement"])
        if step["type"] == "Replace" and step["content"] == " ":
            return str(step["pattern"].get("String", ""))
    return ""
