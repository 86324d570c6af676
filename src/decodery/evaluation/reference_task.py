"""Defines tasks in which a model writes a text that is compared with references, as a summary is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from decodery.evaluation.contract import Answer, Document, Outcome, Sample, TaskData
from decodery.evaluation.generation_task import WrittenTask
from decodery.evaluation.text_scores import TextScoring, score_texts, text_values
from decodery.metrics.score import Score, mean


@dataclass(frozen=True, slots=True)
class ReferenceTask(WrittenTask):
    """Holds a task whose texts are scored as `scoring` says. Its first metric is the main one."""

    scoring: TextScoring

    def read(self, data: Path | None) -> TaskData:
        """Reads the files. Raises `ParameterError` for a document without a reference."""
        found = WrittenTask.read(self, data)
        # A library that is missing is an error before the model writes, not after.
        text_values([""], [[""]], self.scoring)
        return replace(found, settings={**found.settings, **self._settings})

    def outcome(self, document: Document, answers: Sequence[Answer]) -> Outcome:
        """Scores the texts: a metric's value is the mean over the samples, and an empty text scores 0.

        The value of BLEU is that of the text alone.
        """
        gold = list(self.row(document).gold)
        texts, counts = self.texts(answers)
        texts = [text.strip() for text in texts]
        values = text_values(texts, [gold] * len(texts), self.scoring)
        means = {name: mean(of).value for name, of in values.items()}
        return Outcome(means, gold, texts[0], counts=counts, details={"texts": texts})

    def results(self, samples: Sequence[Sample]) -> Mapping[str, Score]:
        """Returns each metric over all texts; BLEU and chrF are those of the corpus."""
        rows = [
            (text, sample.outcome.gold, sample.document.cluster or sample.document.id)
            for sample in samples
            for text in sample.outcome.details["texts"]
        ]
        texts, golds, groups = (list(column) for column in zip(*rows, strict=True))
        return score_texts(texts, golds, self.scoring, groups=groups).scores

    @property
    def _settings(self) -> dict[str, str]:
        return {"tokenize": self.scoring.tokenize} if "bleu" in self.scoring.metrics else {}
