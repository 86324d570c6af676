"""Checks replies with tools and reasoning on tiny models, of which most write a given text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from decodery import (
    LLM,
    BeamSearch,
    Choice,
    GenerationParams,
    JsonSchema,
    ParameterError,
    PromptLookup,
    RequestError,
)
from decodery.collector import Collector
from decodery.outputs import Completion, RequestOutput
from decodery.text.chat.replies import join
from tests.conversations.conftest import ChatModel
from tests.conversations.models import CALLS, TOOLS, scripted
from tests.engine.runs import make_engine

QUESTION = [{"role": "user", "content": "Hi"}]
FORMS = (*CALLS, None)
WEATHER = ("get_weather", '{"place": "Ulm", "days": 2}')
GET = ("get", "{}")
NAMED = {"type": "function", "function": {"name": "get"}}


def written(llm: LLM, *calls: tuple[str, str]) -> str:
    """Returns calls as the model's format has them."""
    form = llm.intake.chat_request(QUESTION, GenerationParams(), tools=TOOLS).reply.tools
    assert form is not None
    return form.calls(calls)


def reply(llm: LLM, text: str, params: GenerationParams | None = None, **chat: Any) -> Completion:
    """Returns the reply of a model that writes this text where nothing bans it."""
    return llm.chat(QUESTION, scripted(llm.tokenizer, text, params), **chat)[0].completions[0]


def nested(levels: int) -> dict[str, Any]:
    """Returns a schema with so many properties within each other."""
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def calls_of(completion: Completion) -> list[tuple[str, str]]:
    return [(call.name, call.arguments) for call in completion.tool_calls]


def no_thought(llm: LLM, **fields: Any) -> GenerationParams:
    """Returns random drawing that does not begin with reasoning."""
    return GenerationParams(suppress_tokens=(llm.tokenizer.token_id("<think>"),), **fields)


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_a_call_under_auto_is_read_back(form: str | None, special: bool, chat_model: ChatModel) -> None:
    llm = chat_model(form, special=special)
    found = reply(llm, written(llm, WEATHER), tools=TOOLS)
    assert (found.text, calls_of(found), found.finish_reason) == ("", [WEATHER], "tool_calls")
    several = [WEATHER] if form == "llama" else [WEATHER, GET]
    found = reply(llm, "<think>hm</think>\n\n" + written(llm, WEATHER, GET), tools=TOOLS)
    assert (found.text, found.reasoning, calls_of(found)) == ("", "hm", several)


@pytest.mark.parametrize("form", ["hermes", "mistral", "mistral-arguments"])
def test_text_may_come_before_a_marked_call(form: str, chat_model: ChatModel) -> None:
    llm = chat_model(form)
    found = reply(llm, "Sure.\n" + written(llm, GET), tools=TOOLS)
    assert (found.text, calls_of(found), found.finish_reason) == ("Sure.\n", [GET], "tool_calls")


@pytest.mark.parametrize("form", FORMS)
def test_without_parallel_calls_nothing_is_generated_after_one(
    form: str | None, chat_model: ChatModel
) -> None:
    llm = chat_model(form)
    found = reply(llm, written(llm, WEATHER, GET), tools=TOOLS, parallel_tool_calls=False)
    assert calls_of(found) == [WEATHER]
    assert found.finish_reason == "tool_calls"
    visible = llm.tokenizer.decode(found.token_ids, skip_special_tokens=False)
    assert visible == written(llm, WEATHER)


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("choice", ["required", "any", NAMED, {"type": "function", "name": "get"}])
def test_a_required_call_matches_its_schema_or_is_cut(
    form: str | None, choice: Any, special: bool, chat_model: ChatModel
) -> None:
    llm = chat_model(form, special=special)
    ended = 0
    for seed in range(3):
        params = no_thought(llm, seed=seed, max_tokens=300)
        (found,) = llm.chat(QUESTION, params, tools=TOOLS, tool_choice=choice)[0].completions
        assert found.text == ""
        assert found.finish_reason in ("length", "stop" if isinstance(choice, dict) else "tool_calls")
        if found.finish_reason == "length":
            continue
        ended += 1
        for name, arguments in calls_of(found):
            assert name == "get" or not isinstance(choice, dict)
            values = json.loads(arguments)
            if name == "get_weather":
                assert set(values) == {"place", "days"}
                assert values["days"] in (1, 2)
                assert len(values["place"]) <= 8
        assert len(found.tool_calls) == 1 or (choice in ("required", "any") and form != "llama")
    assert ended


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("choice", ["required", "auto"])
def test_a_cut_call_ends_with_length(form: str | None, choice: str, chat_model: ChatModel) -> None:
    llm = chat_model(form)
    text = written(llm, WEATHER)
    whole = len(llm.tokenizer.encode(text, add_special_tokens=False))
    for count in (whole // 2, whole - 3):
        params = GenerationParams(max_tokens=count)
        assert reply(llm, text, params, tools=TOOLS, tool_choice=choice).finish_reason == "length"


@pytest.mark.parametrize("form", FORMS)
def test_a_reply_without_a_call_has_the_tokens_that_it_has_without_any_grammar(
    form: str | None, chat_model: ChatModel
) -> None:
    llm = chat_model(form)
    request = llm.intake.chat_request(QUESTION, GenerationParams(), tools=TOOLS)
    banned = tuple(llm.tokenizer.token_id(m) for m in ("<think>", "<tool_call>", "[TOOL_CALLS]"))
    for seed in range(4):
        params = GenerationParams(max_tokens=40, seed=seed, suppress_tokens=banned)
        for more in ({}, {"top_k": 20}, {"temperature": 0.0, "repetition_penalty": 1.3}):
            own = params.replace(**more)
            (plain,) = llm.generate(request.token_ids, own)[0].completions
            (found,) = llm.chat(QUESTION, own, tools=TOOLS)[0].completions
            assert found.token_ids == plain.token_ids
            assert not found.tool_calls


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("form", ["hermes", "mistral", "mistral-arguments"])
def test_under_none_a_call_cannot_open_and_text_passes(
    form: str, special: bool, chat_model: ChatModel
) -> None:
    llm = chat_model(form, special=special)
    found = reply(llm, written(llm, GET), tools=TOOLS, tool_choice="none")
    assert not found.tool_calls
    assert written(llm, GET)[:11] not in found.text
    assert reply(llm, "Hi you", tools=TOOLS, tool_choice="none").text == "Hi you"
    assert reply(llm, "Hi you", tool_choice="none").text == "Hi you"
    assert reply(llm, "Hi you", tools=[], tool_choice="auto").text == "Hi you"


def test_the_text_of_a_mark_spelled_by_characters_opens_a_call_too(chat_model: ChatModel) -> None:
    llm = chat_model("hermes")
    spelled = llm.tokenizer.encode("a<tool_call>", add_special_tokens=False, parse_special=False)
    rest = llm.tokenizer.encode(written(llm, GET).removeprefix("<tool_call>"), add_special_tokens=False)
    script = [*spelled, *rest]

    def follow(ids: list[int], logits: Any) -> Any:
        place = len(ids) - prompt
        return logits.index_fill(0, logits.new_tensor(script[place : place + 1]).long(), 1e4)

    prompt = len(llm.intake.chat_request(QUESTION, GenerationParams(), tools=TOOLS).token_ids)
    params = GenerationParams(temperature=0, logits_processors=(follow,), max_tokens=len(script))
    (found,) = llm.chat(QUESTION, params, tools=TOOLS)[0].completions
    assert (found.text, calls_of(found)) == ("a", [GET])


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("ending", ["", "<think>", "<think>\\n", "<think>\\n\\n</think>\\n\\n"])
def test_the_end_of_the_prompt_decides_where_a_reply_begins(
    ending: str, special: bool, chat_model: ChatModel
) -> None:
    llm = chat_model(ending=ending, special=special)
    text = "hm</think>\n\nHi"
    if "</think>" in ending or not ending:
        assert (reply(llm, text).text, reply(llm, text).reasoning) == (text, None)
    else:
        assert (reply(llm, text).text, reply(llm, text).reasoning) == ("Hi", "hm")


def test_a_reply_that_continues_reasoning_or_content_begins_there(chat_model: ChatModel) -> None:
    llm = chat_model()
    for start, content, reasoning in (("<think>h", "Hi", "m"), ("<think>h</think>A", "m</think>Hi", None)):
        messages = [*QUESTION, {"role": "assistant", "content": start}]
        params = scripted(llm.tokenizer, "m</think>Hi")
        (found,) = llm.chat(messages, params, continue_final_message=True)[0].completions
        assert (found.text, found.reasoning) == (content, reasoning)
        prompt = llm.intake.chat_text(messages, continue_final_message=True)
        assert prompt.endswith(start)


@pytest.mark.parametrize("form", FORMS)
def test_stops_look_at_visible_content_alone(form: str | None, chat_model: ChatModel) -> None:
    llm = chat_model(form)
    call = written(llm, WEATHER)
    for stop in ({"stop": ("Ulm", "\n")}, {"stop_regex": r"Ulm|\n"}):
        found = reply(llm, f"<think>Ulm\n</think>\n\n{call}", GenerationParams(**stop), tools=TOOLS)
        assert (found.reasoning, calls_of(found), found.finish_reason) == ("Ulm", [WEATHER], "tool_calls")
        found = reply(llm, "<think>Ulm\n</think>\n\nIn Ulm it rains", GenerationParams(**stop), tools=TOOLS)
        # A match of a regular expression stays in the text.
        visible = "In " if "stop" in stop else "In Ulm"
        assert (found.reasoning, found.text, found.stop_reason) == ("Ulm", visible, "Ulm")
        kept = GenerationParams(include_stop=True, **stop)
        assert reply(llm, "<think>Ulm</think>\n\nIn Ulm it", kept, tools=TOOLS).text == "In Ulm"


def test_a_stop_that_begins_before_a_call_does_not_take_its_mark(chat_model: ChatModel) -> None:
    llm = chat_model("hermes")
    text = "ok <" + written(llm, GET)
    found = reply(llm, text, GenerationParams(stop=("<<tool_call>",)), tools=TOOLS)
    assert (found.text, calls_of(found)) == ("ok <", [GET])


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("ending", ["", "<think>"])
@pytest.mark.parametrize("strategy", [None, BeamSearch(2), PromptLookup()])
def test_a_response_format_begins_after_reasoning(
    ending: str, strategy: Any, special: bool, chat_model: ChatModel
) -> None:
    llm = chat_model(ending=ending, special=special)
    params = GenerationParams(grammar=Choice(("yes", "no")), max_tokens=60)
    more: dict[str, Any] = {"speculate": strategy} if isinstance(strategy, PromptLookup) else {}
    if isinstance(strategy, BeamSearch):
        more = {"strategy": strategy}
    start = "" if ending else "<think>"
    text = f"{start}ab {{</think>\n\nyes"
    if isinstance(strategy, BeamSearch):
        params = params.replace(max_tokens=len(llm.tokenizer.encode(text, add_special_tokens=False)))
    found = reply(llm, text, params.replace(**more))
    assert (found.reasoning, found.text, found.finish_reason) == ("ab {", "yes", "stop")
    found = reply(llm, f"{start}ab</think>maybe", params.replace(**more))
    assert found.reasoning == "ab"
    assert found.text.strip() in ("yes", "no")


def test_reasoning_cannot_end_a_reply_that_must_match(chat_model: ChatModel) -> None:
    llm = chat_model(ending="<think>")
    params = GenerationParams(grammar=Choice(("yes", "no")), max_tokens=20)
    found = reply(llm, "ab", params)
    assert found.finish_reason == "length"
    assert found.reasoning is not None
    assert not found.text


def test_a_response_format_and_tools_leave_the_model_both(chat_model: ChatModel) -> None:
    llm = chat_model("hermes")
    params = GenerationParams(grammar=JsonSchema({"enum": [17]}))
    assert reply(llm, "17", params, tools=TOOLS).text == "17"
    assert calls_of(reply(llm, written(llm, GET), params, tools=TOOLS)) == [GET]
    assert reply(llm, "hello", params, tools=TOOLS).text in ("17", "")


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("budget", [0, 1, 3])
@pytest.mark.parametrize("drafts", [None, PromptLookup()])
def test_reasoning_is_closed_after_its_budget_and_content_is_never_cut(
    drafts: Any, budget: int, special: bool, chat_model: ChatModel
) -> None:
    for ending, start in (("<think>", ""), ("", "<think>")):
        llm = chat_model(ending=ending, special=special)
        params = GenerationParams(max_tokens=40, speculate=drafts)
        found = reply(llm, start + "abcdefgh", params, thinking_token_budget=budget)
        assert (found.reasoning or "") == "abcdefgh"[:budget]
        assert reply(llm, start + "a</think>Hello", params, thinking_token_budget=9).text == "Hello"
    assert reply(chat_model(), "Hello you", thinking_token_budget=0).text == "Hello you"


def test_a_budget_closes_reasoning_before_a_required_call(chat_model: ChatModel) -> None:
    llm = chat_model("hermes", "<think>")
    params = GenerationParams(seed=2, max_tokens=300)
    (found,) = llm.chat(QUESTION, params, tools=TOOLS, tool_choice=NAMED, thinking_token_budget=5)[
        0
    ].completions
    assert [name for name, _ in calls_of(found)] == ["get"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize("drafts", [PromptLookup(), None])
def test_streams_of_n_replies_join_to_the_plain_ones(
    form: str | None, choice: str, drafts: Any, chat_model: ChatModel
) -> None:
    llm = chat_model(form)
    params = GenerationParams(n=3, seed=5, max_tokens=80, speculate=drafts, stop=("e", "\n"))
    plain = llm.chat(QUESTION, params, tools=TOOLS, tool_choice=choice)[0].completions
    request = llm.intake.chat_request(QUESTION, params, tools=TOOLS, tool_choice=choice)
    prepared = llm.intake.prepare_chat(request)
    engine = make_engine(llm.model, pages=500, end_ids=llm.tokenizer.eos_token_ids)
    prepared.add_with(engine.add)
    output = RequestOutput(None, prepared.token_ids, [], 5)
    collector = Collector(output, prepared.params, prepared.text_state, prepared.end_ids, None)
    parsers = [request.reply.parser() for _ in range(3)]
    parts: list[list[Any]] = [[], [], []]
    while engine.has_work():
        for event in engine.step():
            collector.take(event)
        while collector.pending:
            added = collector.pending.popleft()
            parts[added.index] += parsers[added.index].feed(added.text)
            if added.finish_reason is not None:
                parts[added.index] += parsers[added.index].finish(added.finish_reason)
    for own, parser, completion in zip(parts, parsers, plain, strict=True):
        joined = join(own, parser.finish_reason)
        assert (joined.content or "", joined.reasoning) == (completion.text, completion.reasoning)
        assert [(c.name, c.arguments) for c in joined.tool_calls] == calls_of(completion)
        assert joined.finish_reason == completion.finish_reason


def test_beams_call_tools(chat_model: ChatModel) -> None:
    llm = chat_model("hermes")
    params = GenerationParams(strategy=BeamSearch(3), max_tokens=200)
    (found, *_) = llm.chat(QUESTION, params, tools=TOOLS, tool_choice="required")[0].completions
    assert found.finish_reason in ("tool_calls", "length")
    text = written(llm, GET)
    count = len(llm.tokenizer.encode(text, add_special_tokens=False))
    found = reply(llm, text, params.replace(max_tokens=count + 1), tools=TOOLS)
    assert calls_of(found) == [GET]


@pytest.mark.parametrize(
    ("chat", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "no"}}, "tools": TOOLS}, "tool_choice"),
        ({"tool_choice": "maybe", "tools": TOOLS}, "tool_choice"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "web"}]}, "tools[0]"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools[1].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        (
            {
                "tools": [
                    TOOLS[1],
                    {"type": "function", "function": {"name": "x", "parameters": {"type": "string"}}},
                ]
            },
            "tools[1].function.parameters",
        ),
        (
            {
                "tools": [
                    TOOLS[1],
                    {"type": "function", "function": {"name": "x", "parameters": {"properties": {"a": "b"}}}},
                ]
            },
            "tools[1].function.parameters",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "x", "parameters": nested(100)}}]},
            "tools[0]",
        ),
        ({"thinking_token_budget": -1}, "thinking_token_budget"),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
    ],
)
def test_faults_of_tools_are_named(chat: dict[str, Any], param: str, chat_model: ChatModel) -> None:
    with pytest.raises((RequestError, ParameterError)) as caught:
        chat_model("hermes").chat(QUESTION, GenerationParams(max_tokens=1), **chat)
    assert caught.value.param == param
    assert reply(chat_model("hermes"), "Hi", tools=TOOLS).text == "Hi"


@pytest.mark.parametrize("form", FORMS)
def test_every_way_to_a_prompt_gives_the_same_tokens(form: str | None, chat_model: ChatModel) -> None:
    llm = chat_model(form)
    messages = [{"role": "developer", "content": "Be kind."}, *QUESTION]
    ids = llm.chat_prompt(messages, tools=TOOLS)
    for choice in ("auto", "none", "required", NAMED):
        request = llm.intake.chat_request(messages, GenerationParams(), tools=TOOLS, tool_choice=choice)
        assert request.token_ids == ids
        assert llm.intake.prepare_chat(request).token_ids == ids
    text = llm.intake.chat_text(messages, tools=TOOLS)
    assert llm.tokenizer.encode(text, add_special_tokens=False) == ids
    assert llm.chat_prompt(messages, tools=[]) == llm.chat_prompt(messages)


def test_several_conversations_are_answered_in_order(chat_model: ChatModel) -> None:
    llm = chat_model("hermes")
    both = [QUESTION, [*QUESTION, {"role": "assistant", "content": "a"}, *QUESTION]]
    each = [scripted(llm.tokenizer, written(llm, GET)), scripted(llm.tokenizer, "<think>a</think>b")]
    first, second = (output.completions[0] for output in llm.chat(both, each, tools=TOOLS))
    assert (calls_of(first), second.reasoning, second.text) == ([GET], "a", "b")
