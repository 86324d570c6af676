"""Implements `decodery generate --chat --tools`: prints a reply that may call functions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decodery.cli.commands.generate import conversation, heading, warn
from decodery.cli.flags.generation_flags import GenerationFlags
from decodery.cli.flags.model_options import TextModelOptions
from decodery.cli.input_text import file_text
from decodery.cli.load_text_model import load
from decodery.cli.output_json import output_as_json
from decodery.cli.terminal import emit, emit_json
from decodery.errors import ParameterError, RequestError
from decodery.llm import LLM

CHOICES = ("auto", "none", "required")


def call_tools(
    prompt: str,
    flags: GenerationFlags,
    options: TextModelOptions,
    *,
    tools: Path,
    tool_choice: str,
    system: str | None,
    template: Mapping[str, Any],
    as_json: bool,
) -> None:
    """Prints the replies to a message: their text, then each call of a function as one line of JSON.

    `tools` is a file with a list of declarations in OpenAI's form. `tool_choice` is one of `CHOICES` or the
    name of a function. `template` has the arguments of `chat_prompt`. Raises
    `ParameterError` if the model is that of a server, whose routes take tools.
    """
    flags.params.check_conversation()
    declared = read_tools(tools)
    llm = load(options)
    if not isinstance(llm, LLM):
        raise ParameterError("tools are for a model that runs here: a server takes them in its own routes")
    params = flags.params_over(llm.default_params)
    choice: Any = tool_choice
    if tool_choice not in CHOICES:
        choice = {"type": "function", "function": {"name": tool_choice}}
    messages = conversation(system, prompt)
    [output] = llm.chat(messages, params, tools=declared, tool_choice=choice, **template)
    warn(output.warnings)
    if as_json:
        emit_json({"prompt": prompt, **output_as_json(output, llm.tokenizer)})
    else:
        for place, completion in enumerate(output.completions):
            heading(place, len(output.completions))
            if completion.text:
                emit(completion.text + ("" if completion.text.endswith("\n") else "\n"))
            for call in completion.tool_calls:
                emit(json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False) + "\n")
    if output.error is not None:
        raise RequestError(output.error)


def read_tools(path: Path) -> list[dict[str, Any]]:
    """Returns the declarations in a file of JSON; one alone need not be in a list."""
    try:
        found = json.loads(file_text(path))
    except ValueError:
        raise ParameterError(f"tools must be JSON, and {path} is not") from None
    return found if isinstance(found, list) else [found]
