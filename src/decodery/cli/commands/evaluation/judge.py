"""Implements `decodery eval judge`."""

from __future__ import annotations

import json
import sys
from collections import Counter
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
from decodery.evaluation.judge.answer_files import pairs_of, read_answers, read_voted_pairs, read_votes
from decodery.evaluation.judge.judging_model import JudgingModel
from decodery.evaluation.judge.pairwise import (
    Comparison,
    PairwiseResult,
    Rule,
    agreements,
    most_judges,
    summary,
    verdicts_on,
)
from decodery.evaluation.judge.rubric import Marked, Rubric, mark
from decodery.evaluation.runs.answer_store import AnswerStore
from decodery.evaluation.runs.run_folder import plain_scores
from decodery.evaluation.subject import Subject
from decodery.metrics.score import Score
from decodery.progress import counting

VERDICTS = "verdicts.jsonl"
Answers = Mapping[str, tuple[str, str]]
# Comparisons by the names of their settings, which the answers of two files have none of.
Pairs = Mapping[tuple[str, str] | None, Sequence[Comparison]]
Votes = Mapping[str, Mapping[str, str]]


def judge(answers: Sequence[Path], judges: Sequence[str], how: JudgeOptions) -> None:
    """Judges answers and prints what was found. Raises `ParameterError` before a model loads."""
    _check(answers, judges, how)
    if how.rubric is not None:
        texts = dict(islice(read_answers(answers[0]).items(), how.limit))
        with _store(how.out) as store:
            _marks(texts, judges, Rubric(file_text(Path(how.rubric)), how.best), how, store)
        return
    pairs, known = _comparisons(answers, how)
    votes = {} if how.votes is None else read_votes(Path(how.votes), known)
    with _store(how.out) as store:
        _pairs(pairs, votes, judges, how, store)


def _check(answers: Sequence[Path], judges: Sequence[str], how: JudgeOptions) -> None:
    wanted = 1 if how.rubric is not None else 2
    if len(answers) != wanted and (answers or how.rubric is not None or how.votes is None):
        raise ParameterError(
            f"give {wanted} sets of answers, not {len(answers)}: two are compared, one gets marks by"
            " --rubric, and none is needed with --votes of a file that the page saved"
        )
    if not judges:
        raise ParameterError("name a judge: --judge MODEL, or --judge http://localhost:8000")
    if how.inconsistent not in get_args(Rule):
        raise ParameterError(f"inconsistent must be {' or '.join(get_args(Rule))}, not {how.inconsistent!r}")


def _comparisons(answers: Sequence[Path], how: JudgeOptions) -> tuple[Pairs, set[str]]:
    """Returns the comparisons to judge, and the ids of all that there are.

    They are those of two sets of answers, or of a file of votes that has the answers.
    """
    if answers:
        pairs = pairs_of(*map(read_answers, answers))
        return {None: pairs[: how.limit]}, {one.id for one in pairs}
    voted = read_voted_pairs(Path(str(how.votes)))
    known = {one.id for comparisons in voted.values() for one in comparisons}
    return {names: comparisons[: how.limit] for names, comparisons in voted.items()}, known


def _pairs(groups: Pairs, votes: Votes, judges: Sequence[str], how: JudgeOptions, store: AnswerStore) -> None:
    rule: Rule = "half" if how.inconsistent == "half" else "excluded"
    found: dict[tuple[str, str] | None, list[PairwiseResult]] = {names: [] for names in groups}
    every = [one for comparisons in groups.values() for one in comparisons]
    for name in judges:
        with _bar(name, 2 * len(every)) as advance:
            judged = {one.id: one for one in verdicts_on(_opened(name, how), every, store, advance=advance)}
        for names, comparisons in groups.items():
            found[names].append(summary(name, [judged[one.id] for one in comparisons], rule))
    own = {names: _among(votes, comparisons) for names, comparisons in groups.items()}
    if how.json:
        plain = {names: _plain(results, own[names]) for names, results in found.items()}
        pairs = [{"one": one, "other": other, **plain[one, other]} for one, other in filter(None, plain)]
        print(json.dumps(plain.get(None) or {"pairs": pairs}, ensure_ascii=False))
        return
    for names, results in found.items():
        if names is not None:
            print(f"first: {names[0]}\nsecond: {names[1]}")
        _show(results, own[names])


def _among(votes: Votes, comparisons: Sequence[Comparison]) -> dict[str, dict[str, str]]:
    """Returns the votes on some comparisons, of those who voted on one of them."""
    some = {voter: {one.id: of[one.id] for one in comparisons if one.id in of} for voter, of in votes.items()}
    return {voter: of for voter, of in some.items() if of}


def _kappas(found: Sequence[PairwiseResult], votes: Votes) -> dict[tuple[str, str], Score]:
    voters = {one.judge: {judged.id: judged.result for judged in one.judged} for one in found}
    return agreements({**voters, **votes})


def _show(found: Sequence[PairwiseResult], votes: Votes) -> None:
    """Prints what was found on the comparisons of one pair."""
    for one in found:
        print(f"{one.judge}: {len(one.judged)} pairs")
        print("  " + ", ".join(f"{name} {count}" for name, count in one.counts.items()))
        print(f"  first wins   {shown(one.win_rate)}")
        print(f"  shown first  {shown(one.first_shown)}")
    if len(found) > 1:
        results = list(most_judges(found).values())
        print("most judges: " + ", ".join(f"{name} {results.count(name)}" for name in sorted(set(results))))
    for voter, of in votes.items():
        counts = Counter(of.values())
        print(f"{voter}: " + ", ".join(f"{name} {counts[name]}" for name in ("one", "other", "tie")))
    for (one_name, other_name), score in _kappas(found, votes).items():
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


def _plain(found: Sequence[PairwiseResult], votes: Votes) -> dict[str, Any]:
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
            for (one, other), score in _kappas(found, votes).items()
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
