"""Defines tasks in which a model makes another text of a text: a summary or a translation.

Hermann et al., Teaching Machines to Read and Comprehend (2015), whose articles CNN/DailyMail has; Narayan et
al., Don't Give Me the Details, Just the Summary! (2018), XSum; Bojar et al., Findings of the 2016 Conference
on Machine Translation (2016).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from decodery.decoding.request.params import GenerationParams
from decodery.errors import ParameterError
from decodery.evaluation.contract import Document, TaskData
from decodery.evaluation.generation_task import AnswerRow
from decodery.evaluation.layouts.languages import named_language
from decodery.evaluation.layouts.splits import Splits
from decodery.evaluation.layouts.tables import Row
from decodery.evaluation.reference_task import ReferenceTask
from decodery.evaluation.text_scores import ROUGE, TextScoring
from decodery.evaluation.variant import Variant
from decodery.metrics.translation import Tokenizer

# The columns of CNN/DailyMail, XSum, SAMSum, BillSum and of scientific papers.
ARTICLES = ("article", "document", "dialogue", "text")
SUMMARIES = ("highlights", "summary", "abstract")
# Languages without spaces between words, which sacrebleu's 13a does not find; codes of ISO 639-1 and 639-3.
TOKENIZERS: dict[str, Tokenizer] = {
    **dict.fromkeys(("zh", "zho", "cmn", "yue", "wuu", "lzh"), "zh"),
    **dict.fromkeys(("ja", "jpn", "th", "tha", "lo", "lao", "my", "mya", "km", "khm", "bo", "bod"), "char"),
}


@dataclass(frozen=True, slots=True)
class TranslationTask(ReferenceTask):
    """Holds the task of translating, once it is said from which language into which."""

    def varied(self, variant: Variant) -> TranslationTask:
        """Returns the task between two languages, over another split, or with longer texts.

        Raises `ParameterError` for one language alone, and for a language without a name.
        """
        codes = (variant.source_language, variant.target_language)
        rest = replace(variant, source_language=None, target_language=None)
        found = ReferenceTask.varied(self, rest)
        if codes == (None, None):
            return found
        if codes[0] is None or codes[1] is None:
            raise ParameterError(f"{self.name} needs both --source-language and --target-language")
        source, target = named_language(codes[0]), named_language(codes[1])
        return replace(
            found,
            reader=partial(_read_pairs, source, target),
            row=partial(_translation, source, target),
            scoring=replace(self.scoring, tokenize=_tokenizer(target[0])),
        )


def _tokenizer(code: str) -> Tokenizer:
    """Returns how texts are cut into words in a language, such as zh, zh-CN or zho_Hans."""
    return TOKENIZERS.get(re.split("[-_]", code)[0].lower(), "13a")


def _summary(document: Document) -> AnswerRow:
    fields = document.fields
    question = f"Summarize the following article:\n\n{fields['article']}\n\nSummary:"
    return AnswerRow(question, tuple(fields["summaries"]), fields["summaries"][0])


def _article(row: Row, place: str, group: str) -> Document:
    article, summary = (
        next((row[name] for name in names if row.get(name) is not None), None)
        for names in (ARTICLES, SUMMARIES)
    )
    if not isinstance(article, str) or summary is None:
        raise ParameterError(
            f"{place} needs a text ({', '.join(ARTICLES)}) and a summary ({', '.join(SUMMARIES)});"
            f" it has {', '.join(map(str, row))}"
        )
    if not article.strip():
        raise ParameterError(f"{place}: what is summarised is empty")
    fields = {"article": article, "summaries": _references(place, "the summary", summary)}
    return Document(str(row.get("id") or place), fields, group)


def _translation(source: tuple[str, str], target: tuple[str, str], document: Document) -> AnswerRow:
    known = document.fields["known"]
    question = f"{source[1]} phrase: {document.fields['text']}\n{target[1]} phrase:"
    return AnswerRow(question, tuple(known), known[0])


def _read_pairs(
    source: tuple[str, str], target: tuple[str, str], data: Path | None, split: str | None
) -> TaskData:
    splits = Splits(
        "translation",
        asked=("test", "validation"),
        shots=("validation", "train"),
        document=partial(_pair, source[0], target[0]),
    )
    languages = {"source language": "=".join(source), "target language": "=".join(target)}
    return replace(splits.read(data, split), settings=languages)


def _pair(source: str, target: str, row: Row, place: str, group: str) -> Document:
    texts = row.get("translation", row)
    if not isinstance(texts, dict):
        raise ParameterError(f"{place}: translation must have texts by language, and is {texts!r}")
    for code in (source, target):
        if not texts.get(code):
            raise ParameterError(f"{place} has no text in {code}; it has {', '.join(map(str, texts))}")
    if not isinstance(texts[source], str):
        raise ParameterError(f"{place}: what is translated must be a text, and is {texts[source]!r}")
    if not texts[source].strip():
        raise ParameterError(f"{place}: the text in {source} is empty")
    known = _references(place, f"the text in {target}", texts[target])
    return Document(str(row.get("id") or place), {"text": texts[source], "known": known}, group)


def _references(place: str, name: str, value: Any) -> list[str]:
    """Returns one reference or several. Raises `ParameterError` for one without text."""
    known = [value] if isinstance(value, str) else value
    if not isinstance(known, Sequence) or not known or not all(isinstance(one, str) for one in known):
        raise ParameterError(f"{place}: {name} must be a text or a list of texts")
    if not all(one.strip() for one in known):
        raise ParameterError(f"{place}: {name} is empty")
    return list(known)


def _unnamed(*given: Any) -> Any:
    raise ParameterError("translation needs --source-language and --target-language, such as en and de")


SUMMARISATION = ReferenceTask(
    "summarisation",
    Splits("summarisation", asked=("test", "validation"), shots=("train",), document=_article).read,
    _summary,
    TextScoring(ROUGE),
    params=GenerationParams(max_tokens=128, temperature=0, stop=("\n\n",)),
)
TRANSLATION = TranslationTask(
    "translation",
    _unnamed,
    _unnamed,
    TextScoring(("bleu", "chrf")),
    params=GenerationParams(max_tokens=256, temperature=0, stop=("\n",)),
    # In lm-eval's shots one space is the delimiter, and another one begins the target.
    delimiter="  ",
)
