"""Declares the flags of `decodery playground`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from decodery.cli.flags.serve_options import ServeOptions

# The browser keeps saved runs by the address of the page, so the port is the same one where it can be.
USUAL_PORT = 8757

_SERVED = {one.name: one for one in fields(ServeOptions)}


@dataclass(frozen=True)
class PlaygroundOptions:
    """Holds the models of a playground, its port, and if the browser is opened; each field is a flag."""

    model: tuple[str, ...] = field(default=(), metadata=_SERVED["model"].metadata)
    port: int | None = field(
        default=None,
        metadata={
            "help": f"The port; 0 takes a free one.  [default: {USUAL_PORT}, or a free one if it is taken]",
            "panel": "Server",
        },
    )
    open: bool = field(
        default=True,
        metadata={"help": "Open the page in the browser.", "panel": "Server"},
    )
