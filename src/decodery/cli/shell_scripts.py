"""Holds the scripts that let a shell complete command lines, and installs them."""

from __future__ import annotations

import os
from pathlib import Path

from decodery.errors import ParameterError

# Each script calls the program that stands on the line, so that it also works outside PATH.
BASH = """\
_decodery() {
    local word
    COMPREPLY=()
    while IFS= read -r word; do
        COMPREPLY+=("$word")
    done < <("$1" complete bash -- "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null)
    # For paths the shell writes no space after a folder, and quotes what needs it.
    if [[ ${COMPREPLY[*]} == */* ]]; then compopt -o filenames; fi
}
complete -F _decodery decodery
"""
ZSH = """\
#compdef decodery
_decodery() {
    local word help
    local -a words_found words_shown folders
    while IFS=$'\\t' read -r word help; do
        if [[ $word == */ ]]; then
            folders+=("$word")
        else
            words_found+=("$word")
            words_shown+=("$word${help:+  -- $help}")
        fi
    done < <("${words[1]}" complete zsh -- "${(@Q)words[2,CURRENT]}" 2>/dev/null)
    # -Q: the words are quoted already, so that a tilde keeps its meaning.
    compadd -Q -l -d words_shown -a words_found
    compadd -Q -S '' -a folders
}
if ! (( $+functions[compdef] )); then autoload -Uz compinit && compinit; fi
compdef _decodery decodery
"""
FISH = """\
function _decodery_words
    set -l before (commandline -opc)
    set -l word (string unescape -- (commandline -ct))
    $before[1] complete fish -- $before[2..] "$word" 2>/dev/null
end
complete --command decodery --no-files --arguments '(_decodery_words)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def script_of(shell: str) -> str:
    """Returns the script for a shell. Raises `ParameterError` for a shell that has none."""
    if shell not in SCRIPTS:
        raise ParameterError(f"the shell must be {', '.join(SCRIPTS)}, not {shell!r}")
    return SCRIPTS[shell]


def install(shell: str) -> Path:
    """Writes the script into the user's files so that new shells read it, and returns its path.

    fish finds it in its folder. For bash and zsh, a line is added to .bashrc or .zshrc, once. Raises
    `ParameterError` for another shell.
    """
    script = script_of(shell)
    path = _path(shell)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script, encoding="utf-8")
    if shell == "bash":
        _add_line(Path.home() / ".bashrc", path)
    elif shell == "zsh":
        _add_line(Path(os.environ.get("ZDOTDIR") or Path.home()) / ".zshrc", path)
    return path


def _path(shell: str) -> Path:
    if shell == "fish":
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        return folder / "fish" / "completions" / "decodery.fish"
    folder = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return folder / "decodery" / f"completion.{shell}"


def _add_line(settings: Path, script: Path) -> None:
    quoted = str(script).replace("'", "'\\''")
    line = f"[ ! -r '{quoted}' ] || . '{quoted}'  # completion of decodery"
    text = settings.read_text(encoding="utf-8") if settings.exists() else ""
    if line not in text.splitlines():
        gap = "\n" if text and not text.endswith("\n") else ""
        with settings.open("a", encoding="utf-8") as file:
            file.write(f"{gap}{line}\n")
