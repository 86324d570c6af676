"""Implements `decodery infill`: prints what a model writes in place of a mark in a text."""

from __future__ import annotations

from decodery.cli.commands.generate import warn, write_in_order
from decodery.cli.flags.generation_flags import GenerationFlags
from decodery.cli.flags.model_options import ModelOptions
from decodery.cli.load_llm import load
from decodery.cli.output_json import output_as_json
from decodery.cli.terminal import emit_json
from decodery.errors import RequestError


def infill(text: str, mark: str, flags: GenerationFlags, options: ModelOptions, *, as_json: bool) -> None:
    """Prints the completions of the place of `mark`, which the text holds once, or JSON at the end.

    Raises `RequestError` without a mark or with several, and `ModelError` if the model cannot fill in.
    """
    if not mark:
        raise RequestError("the mark is empty: give the text that marks the place")
    if text.count(mark) != 1:
        raise RequestError(
            f"the text holds the mark {mark!r} {text.count(mark)} times: write it once, at the place to fill"
        )
    prefix, _, suffix = text.partition(mark)
    llm = load(options)
    params = flags.params_over(llm.default_params)
    if as_json or params.best_of is not None:
        output = llm.infill(prefix, suffix, params)
        warn(output.warnings)
        emit_json({"prefix": prefix, "suffix": suffix, **output_as_json(output, llm.tokenizer)})
        if output.error is not None:
            raise RequestError(output.error)
        return
    ids, ends = llm.infill_prompt(prefix, suffix)
    params = params.replace(stop_token_ids=(*params.stop_token_ids, *ends))
    write_in_order(llm.stream(ids, params), params.streams)
