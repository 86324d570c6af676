"""Checks the ids of prompts and continuations: nothing is lost at the join, and one token begins a prompt."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from decodery import LLM
from decodery.errors import ParameterError
from decodery.evaluation.contract import Continuation, Generation, Prompt, Shot, WholeText
from decodery.evaluation.generation_task import WRITTEN
from decodery.evaluation.rendering import Renderer
from decodery.evaluation.subject import Subject
from tests.evaluation.tiny import BOS, EOS, TEMPLATE, characters

ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEQ: \n."
NONE = "none; texts without a prompt follow the token of the beginning"


def renderer(llm: LLM, **options: Any) -> Renderer:
    return Subject(llm, **options).renderer


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    """Returns a model with the tokens a, b, c, space and ab."""
    return characters(tmp_path_factory.mktemp("merged"), "abc ", [("a", "b")])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    return characters(tmp_path_factory.mktemp("plain"), ALPHABET, template=TEMPLATE)


@pytest.mark.parametrize(
    ("context", "continuation", "prompt", "follows", "together"),
    [
        ("ca", "b", "ca", ["b"], False),
        ("c a", "bc", "c a", ["b", "c"], False),
        ("c", "ab", "c", ["ab"], True),
        ("ca", " b", "ca", [" ", "b"], True),
    ],
)
def test_no_character_of_a_continuation_is_lost_where_tokens_merge_across_the_join(
    merged: LLM, context: str, continuation: str, prompt: str, follows: list[str], together: bool
) -> None:
    found = renderer(merged).joined(Prompt(context, delimiter=""), continuation)
    decode = merged.tokenizer.decode
    assert decode(list(found.prompt_ids)) == prompt
    assert [decode([token]) for token in found.ids] == follows
    assert found.together is together


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((Prompt("Q: ", delimiter=""), "A"), (Prompt("Q:", delimiter=""), " A")),
        ((Prompt("Q:\n", delimiter=""), "A"), (Prompt("Q:", delimiter=""), "\nA")),
        ((Prompt("Q:", delimiter=" "), "A"), (Prompt("Q: ", delimiter=""), "A")),
        ((Prompt("Q: \n", delimiter=""), "A"), (Prompt("Q:", delimiter=" "), "\nA")),
        ((Prompt(" \n", delimiter=""), "A"), (Prompt("", delimiter=""), " \nA")),
        ((Prompt("Q", reply="B: ", delimiter=""), "A"), (Prompt("Q", reply="B:", delimiter=""), " A")),
    ],
)
@pytest.mark.parametrize("chat", [False, True])
def test_white_space_before_a_continuation_belongs_to_it(
    plain: LLM, one: Any, other: Any, chat: bool
) -> None:
    if chat and not one[0].reply:
        pytest.skip("a question of a conversation is a turn of its own")
    found = renderer(plain, chat=chat)
    assert found.joined(*one) == found.joined(*other)


def test_a_prompt_without_text_is_the_token_of_the_beginning(plain: LLM) -> None:
    found = renderer(plain).joined(Prompt("", delimiter=""), "ab")
    assert found.prompt_ids == (plain.tokenizer.bos_token_id,)
    assert len(found.ids) == 2


def test_a_continuation_without_tokens_is_an_error(plain: LLM) -> None:
    with pytest.raises(ParameterError, match="no tokens"):
        renderer(plain).joined(Prompt("a", delimiter=""), "")


@pytest.fixture(scope="module", params=["tokenizer", "template", "both", "neither"])
def begun(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, LLM]:
    who = request.param
    template = ("{{ bos_token }}" if who in ("template", "both") else "") + TEMPLATE
    folder = tmp_path_factory.mktemp(who)
    return who, characters(folder, ALPHABET, adds_bos=who in ("tokenizer", "both"), template=template)


def beginnings(llm: LLM, **options: Any) -> dict[str, int]:
    """Returns how many tokens of the beginning each kind of request has, all of which must come first."""
    subject, prompt = Subject(llm, **options), Prompt("a", (Shot("b", "c"),))
    requests = {
        "score": Continuation(prompt, "d"),
        "generate": Generation(prompt, WRITTEN.replace(max_tokens=8)),
        "whole": WholeText("abc"),
    }
    found = {}
    for name, request in requests.items():
        ids = subject.prepare(request, "1", 0)
        bos = llm.tokenizer.bos_token_id
        found[name] = ids.prompt_ids.count(bos)
        assert found[name] == 0 or ids.prompt_ids[0] == bos
        assert bos not in ids.ids
    return found


@pytest.mark.parametrize("chat", [False, True])
def test_prompts_begin_with_the_token_of_the_beginning_at_most_once(
    begun: tuple[str, LLM], chat: bool
) -> None:
    who, llm = begun
    adds = who == "both" or who == ("template" if chat else "tokenizer")
    expected = int(adds)
    found = beginnings(llm, chat=chat)
    assert found == {"score": expected, "generate": expected, "whole": 1}
    assert Subject(llm, chat=chat).settings["bos"] == ("once" if adds else NONE)


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("bos", [False, True])
def test_bos_is_the_same_rule_for_all_prompts_and_the_settings_name_the_token_before_whole_texts(
    begun: tuple[str, LLM], chat: bool, bos: bool
) -> None:
    _, llm = begun
    assert beginnings(llm, chat=chat, bos=bos) == {"score": int(bos), "generate": int(bos), "whole": 1}
    assert Subject(llm, chat=chat, bos=bos).settings["bos"] == ("once" if bos else NONE)


@pytest.mark.parametrize(("tokens", "said"), [({"eos_token": EOS}, "the end"), ({}, None)])
def test_the_settings_name_the_token_of_the_end_where_it_comes_before_whole_texts(
    tmp_path: Path, tokens: dict[str, str], said: str | None
) -> None:
    characters(tmp_path, "ab")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokens), encoding="utf-8")
    found = Renderer(LLM(tmp_path, dtype="float32", kv_memory="16MB").tokenizer, lambda messages: [])
    expected = NONE.replace("the beginning", said) if said else "none"
    assert found.describe_bos() == expected


def test_the_text_of_the_token_in_a_document_is_plain_text(plain: LLM, begun: tuple[str, LLM]) -> None:
    _, llm = begun
    ids = renderer(llm, bos=True).prompt_ids(Prompt(f"a{BOS}b"))
    assert ids.count(llm.tokenizer.bos_token_id) == 1


def test_a_text_has_description_shots_and_question_with_delimiter_and_separator(plain: LLM) -> None:
    prompt = Prompt("Q: d", (Shot("Q: a", "b"), Shot("Q: c", "d")), "see. ", delimiter=" ", separator="\n\n")
    assert renderer(plain).text(prompt) == "see. Q: a b\n\nQ: c d\n\nQ: d"


def test_a_conversation_has_shots_as_turns_and_no_delimiter(plain: LLM) -> None:
    prompt = Prompt("Q: d", (Shot("Q: a", "b"),), "see.")
    found = renderer(plain, chat=True)
    joined = found.joined(prompt, "A")
    decode = plain.tokenizer.decode
    assert decode(list(joined.prompt_ids)) == "ssee.uQ: aabuQ: dr"
    assert decode(list(joined.ids)) == "A"


@pytest.mark.parametrize(
    ("chat", "keep_end", "expected"), [(0, 0, "Q: d"), (0, 1, "Q: d \n"), (1, 1, "uQ: d \nr")]
)
def test_white_space_at_the_end_of_a_text_is_kept_where_that_is_asked(
    plain: LLM, chat: int, keep_end: int, expected: str
) -> None:
    ids = renderer(plain, chat=bool(chat)).prompt_ids(Prompt("Q: d \n"), keep_end=bool(keep_end))
    assert plain.tokenizer.decode(list(ids)) == expected


@pytest.mark.parametrize("without", ["refused", "left out"])
def test_a_description_begins_the_first_question_where_a_template_has_no_system_message(
    tmp_path: Path, without: str
) -> None:
    refuses = "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    leaves_out = "{% if m.role != 'system' %}{{ m.role[0] + m.content }}{% endif %}"
    template = TEMPLATE.replace("{{ m.role[0] + m.content }}", leaves_out)
    if without == "refused":
        template = template.replace("{% if m.role !=", refuses + "{% if m.role !=")
    llm = characters(tmp_path, ALPHABET, template=template)
    ids = renderer(llm, chat=True).prompt_ids(Prompt("Q: d", (Shot("Q: a", "b"),), "see. "))
    assert llm.tokenizer.decode(list(ids)) == "usee. Q: aabuQ: dr"


def test_a_reply_that_is_begun_keeps_its_delimiter_in_a_conversation(plain: LLM) -> None:
    prompt = Prompt("Q: d", (), reply="B:")
    found = renderer(plain, chat=True)
    assert plain.tokenizer.decode(list(found.joined(prompt, "A").ids)) == " A"
    assert plain.tokenizer.decode(list(found.prompt_ids(prompt))).endswith("aB:")


def test_bos_without_such_a_token_is_an_error(tmp_path: Path) -> None:
    llm = characters(tmp_path, "ab")
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text('{"eos_token": "</s>"}', encoding="utf-8")
    llm = LLM(tmp_path, dtype="float32", backend="torch", kv_memory="16MB")
    with pytest.raises(ParameterError, match="no token of the beginning"):
        Subject(llm, bos=True)


class Counting:
    """Encodes as a tokenizer does, and counts the characters."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.characters = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def encode(self, text: str, **options: Any) -> Any:
        self.characters += len(text)
        return self.tokenizer.encode(text, **options)


def test_the_shots_are_encoded_once_for_all_options_and_the_ids_are_those_of_the_whole_text(
    native_llm: LLM,
) -> None:
    counting = Counting(native_llm.tokenizer)
    rendered = Renderer(counting, native_llm.chat_prompt)
    rng = random.Random(0)
    for _ in range(200):
        texts = ["".join(rng.choices("ab cd1é.\n\t我'", k=rng.randint(1, 30))) for _ in range(12)]
        question, *options, delimiter = texts[5], *texts[6:10], rng.choice([" ", "", "\n"])
        shots = tuple(
            Shot(one, other.strip() or "x") for one, other in zip(texts[:5], texts[7:], strict=True)
        )
        separator = rng.choice(["\n\n", "\n", " "])
        prompt = Prompt(f"Q{question}", shots, delimiter=delimiter, separator=separator)
        for option in options:
            if not option.strip():
                continue
            found = rendered.joined(prompt, option)
            if found.together:
                whole = rendered.text(prompt) + delimiter + option
                assert (*found.prompt_ids, *found.ids) == rendered.whole_ids(whole)
    shots = tuple(Shot(f"What comes after number {i} of the row?", str(i + 1)) for i in range(50))
    prompt = Prompt("What comes after number 50 of the row?", shots)
    counting.characters = 0
    for option in "ABCD":
        rendered.joined(prompt, option)
    assert counting.characters < 1.5 * len(rendered.text(prompt))
