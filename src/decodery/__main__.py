"""Starts the command line, as console script and as `python -m decodery`."""

from __future__ import annotations

import gc
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Runs the command line of this process, and exits with its status, 130 after an interrupt."""
    # Imported modules stay in memory: collecting garbage among them during the start takes 0.15 s. Whoever
    # loads a model enables the collector again. The `try` includes the import, so that an interrupt prints no
    # traceback there either.
    gc.disable()
    try:
        from decodery.cli.main import run

        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


if __name__ == "__main__":
    main()
