"""Checks the server with langchain-openai: a chain with memory, structured output, an agent with tools."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
import pytest

pytest.importorskip("langchain_openai")
pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


@tool
def add(a: Literal[1, 2, 3], b: Literal[4, 5]) -> int:
    """Add two numbers."""
    return a + b


@tool
def weather(city: Literal["Rome", "Oslo"]) -> str:
    """Tell the weather in a city."""
    return f"sunny in {city}"


class Verdict(pydantic.BaseModel):
    """Is a judgement."""

    kind: Literal["good", "bad"]
    points: Literal[1, 2, 3]


@pytest.fixture
def model(url: str) -> ChatOpenAI:
    return ChatOpenAI(
        model="default",
        base_url=f"{url}/v1",
        api_key="none",
        temperature=0,
        max_tokens=300,
        max_retries=0,
        seed=1,
    )  # type: ignore[call-arg]


def test_a_reply_plain_streamed_and_in_a_batch(model: ChatOpenAI) -> None:
    plain = model.invoke("Say hello.")
    assert plain.content
    assert plain.usage_metadata is not None
    joined = "".join(str(chunk.content) for chunk in model.stream("Say hello."))
    assert joined == plain.content
    assert [reply.content for reply in model.batch(["Say hello."] * 3)] == [plain.content] * 3


def test_a_chain_with_memory(model: ChatOpenAI) -> None:
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Be brief."), MessagesPlaceholder("history"), ("human", "{question}")]
    )
    memory = InMemoryChatMessageHistory()
    chain = RunnableWithMessageHistory(
        prompt | model, lambda _: memory, input_messages_key="question", history_messages_key="history"
    )
    options: Any = {"configurable": {"session_id": "1"}}
    first = chain.invoke({"question": "My name is Ada."}, options)
    second = chain.invoke({"question": "What is my name?"}, options)
    assert first.content
    assert second.usage_metadata["input_tokens"] > first.usage_metadata["input_tokens"]
    assert len(memory.messages) == 4


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(model: ChatOpenAI, method: Any) -> None:
    found = model.with_structured_output(Verdict, method=method).invoke("How is the weather?")
    assert isinstance(found, Verdict)


@pytest.mark.parametrize("choice", ["required", "any", "weather"])
def test_tools_that_must_be_called(model: ChatOpenAI, choice: str) -> None:
    bound = model.bind_tools([add, weather], tool_choice=choice)
    reply = bound.invoke("What is the weather in Rome?")
    assert isinstance(reply, AIMessage)
    assert reply.tool_calls
    assert {call["name"] for call in reply.tool_calls} <= {"add", "weather"}
    if choice == "weather":
        assert reply.tool_calls[0]["name"] == "weather"
    total: Any = None
    for chunk in bound.stream("What is the weather in Rome?"):
        total = chunk if total is None else total + chunk
    assert [(c["name"], c["args"]) for c in total.tool_calls] == [
        (c["name"], c["args"]) for c in reply.tool_calls
    ]


def test_an_agent_with_two_tools(model: ChatOpenAI) -> None:
    agent = create_agent(model, [add, weather])
    found = agent.invoke(
        {"messages": [{"role": "user", "content": "What is 2 and 5? Use a tool."}]}, {"recursion_limit": 25}
    )
    assert isinstance(found["messages"][-1], AIMessage)


def test_results_of_tools_go_back(model: ChatOpenAI) -> None:
    forced = model.bind_tools([add, weather], tool_choice="weather")
    messages: list[Any] = [{"role": "user", "content": "The weather in Oslo?"}]
    reply = forced.invoke(messages)
    results = [ToolMessage("sunny", tool_call_id=call["id"]) for call in reply.tool_calls]
    last = model.bind_tools([add, weather], tool_choice="none").invoke([*messages, reply, *results])
    assert last.content
    assert not last.tool_calls
