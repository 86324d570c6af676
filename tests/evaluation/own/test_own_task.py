"""Checks tasks that a TOML file describes, and that a fault in one names file and key."""

from __future__ import annotations

import re
import string
from pathlib import Path
from typing import Any

import pytest

from decodery.errors import ParameterError
from decodery.evaluation import run
from decodery.evaluation.contract import Continuation, Generation, Sample, WholeText
from decodery.evaluation.own.own_task import CHOICE as CHOICE_KEYS
from decodery.evaluation.own.own_task import GENERATION as GENERATION_KEYS
from decodery.evaluation.own.own_task import TEXT as TEXT_KEYS
from decodery.evaluation.tasks.registry import find_task
from decodery.evaluation.variant import Variant, varied
from tests.evaluation.tasks.test_choices_in_files import write_lines
from tests.evaluation.tiny import characters, scored, written

CHOICE = """
kind = "choice"
data = "rows.jsonl"
question = "Capital of {country}?"
options = ["{a}", "{b}"]
answer = "right"
answer_is = "text"
"""
ROWS = [
    {"n": "x1", "country": "France", "a": "Lyon", "b": "Paris", "right": "Paris", "list": ["Lyon", "Paris"]},
    {"n": "x2", "country": "{a}", "a": "Rome", "b": "Pisa", "right": "Rome", "list": ["Rome", "Pisa"]},
]
GENERATION = """
kind = "generation"
data = "rows.jsonl"
question = "Q: {country}?\\nA:"
answer = "right"
stop = "Q:"
"""


def task_of(tmp_path: Path, text: str, rows: list[dict[str, Any]] | None = None) -> Any:
    write_lines(tmp_path / "rows.jsonl", rows or ROWS)
    path = tmp_path / "capitals.toml"
    path.write_text(text, encoding="utf-8")
    return find_task(str(path))


def test_a_choice_fills_its_templates_from_the_columns(tmp_path: Path) -> None:
    task = task_of(tmp_path, CHOICE + 'id = "n"\nshots = 1\ndescription = "D {country}. "\n')
    assert (task.name, task.shots) == ("capitals", 1)
    data = task.read(None)
    assert [one.id for one in data.documents] == ["x1", "x2"]
    requests = task.requests(data.documents[0], [data.documents[1]], 1)
    assert [one.text for one in requests if isinstance(one, Continuation)] == ["Lyon", "Paris"]
    prompt = requests[0].prompt
    assert (prompt.question, prompt.description) == ("Capital of France?\nAnswer:", "D France. ")
    # Braces in a row are text.
    assert (prompt.shots[0].question, prompt.shots[0].answer) == ("Capital of {a}?\nAnswer:", "Rome")
    assert task.outcome(data.documents[0], scored(-2, -1)).values["acc"] == 1.0


@pytest.mark.parametrize(
    ("kind", "answer", "place"),
    [
        ("text", "Paris", 1),
        ("letter", "B", 1),
        ("letter", "b", 1),
        ("place", 1, 1),
        ("place", "0", 0),
        ("number", 2, 1),
        ("number", "1", 0),
        ("place", 1.0, 1),
    ],
)
def test_the_right_option_is_named_in_the_way_that_the_file_says(
    tmp_path: Path, kind: str, answer: Any, place: int
) -> None:
    text = CHOICE.replace('"text"', f'"{kind}"').replace('["{a}", "{b}"]', '"list"')
    task = task_of(tmp_path, text, [{**ROWS[0], "right": answer}])
    assert task.outcome(task.read(None).documents[0], scored(-1, -1)).gold == [place]


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("text", "Nice"),
        ("letter", "C"),
        ("place", 2),
        ("place", -1),
        ("number", 0),
        ("number", 3),
        ("place", "B"),
    ],
)
def test_an_answer_that_is_no_option_is_an_error(tmp_path: Path, kind: str, answer: Any) -> None:
    task = task_of(tmp_path, CHOICE.replace('"text"', f'"{kind}"'), [{**ROWS[0], "right": answer}])
    with pytest.raises(ParameterError, match=r"capitals.toml: answer is"):
        task.read(None)


def test_a_choice_with_letters_is_changed_by_flags_as_any_other(tmp_path: Path) -> None:
    task = task_of(
        tmp_path, CHOICE + 'show = "letters"\nmethod = "parse"\nending = "\\nReply:"\nmax_tokens = 9\n'
    )
    document = task.read(None).documents[0]
    (request,) = task.requests(document, (), 1)
    assert isinstance(request, Generation)
    assert request.params.max_tokens == 9
    assert request.prompt.question == "Capital of France?\nA. Lyon\nB. Paris\nReply:"
    numbers = varied(task, Variant(options="numbers", method="compare"))
    texts = [one.text for one in numbers.requests(document, (), 1) if isinstance(one, Continuation)]
    assert texts == ["1", "2"]


def test_one_stop_string_is_one_stop_and_not_its_letters(tmp_path: Path) -> None:
    task = task_of(tmp_path, GENERATION)
    (request,) = task.requests(task.read(None).documents[0], (), 1)
    assert isinstance(request, Generation)
    assert request.params.stop == ("Q:",)


@pytest.mark.parametrize(
    ("more", "right", "text", "value"),
    [
        ("", "Paris", " the Paris.\n", 1.0),
        ('metric = "exact_text"', "Paris", " paris", 0.0),
        ('metric = "exact_text"\nextract = "line"', "Paris", "Paris\nor so", 1.0),
        ('metric = "contains"', "Paris", "It is PARIS, I think", 1.0),
        ('metric = "contains"', ["Paris", "Rome"], "Rome!", 1.0),
        ('metric = "f1"', "a b c", "b c d e", pytest.approx(2 * 2 / 6)),
        ('metric = "numeric"', "$1,000.00", "it is 1000", 1.0),
        ('metric = "numeric"', 5, "between 3 and 5.0", 1.0),
        ('metric = "numeric"\npattern = "<(.*?)>"', 5, "<1> <5> 7", 1.0),
        ('pattern = "is (\\\\w+)"', "Paris", "It is Rome; no, it is Paris", 1.0),
    ],
)
def test_answers_are_extracted_and_judged(
    tmp_path: Path, more: str, right: Any, text: str, value: Any
) -> None:
    task = task_of(tmp_path, GENERATION + more + "\n", [{**ROWS[0], "right": right}])
    outcome = task.outcome(task.read(None).documents[0], written(text))
    assert list(outcome.values.values()) == [value]


def test_a_text_that_no_pattern_matches_is_unparsed(tmp_path: Path) -> None:
    task = task_of(tmp_path, GENERATION + 'pattern = "is (\\\\w+)"\n')
    outcome = task.outcome(task.read(None).documents[0], written("Paris"))
    assert (outcome.values["exact_match"], outcome.counts["unparsed"]) == (0.0, 1)


def test_shots_show_the_answer_or_another_template(tmp_path: Path) -> None:
    data = (task := task_of(tmp_path, GENERATION)).read(None).documents
    assert task.requests(data[0], [data[1]], 1)[0].prompt.shots[0].answer == "Rome"
    task = task_of(tmp_path, GENERATION + 'shown = "It is {right}."\n')
    assert task.requests(data[0], [data[1]], 1)[0].prompt.shots[0].answer == "It is Rome."


def test_texts_are_scored_whole(tmp_path: Path) -> None:
    task = task_of(tmp_path, 'kind = "text"\ndata = "rows.jsonl"\ntext = "{country}: {right}"\nname = "t"\n')
    documents = task.read(None).documents
    assert task.name == "t"
    assert task.requests(documents[0], (), 1) == [WholeText("France: Paris")]


def test_groups_are_those_of_a_column(tmp_path: Path) -> None:
    task = task_of(tmp_path, CHOICE + 'group = "a"\n')
    documents = task.read(None).documents
    assert [one.group for one in documents] == ["Lyon", "Rome"]
    samples = [Sample(one, task.outcome(one, scored(-2, -1))) for one in documents]
    assert task.results(samples)["acc"].value == 0.5


def test_data_given_in_the_call_takes_the_place_of_the_files(tmp_path: Path) -> None:
    task = task_of(tmp_path, CHOICE)
    other = write_lines(tmp_path / "other" / "dev.jsonl", ROWS[:1])
    assert len(task.read(other).documents) == 1
    assert len(varied(task, Variant(split="dev")).read(other.parent).documents) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "kind is missing"),
        ('kind = "choices"', "kind must be one of choice, generation, text: 'choices'"),
        ("kind = 3", "kind must be a text: 3"),
        (CHOICE + "shot = 3", "shot is unknown; did you mean shots?"),
        (CHOICE + "stop = 'x'", "stop is unknown"),
        (CHOICE + "shots = -1", "shots must be a whole number from 0 on: -1"),
        (CHOICE + "shots = true", "shots must be a whole number"),
        (CHOICE + 'shots = "3"', "shots must be a whole number"),
        (CHOICE + "first_shots = 1", "first_shots must be true or false: 1"),
        (CHOICE + "temperature = nan", "temperature must be a number"),
        (CHOICE + 'show = "marks"', "show must be one of texts, letters, numbers"),
        (CHOICE.replace("question", "#"), "question is missing"),
        (CHOICE.replace("options", "#"), "options is missing"),
        (CHOICE.replace('answer = "right"', ""), "answer is missing"),
        (CHOICE.replace("answer_is", "#"), "answer_is is missing"),
        (CHOICE.replace('["{a}", "{b}"]', "[1, 2]"), "options must be a text, or a list of texts"),
        (
            CHOICE.replace('["{a}", "{b}"]', '"a"'),
            "options names the column a, whose value is no list: 'Lyon'",
        ),
        (CHOICE.replace("{country}", "{land}"), "question names the column land, and a row has only"),
        (CHOICE.replace("{a}", "{list}"), "options names the column list, whose value is no text"),
        (CHOICE + 'id = "none"', "id names the column none"),
        (CHOICE + "description = 3", "description must be a text: 3"),
        (
            GENERATION + 'metric = "bleu"',
            "metric must be one of exact_match, exact_text, contains, numeric, f1",
        ),
        (GENERATION + "pattern = '('", "pattern is no regular expression"),
        (GENERATION + "pattern = 'x'\nextract = 'line'", "extract and pattern are both given"),
        (GENERATION.replace('"Q:"', "['']"), "stop must be a text, or a list of texts"),
        (GENERATION + 'metric = "numeric"', "answer has no number in a row: ('Paris',)"),
        ('kind = "text"\ndata = "rows.jsonl"', "text is missing"),
        ('kind = "text', "is not TOML"),
    ],
)
def test_a_fault_in_the_file_is_one_error_that_names_file_and_key(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(ParameterError, match=re.escape(said)) as raised:
        task_of(tmp_path, text).read(None)
    assert "capitals.toml" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_and_data_that_is_not_given_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"nothing.toml cannot be read"):
        find_task(str(tmp_path / "nothing.toml"))
    task = task_of(tmp_path, CHOICE.replace('data = "rows.jsonl"', ""))
    with pytest.raises(ParameterError, match="capitals needs --data"):
        task.read(None)


def test_the_example_of_the_documentation_runs(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "evaluation-tasks.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (row,) = re.findall(r'^`(\{"country".*\})`\.$', page, re.MULTILINE)
    (tmp_path / "capitals.toml").write_text(example, encoding="utf-8")
    (tmp_path / "capitals.jsonl").write_text(f"{row}\n{row.replace('France', 'Gaul')}\n", encoding="utf-8")
    llm = characters(tmp_path / "model", "".join(sorted({*row, *"?\n.:", *string.ascii_letters})))
    found = run(tmp_path / "capitals.toml", llm)
    assert (found.task, found.settings["shots"], found.results["acc"].counted) == ("capitals", 1, 2)


@pytest.mark.parametrize("text", [CHOICE, GENERATION, 'kind = "text"\ndata = "rows.jsonl"\ntext = "{a}"'])
def test_a_file_that_was_edited_is_another_setting(tmp_path: Path, text: str) -> None:
    before = task_of(tmp_path, text).read(None).settings
    assert task_of(tmp_path, f"# A remark.\n{text}").read(None).settings == before
    assert task_of(tmp_path, f"{text}\nversion = 1").read(None).settings != before


def test_an_edited_file_is_refused_in_a_used_folder(tmp_path: Path) -> None:
    llm = characters(tmp_path / "model", "".join(sorted({*string.ascii_letters, *"?\n.:{} "})))
    run(task_of(tmp_path, GENERATION + "max_tokens = 2"), llm, out=tmp_path / "out")
    changed = GENERATION.replace("Q: {country}?", "Say {country}") + "max_tokens = 2"
    with pytest.raises(ParameterError, match="with another form"):
        run(task_of(tmp_path, changed), llm, out=tmp_path / "out")


def test_the_documentation_names_every_key() -> None:
    page = (Path(__file__).parents[3] / "docs" / "evaluation-tasks.md").read_text(encoding="utf-8")
    for key in {*CHOICE_KEYS, *GENERATION_KEYS, *TEXT_KEYS} - {"kind"}:
        assert f"`{key}`" in page, key
