"""The console script; `python -m decodery` is the same."""

from __future__ import annotations

import gc
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line of this process; an interrupt ends it quietly from the first import on."""
    # What is imported and loaded stays: looking through it for garbage again and again takes 0.15 s. Who
    # loads a model turns the collector on again.
    gc.disable()
    try:
        from decodery.cli.main import run

        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


if __name__ == "__main__":
    main()
