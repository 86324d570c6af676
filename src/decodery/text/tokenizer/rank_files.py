"""Reads vocabularies that list the bytes and the rank of each token: tiktoken's files and tekken.json.

A pair of neighbours merges when its bytes are a token; the one with the lowest rank merges first.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from decodery.errors import CheckpointError
from decodery.text.tokenizer import spelling
from decodery.text.tokenizer.pieces import merges_from_scores
from decodery.text.tokenizer.spelling import NORMAL

_MOST_RANKS = 1 << 22


@dataclass(frozen=True, slots=True)
class Ranks:
    """Holds a ranked vocabulary: the bytes of each token by rank, and the special tokens by id.

    The id of a token is its rank plus `shift`.
    """

    tokens: Mapping[bytes, int]
    special: Mapping[str, int]
    pattern: str
    shift: int = 0
    compose: bool = False


def is_tiktoken(data: bytes) -> bool:
    """True if a file begins with a line of base64 and a rank."""
    line = data.split(b"\n", 1)[0].split()
    return len(line) == 2 and line[1].isdigit() and _decoded(line[0]) is not None


def read_tiktoken(file: Path) -> dict[bytes, int]:
    """Returns the ranks in a tiktoken file. Raises `CheckpointError`, naming the file and the line."""
    ranks: dict[bytes, int] = {}
    taken: dict[int, int] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        fields = line.split()
        token = _decoded(fields[0])
        if len(fields) != 2 or token is None or not fields[1].isdigit() or len(fields[1]) > 9:
            raise CheckpointError(f"{file}, line {number}: it holds no token in base64 with a rank")
        rank = int(fields[1])
        if rank >= _MOST_RANKS:
            raise CheckpointError(f"{file}, line {number}: the rank {rank} is too large")
        if token in ranks or rank in taken:
            raise CheckpointError(f"{file}, line {number}: the token or the rank {rank} occurs twice")
        ranks[token] = rank
        taken[rank] = number
    _check_bytes(file, ranks)
    return ranks


def read_tekken(file: Path) -> tuple[Ranks, Mapping[str, str]]:
    """Returns the vocabulary of a tekken.json, and its special tokens by their roles.

    Raises `CheckpointError`, naming the file, when it is damaged.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        config = content["config"]
        shift = int(config.get("default_num_special_tokens", 0))
        size = int(config["default_vocab_size"]) - shift
        entries = sorted(content["vocab"], key=lambda entry: int(entry["rank"]))[:size]
        tokens = {
            base64.b64decode(entry["token_bytes"], validate=True): int(entry["rank"]) for entry in entries
        }
        pattern = str(config["pattern"])
        listed = content.get("special_tokens")
        special = {text: place for place, text in enumerate(_FIRST_SPECIAL[:shift])}
        if listed:
            special = {str(entry["token_str"]): int(entry["rank"]) for entry in listed}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{file} is no intact tekken.json: {type(error).__name__}: {error}") from None
    if len(tokens) != len(entries) or [*tokens.values()] != list(range(len(tokens))):
        raise CheckpointError(f"{file}: tokens or ranks occur twice, or ranks are missing")
    if any(not 0 <= place < shift for place in special.values()) or len(set(special.values())) != len(
        special
    ):
        raise CheckpointError(f"{file}: a special token's rank occurs twice or is not below {shift}")
    special.update({f"<SPECIAL_{place}>": place for place in set(range(shift)) - set(special.values())})
    _check_bytes(file, tokens)
    roles = {role: text for role, text in _TEKKEN_ROLES.items() if text in special}
    return Ranks(tokens, special, pattern, shift), roles


_TEKKEN_ROLES = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
# The special tokens of files that do not list them, by id.
_FIRST_SPECIAL = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]"),
    *("[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)


def rank_backend(ranks: Ranks) -> tokenizers.Tokenizer:
    """Returns a tokenizer with the merges that the ranks imply. A piece that is a token is not merged."""
    texts = {spelling.to_byte_alphabet(token): rank for token, rank in ranks.tokens.items()}
    ordered = sorted(texts, key=texts.__getitem__)
    merges = merges_from_scores(ordered, [-texts[text] for text in ordered], [NORMAL] * len(ordered))
    vocabulary = {text: rank + ranks.shift for text, rank in texts.items()}
    hidden = {text: place for text, place in ranks.special.items() if text not in vocabulary}
    model = models.BPE({**vocabulary, **hidden}, merges, ignore_merges=True)
    backend = tokenizers.Tokenizer(model)
    if ranks.compose:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(ranks.pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    by_id: Sequence[str] = sorted(ranks.special, key=lambda text: ranks.special[text])
    backend.add_tokens([AddedToken(text, special=True, normalized=False) for text in by_id])
    return backend


def _decoded(text: bytes) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _check_bytes(file: Path, ranks: Mapping[bytes, int]) -> None:
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise CheckpointError(f"{file} has no token for the byte 0x{missing[0]:02X}")
