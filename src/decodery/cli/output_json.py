"""Shows outputs and tokens as the values that the commands print with --json."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from decodery.decoding.chosen import TokenLogprobs
from decodery.outputs import Completion, RequestOutput
from decodery.text.streaming.token_texts import TokenTexts


def output_as_json(output: RequestOutput, tokenizer: TokenTexts) -> dict[str, Any]:
    """Returns an output: its token ids, completions, log-probabilities, seed, warnings and error, if any."""
    content: dict[str, Any] = {
        "prompt_token_ids": output.prompt_token_ids,
        "completions": [
            {
                "index": completion.index,
                "text": completion.text,
                "token_ids": completion.token_ids,
                "finish_reason": completion.finish_reason,
                "stop_reason": completion.stop_reason,
                **({} if completion.score is None else {"score": completion.score}),
                **({} if completion.error is None else {"error": completion.error}),
                **_reply(completion),
                **_logprobs("logprobs", completion.logprobs, tokenizer),
            }
            for completion in output.completions
        ],
        "seed": output.seed,
        **_logprobs("prompt_logprobs", output.prompt_logprobs, tokenizer),
    }
    if output.warnings:
        content["warnings"] = list(output.warnings)
    return content if output.error is None else {**content, "error": output.error}


def _reply(completion: Completion) -> dict[str, Any]:
    """Returns the reasoning and the calls of tools of a reply, if there are any."""
    found: dict[str, Any] = {}
    if completion.reasoning is not None:
        found["reasoning"] = completion.reasoning
    if completion.tool_calls:
        calls = [{"id": c.id, "name": c.name, "arguments": c.arguments} for c in completion.tool_calls]
        found["tool_calls"] = calls
    return found


def _logprobs(
    name: str, logprobs: Iterable[TokenLogprobs | None] | None, tokenizer: TokenTexts
) -> dict[str, Any]:
    if logprobs is None:
        return {}
    return {name: [None if entry is None else _logprob(entry, tokenizer) for entry in logprobs]}


def _logprob(entry: TokenLogprobs, tokenizer: TokenTexts) -> dict[str, Any]:
    top = [{**token_as_json(tokenizer, token), "logprob": logprob} for token, logprob in entry.top]
    return {**token_as_json(tokenizer, entry.token), "logprob": entry.logprob, "rank": entry.rank, "top": top}


def token_as_json(tokenizer: TokenTexts, token: int) -> dict[str, Any]:
    """Returns a token's id and its text."""
    return {"token_id": token, "token": tokenizer.decode([token], skip_special_tokens=False)}
