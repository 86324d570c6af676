"""Classifies texts by how likely a decoder finds the name of each label behind a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.input_errors import numbered
from decodery.encoding.results import Classification
from decodery.encoding.tasks.classify import classification
from decodery.encoding.tasks.head_scores import Floats, head_scores, softmax
from decodery.encoding.tasks.inputs import checked_text, listed
from decodery.encoding.tasks.prompted.prompt_form import PromptForm, chat_form, read_prompt
from decodery.encoding.tasks.zero_shot import checked_labels
from decodery.encoding.text_batches import TokenText
from decodery.encoding.texts import Long
from decodery.errors import ParameterError

CHAT_PROMPT = "{text}\n\nWhich of these classes fits this text best: {labels}? Answer with the class alone."
PLAIN_PROMPT = "Classes: {labels}\n\nText: {text}\nClass:"
TEXT, LABELS = "{text}", "{labels}"


def by_prompt(
    parts: EncoderParts,
    inputs: Any,
    labels: Any,
    *,
    prompt: str | None = None,
    top_k: int | None = None,
    long: Long = "error",
) -> list[Classification]:
    """Returns the labels of each text by the probability of their tokens behind a prompt.

    A logit is the sum of the logarithms of a label's tokens, and a score its share among all labels. A label
    whose tokens begin another label counts only where the other one does not follow. `prompt` has {text} and
    may have {labels}; a model with a chat template gets it as a message of the user. A text that is too long
    is cut, never the prompt. Raises `ModelError` for a model without scores of tokens, and `ParameterError`
    for labels without a token and a prompt without {text}.
    """
    parts.head("next_token")
    names = checked_labels(labels)
    form = _form(parts, prompt, names)
    endings = [_label_ids(parts, form, name) for name in names]
    longest = max(map(len, endings))
    reads = list(_reads(endings).items())
    texts: list[TokenText] = []
    places: list[range] = []
    given = [checked_text(text, "each text") for text in listed(inputs)]
    for index, text in enumerate(given):
        with numbered(index, len(given)):
            ids, lost = read_prompt(parts, form, {"text": text}, cut="text", behind=longest - 1, long=long)
        for behind, _ in reads:
            whole = (*ids, *behind)
            texts.append(TokenText(whole, (0,) * len(whole), ((0, len(ids)),), lost))
            places.append(range(len(ids) - 1, len(whole)))
    logits = np.zeros((len(given), len(names)))
    for index, rows in head_scores(parts, "next_token", texts, places):
        logarithms = _log_probabilities(rows)
        for label in reads[index % len(reads)][1]:
            tokens = endings[label]
            logits[index // len(reads), label] = logarithms[range(len(tokens)), tokens].sum()
    return [
        classification(names, row, softmax(row), top_k, texts[index * len(reads)].lost)
        for index, row in enumerate(_without_longer(logits, endings))
    ]


def _reads(endings: Sequence[Sequence[int]]) -> dict[tuple[int, ...], list[int]]:
    """Returns the tokens to read behind a prompt, each time with the labels that get their scores there.

    A label's last token is asked for, and asks for nothing. Labels that begin alike share what they can.
    """
    found: dict[tuple[int, ...], list[int]] = {}
    for label in sorted(range(len(endings)), key=lambda label: -len(endings[label])):
        own = tuple(endings[label][:-1])
        shared = next((behind for behind in found if behind[: len(own)] == own), own)
        found.setdefault(shared, []).append(label)
    return found


def _without_longer(logits: Floats, endings: Sequence[Sequence[int]]) -> Floats:
    """Returns logits [texts, labels] in which no label counts where a longer one that it begins follows.

    So all labels exclude each other. Otherwise the shorter one would win on every text.
    """
    result = logits.copy()
    labels = {tuple(ending): label for label, ending in enumerate(endings)}
    for short, ending in enumerate(endings):
        own = tuple(ending)
        longer = [other for other in labels if other[: len(own)] == own != other]
        # The probability of the others holds that of the labels that they begin.
        next_ones = [one for one in longer if not any(one[: len(two)] == two != one for two in longer)]
        share = sum((np.exp(logits[:, labels[one]] - logits[:, short]) for one in next_ones), np.zeros(1))
        result[:, short] += np.log1p(-np.minimum(share, 1 - np.finfo(np.float64).eps))
    return result


def _form(parts: EncoderParts, prompt: str | None, labels: list[str]) -> PromptForm:
    chats = parts.tokenizer.chat_template is not None
    if prompt is None:
        prompt = CHAT_PROMPT if chats else PLAIN_PROMPT
    if not isinstance(prompt, str) or prompt.count(TEXT) != 1:
        raise ParameterError("prompt must be a text with {text} once, and may have {labels}")
    before, after = (part.replace(LABELS, ", ".join(labels)) for part in prompt.split(TEXT))
    if not chats:
        return PromptForm((before, after), ("text",), parts.tokenizer.single_layout.before.ids)

    def messages(texts: Mapping[str, str]) -> list[dict[str, Any]]:
        return [{"role": "user", "content": before + texts["text"] + after}]

    return chat_form(parts, ["text"], messages)


def _label_ids(parts: EncoderParts, form: PromptForm, label: str) -> list[int]:
    """Returns the tokens of a label behind the prompt: after a word, they begin with a space."""
    spaced = form.pieces[-1] and not form.pieces[-1][-1].isspace() and not form.opens_reply
    text = f" {label.strip()}" if spaced else label.strip()
    found = parts.tokenizer.encode(text, add_special_tokens=False, parse_special=False)
    if not label.strip() or not found:
        raise ParameterError(f"the label {label!r} has no token")
    return found


def _log_probabilities(rows: Floats) -> Floats:
    """Returns the logarithms of the probabilities of all tokens, by rows of logits."""
    shifted = rows - rows.max(-1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result
