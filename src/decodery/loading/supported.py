"""Lists the architectures that can be opened."""

from __future__ import annotations

from typing import Any

from decodery.models.architectures import GGUF, HUB


def supported() -> list[dict[str, Any]]:
    """Returns for each family its architectures in both formats ready for JSON.

    `safetensors` are names in a config.json, `gguf` those in GGUF files. Every family runs on both backends,
    and its steps are captured on the native one.
    """
    names: dict[str, dict[str, list[str]]] = {}
    for format_, table in (("safetensors", HUB), ("gguf", GGUF)):
        for name, (family, _) in table.items():
            entry = names.setdefault(family.name, {"safetensors": [], "gguf": []})
            entry[format_].append(name)
    for family, _ in HUB.values():
        # A file of this family may declare the architecture of another one.
        if family.gguf is not None and not names[family.name]["gguf"]:
            names[family.name]["gguf"].append(family.gguf)
    return [{"family": family, **formats} for family, formats in sorted(names.items())]
