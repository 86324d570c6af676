"""Finds the tokens that end a text or a turn in a GGUF file, which declares only some of them.

The others are known by their text, as in llama.cpp. Its list is followed, but for tokens that are plain text.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from decodery.text.tokenizer.gguf_keys import PREFIX, array
from decodery.text.tokenizer.piece_kinds import CONTROL, NORMAL, UNKNOWN, USER_DEFINED

_ENDS: Final = (
    *(
        "<|im_end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|calls|>",
        "<|flush|>",
    ),
    *("<end_of_turn>", "<turn|>", "<|tool_response>", "<|END_OF_TURN_TOKEN|>", "<end_of_utterance>", "[e~["),
    *("<EOT>", "_<EOT>", "▁<EOT>", "< EOT >", "[EOT]", "[EOS]", "<eos>", "</s>"),
    *("<|endoftext|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>"),
)
# What follows a file of code is another file, or filling. The roles are keys of the metadata.
_ENDS_OF_CODE: Final = {
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}
# Beside these, `<|end|>` ends a message, of which a turn may have several.
_ENDS_OF_TURNS: Final = ({"<|return|>", "<|call|>"}, {"<|call|>", "<|flush|>"}, {"<|calls|>", "<|flush|>"})
# A tag of HTML, unless it is a control token.
_TAG: Final = "</s>"


def ends_by_text(metadata: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int]) -> list[int]:
    """Returns the ids of the tokens whose text says that they end a text or a turn.

    A normal token that the merges form is plain text, and so no end.
    """
    further = (names for role, names in _ENDS_OF_CODE.items() if f"{PREFIX}{role}_token_id" not in metadata)
    names = [*_ENDS, *(name for each in further for name in each)]
    wanted = set(names)
    ids = {text: token for token, text in enumerate(tokens) if text in wanted}
    words = _formed(metadata, {text for text, token in ids.items() if types[token] == NORMAL})
    return [ids[name] for name in names if name in ids and name not in words and _ends(name, ids, types)]


def declared_ends_of_code(ids: Mapping[str, int]) -> list[int]:
    """Returns those of the declared ids that end a file of code; `ids` are all, by role."""
    return [ids[role] for role in _ENDS_OF_CODE if role in ids]


def _ends(name: str, ids: Mapping[str, int], types: Sequence[int]) -> bool:
    if name == "<|end|>":
        return not any(marks <= ids.keys() for marks in _ENDS_OF_TURNS)
    return types[ids[name]] in ((CONTROL,) if name == _TAG else (CONTROL, NORMAL, UNKNOWN, USER_DEFINED))


def _formed(metadata: Mapping[str, Any], texts: Collection[str]) -> set[str]:
    """Returns those of the texts that a merge gives."""
    if not texts:
        return set()
    return {text for line in array(metadata, "merges", str) if (text := line.replace(" ", "", 1)) in texts}
