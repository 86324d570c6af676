"""Implements `decodery score`: prints how likely a text is under the model."""

from __future__ import annotations

from decodery.cli.flags.model_options import TextModelOptions
from decodery.cli.load_text_model import load
from decodery.cli.output_json import token_as_json
from decodery.cli.terminal import aligned, emit, emit_json
from decodery.cli.text_model import TextModel
from decodery.errors import RequestError
from decodery.outputs import TextScore


def score(text: str, options: TextModelOptions, *, prefix: str | None, as_json: bool) -> None:
    """Prints the log-probability of each token of a text, their sum, and the perplexity.

    With a prefix, the tokens are scored as they follow it. Raises `RequestError` for a text without tokens.
    """
    llm = load(options)
    if prefix is None and not llm.tokenizer.encode(text):
        raise RequestError("the text has no tokens: give a longer one")
    [scored] = llm.score([text], prefix=prefix)
    if as_json:
        emit_json(_as_json(text, prefix, scored, llm))
    else:
        emit(_table(scored, llm))


def _table(scored: TextScore, llm: TextModel) -> str:
    rows = [("logprob", "id", "token")]
    for token, logprob in zip(scored.token_ids, scored.logprobs, strict=True):
        number = "-" if logprob is None else f"{logprob:.4f}"
        rows.append((number, str(token), llm.tokenizer.token_label(token)))
    return (
        aligned(rows, right=(0, 1))
        + f"\ntotal {scored.total:.4f} over {scored.count} tokens, perplexity {scored.perplexity:.4f}\n"
    )


def _as_json(text: str, prefix: str | None, scored: TextScore, llm: TextModel) -> dict[str, object]:
    return {
        **({} if prefix is None else {"prefix": prefix}),
        "text": text,
        "tokens": [
            {**token_as_json(llm.tokenizer, token), "logprob": logprob}
            for token, logprob in zip(scored.token_ids, scored.logprobs, strict=True)
        ],
        "total": scored.total,
        "perplexity": scored.perplexity,
    }
