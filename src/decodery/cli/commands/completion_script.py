"""Implements --install-completion and --show-completion."""

from __future__ import annotations

from decodery.cli import shell_scripts
from decodery.cli.terminal import emit, note


def install(shell: str) -> None:
    """Installs the completion of a shell, and prints the path of its script."""
    path = shell_scripts.install(shell)
    emit(f"{path}\n")
    note(f"new {shell} shells complete decodery's command lines")


def show(shell: str) -> None:
    """Prints the script that lets a shell complete command lines."""
    emit(shell_scripts.script_of(shell))
