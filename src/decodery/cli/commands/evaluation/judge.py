"""Implements `decodery eval judge`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from filelock import FileLock, Timeout

from decodery.cli.commands.evaluation.run import shown
from decodery.cli.flags.judge_options import JudgeOptions
from decodery.cli.flags.model_options import ModelOptions
from decodery.cli.input_text import file_text
from decodery.cli.load_llm import load
from decodery.client.client import Client
from decodery.errors import ParameterError
from decodery.evaluation.judge.answer_files import pairs_of, read_answers, read_votes
from decodery.evaluation.judge.judging_model import JudgingModel
from decodery.evaluation.judge.pairwise import PairwiseResult, Rule, agreements, compare, most_judges
from decodery.evaluation.judge.rubric import Marked, Rubric, mark
from decodery.evaluation.runs.answer_store import AnswerStore
from decodery.evaluation.runs.run_folder import plain_scores
from decodery.evaluation.subject import Subject
from decodery.metrics.score import Score
from decodery.progress import counting

VERDICTS = "verdicts.jsonl"
Answers = Mapping[str, tuple[str, str]]


def judge(answers: Sequence[Path], judges: Sequence[str], how: JudgeOptions) -> None:
    """Judges answers and prints what was found. Raises `ParameterError` before a model loads."""
    wanted = 1 if how.rubric is not None else 2
    if len(answers) != wanted:
        raise ParameterError(
            f"give {wanted} sets of answers, not {len(answers)}: two are compared, one gets marks by --rubric"
        )
    if not judges:
        raise ParameterError("name a judge: --judge MODEL, or --judge http://localhost:8000")
    if how.inconsistent not in get_args(Rule):
        raise ParameterError(f"inconsistent must be {' or '.join(get_args(Rule))}, not {how.inconsistent!r}")
    read = [dict(islice(read_answers(path).items(), how.limit)) for path in answers]
    with _store(how.out) as store:
        if how.rubric is not None:
            _marks(read[0], judges, Rubric(file_text(Path(how.rubric)), how.best), how, store)
        else:
            _pairs(read, judges, how, store)


def _pairs(
    read: Sequence[Mapping[str, tuple[str, str]]],
    judges: Sequence[str],
    how: JudgeOptions,
    store: AnswerStore,
) -> None:
    comparisons = pairs_of(*read)
    ids = [one.id for one in comparisons]
    votes = read_votes(Path(how.votes), ids) if how.votes is not None else {}
    rule: Rule = "half" if how.inconsistent == "half" else "excluded"
    found = []
    for name in judges:
        with _bar(name, 2 * len(comparisons)) as advance:
            found.append(compare(_opened(name, how), comparisons, store, rule=rule, advance=advance))
    voters = {one.judge: {judged.id: judged.result for judged in one.judged} for one in found}
    kappas = agreements({**voters, **votes})
    if how.json:
        print(json.dumps(_plain(found, votes, kappas), ensure_ascii=False))
        return
    for one in found:
        print(f"{one.judge}: {len(one.judged)} pairs")
        print("  " + ", ".join(f"{name} {count}" for name, count in one.counts.items()))
        print(f"  first wins   {shown(one.win_rate)}")
        print(f"  shown first  {shown(one.first_shown)}")
    if len(found) > 1:
        results = list(most_judges(found).values())
        print("most judges: " + ", ".join(f"{name} {results.count(name)}" for name in sorted(set(results))))
    for (one_name, other_name), score in kappas.items():
        print(f"agreement of {one_name} and {other_name}: {shown(score)}")


def _marks(
    texts: Answers,
    judges: Sequence[str],
    rubric: Rubric,
    how: JudgeOptions,
    store: AnswerStore,
) -> None:
    found: list[Marked] = []
    for name in judges:
        with _bar(name, len(texts)) as advance:
            found.append(mark(_opened(name, how), rubric, texts, store, advance=advance))
    if how.json:
        plain = {
            one.judge: {
                **plain_scores({"mark": one.score}),
                "marks": one.marks,
                "distribution": one.distribution,
            }
            for one in found
        }
        print(json.dumps(plain, ensure_ascii=False))
        return
    for one in found:
        print(f"{one.judge}: {len(one.marks)} answers")
        print(f"  mean  {shown(one.score)}")
        print("  " + ", ".join(f"{number}: {count}" for number, count in one.distribution.items()))


def _plain(
    found: Sequence[PairwiseResult],
    votes: Mapping[str, Mapping[str, str]],
    kappas: Mapping[tuple[str, str], Score],
) -> dict[str, Any]:
    """Returns all that was found as plain values of JSON."""
    return {
        "judges": {
            one.judge: {
                "counts": dict(one.counts),
                **plain_scores({"win_rate": one.win_rate, "first_shown": one.first_shown}),
                "verdicts": {judged.id: list(judged.verdicts) for judged in one.judged},
                "results": {judged.id: judged.result for judged in one.judged},
            }
            for one in found
        },
        "majority": most_judges(found),
        "votes": {voter: dict(of) for voter, of in votes.items()},
        "agreement": [
            {"voters": [one, other], **plain_scores({"kappa": score})}
            for (one, other), score in kappas.items()
        ],
    }


def _opened(name: str, how: JudgeOptions) -> JudgingModel:
    """Opens a judge. Raises `DecoderyError` if a server does not answer."""
    instructions = None if how.instructions is None else file_text(Path(how.instructions))
    if name.startswith(("http://", "https://")):
        client = Client(name)
        return JudgingModel(name, client, {"server": name, "model": client.name}, how.reasons, instructions)
    llm = load(ModelOptions(model=name))
    return JudgingModel(name, llm, Subject(llm, chat=True).identity, how.reasons, instructions)


@contextmanager
def _store(out: str | None) -> Iterator[AnswerStore]:
    """Yields where verdicts are kept, which no other process uses meanwhile."""
    if out is None:
        yield AnswerStore()
        return
    folder = Path(out)
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(folder / ".lock", timeout=0))
            store = stack.enter_context(closing(AnswerStore(folder / VERDICTS)))
        except Timeout as error:
            raise ParameterError(f"another process judges in {folder}") from error
        except OSError as error:
            raise ParameterError(f"{folder} cannot be written: {error.strerror or error}") from error
        yield store


def _bar(name: str, total: int) -> AbstractContextManager[Callable[[], None]]:
    return counting(name, total) if sys.stderr.isatty() else nullcontext(lambda: None)
