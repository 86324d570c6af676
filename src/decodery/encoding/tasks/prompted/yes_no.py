"""Asks a decoder whether a document answers a query: the score is how much likelier yes is than no.

Zhang et al., Qwen3 Embedding (2025).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.input_errors import numbered
from decodery.encoding.tasks.head_scores import head_scores
from decodery.encoding.tasks.inputs import checked_text
from decodery.encoding.tasks.prompted.prompt_form import PromptForm, chat_form, read_prompt
from decodery.encoding.text_batches import TokenText
from decodery.encoding.texts import Long
from decodery.encoding.vectors.sentence_folder import read_prompts
from decodery.errors import ModelError, ParameterError
from decodery.models.checkpoint_keys import CheckpointKeys
from decodery.weights.formats.safetensors import read_json_file
from decodery.weights.formats.sentence_modules import modules_of

JUDGE = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided."
    ' Note that the answer can only be "yes" or "no".'
)
TASK = "Given a web search query, retrieve relevant passages that answer the query"
"""What a query asks for, if the caller and the folder do not say it."""
NAMES = "query", "document"


def has_form_of_pairs(parts: EncoderParts) -> bool:
    """True if the model's chat template has a role for the query and one for the document."""
    template = parts.tokenizer.chat_template or ""
    return all(any(f"{quote}{name}{quote}" in template for quote in "'\"") for name in NAMES)


def pair_form(parts: EncoderParts, instruction: str | None) -> PromptForm:
    """Returns the prompt of a query and a document.

    `instruction` says what a query asks for (None: the folder's default prompt, or else the template's or
    `TASK`). Raises `ModelError` without a chat template, and `ParameterError` for an instruction that is no
    text.
    """
    if instruction is not None and not isinstance(instruction, str):
        raise ParameterError(f"instruction must be a text, not {type(instruction).__name__}")
    if instruction is None:
        prompts, default = read_prompts(parts.folder)
        instruction = None if default is None else prompts[default]

    def messages(texts: Mapping[str, str]) -> list[dict[str, Any]]:
        if has_form_of_pairs(parts):
            system = [] if instruction is None else [{"role": "system", "content": instruction}]
            return [*system, *({"role": name, "content": texts[name]} for name in NAMES)]
        asked = (
            f"<Instruct>: {TASK if instruction is None else instruction}\n"
            f"<Query>: {texts['query']}\n<Document>: {texts['document']}"
        )
        return [{"role": "system", "content": JUDGE}, {"role": "user", "content": asked}]

    return chat_form(parts, NAMES, messages)


def pair_texts(
    parts: EncoderParts, pairs: Sequence[tuple[str, str]], *, instruction: str | None, long: Long
) -> list[TokenText]:
    """Returns what the model reads of each pair of a query and a document; only a document is cut."""
    form = pair_form(parts, instruction)
    found = []
    for index, (query, document) in enumerate(pairs):
        with numbered(index, len(pairs), "document"):
            texts = {"query": checked_text(query, "the query")}
            texts["document"] = checked_text(document, "each document")
            ids, lost = read_prompt(parts, form, texts, cut="document", long=long)
        found.append(TokenText(tuple(ids), (0,) * len(ids), ((0, len(ids)),), lost))
    return found


def answer_logits(
    parts: EncoderParts, texts: Sequence[TokenText], answers: Sequence[str] | None
) -> list[float]:
    """Returns the logit of the first answer behind each text, less that of the second one if there is one."""
    wanted = answer_tokens(parts, answers)
    found = [0.0] * len(texts)
    for index, rows in head_scores(parts, "next_token", texts, [[len(text.ids) - 1] for text in texts]):
        logits = [float(rows[0][token]) for token in wanted]
        found[index] = logits[0] - sum(logits[1:])
    return found


def answer_tokens(parts: EncoderParts, answers: Sequence[str] | None) -> tuple[int, ...]:
    """Returns the tokens of the answers yes and no, or of yes alone.

    `answers` are their texts (None: the tokens of the folder's LogitScore, else "yes" and "no"). Raises
    `ParameterError` for a text that is not one token.
    """
    if answers is None:
        stored = _stored_answers(parts)
        if stored is not None:
            return stored
    listed = ["yes", "no"] if answers is None else answers
    if isinstance(listed, str) or not 1 <= len(listed) <= 2:
        raise ParameterError('answers must be one text or two, such as ("yes", "no")')
    return tuple(_token(parts, text) for text in listed)


def _token(parts: EncoderParts, text: str) -> int:
    if not isinstance(text, str):
        raise ParameterError(f"each of the answers must be a text, not {type(text).__name__}")
    ids = parts.tokenizer.encode(text, add_special_tokens=False, parse_special=False)
    if len(ids) != 1:
        raise ParameterError(
            f"the answer {text!r} has {len(ids)} tokens in this vocabulary, and an answer is one: choose"
            " others with answers="
        )
    return ids[0]


def _stored_answers(parts: EncoderParts) -> tuple[int, ...] | None:
    """Returns the tokens that the folder's LogitScore compares; None if it has none."""
    folder = next((folder for kind, folder in modules_of(parts.folder) if kind == "LogitScore"), None)
    if folder is None:
        return None
    keys = CheckpointKeys(read_json_file(folder / "config.json"), str(folder / "config.json"))
    names = ["true_token_id", *(["false_token_id"] if keys.has("false_token_id") else [])]
    found = tuple(keys.count(name, least=0) for name in names)
    if max(found) >= parts.model.vocab_size:
        raise ModelError(f"{keys.source} names token {max(found)}, which the vocabulary does not have")
    return found
