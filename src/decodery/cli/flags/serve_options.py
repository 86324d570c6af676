"""Declares the flags of `decodery serve`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from decodery.cli.flags.flag_field import option

_option = partial(option, panel="Server")


@dataclass(frozen=True)
class ServeOptions:
    """Holds the models of a server, its address, who may come in, and its limits; each field is a flag."""

    model: tuple[str, ...] = _option(
        (),
        "A model, or NAME=MODEL with its name for clients: a folder, a .gguf file, a hub id or default. May"
        " be repeated: the first one, and those with ,pin behind them, are opened at the start and stay"
        " open; others are opened when a request names them. Without it, the default model.",
        panel="Model",
        short="-m",
        metavar="MODEL|NAME=MODEL",
    )

    host: str = _option("127.0.0.1", "The address to listen at; others than this machine's own need keys.")
    port: int = _option(8000, "The port; 0 takes a free one.")
    api_key_file: str | None = _option(
        None, "A file of keys, one a line; DECODERY_API_KEY holds a single one.", metavar="FILE"
    )
    allow_origin: tuple[str, ...] = _option(
        (), "A web page that may call the server, such as https://example.org; may be repeated."
    )
    models_memory: str | None = _option(
        None, "Most memory of all open models, such as 8GB; idle ones are closed for others."
    )
    draft: tuple[str, ...] = _option(
        (),
        "A draft model NAME=MODEL that requests may name for speculation; may be repeated.",
        metavar="NAME=MODEL",
    )
    amateur: tuple[str, ...] = _option(
        (),
        "A weaker model NAME=MODEL that requests may name for contrastive decoding; may be repeated.",
        metavar="NAME=MODEL",
    )
    max_step_ms: float = _option(
        50.0, "While texts grow, a step computes no more of prompts than fits into this time; 0: no bound."
    )
    remember_texts: bool = _option(
        True, "Draft tokens also from earlier texts of the same key and cache_salt; times may tell of them."
    )
    lenient: bool = _option(False, "Accept requests with unknown fields.")
    token_arrays: str | None = _option(
        None,
        "Take token ids in place of texts for encoders: the model's own, or those of OpenAI's cl100k_base,"
        " which are decoded to text first; without it, they are refused.",
        metavar="own|cl100k",
    )
    log_prompts: bool = _option(False, "Write the texts of requests into the log.")
    pings: float = _option(10.0, "Seconds between comments that keep a waiting stream alive; 0 sends none.")
    max_queued: int = _option(256, "Most requests that wait until their prompt is computed.")
    max_prompt_tokens: int | None = _option(None, "Most tokens of a prompt; without it, the context.")
    max_tokens_limit: int | None = _option(None, "Most tokens of a completion; without it, the context.")
    request_seconds: float = _option(600.0, "Longest time of a request.")
    drain_seconds: float = _option(30.0, "How long requests may go on after SIGTERM.")
