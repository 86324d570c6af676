"""Checks which architectures are supported, and the errors for others."""

from __future__ import annotations

import pytest

from decodery.errors import ModelError
from decodery.models import families
from decodery.models.families import GGUF, HUB, find_family
from tests.models.test_config import Declared


def test_every_architecture_has_a_head_that_its_family_builds() -> None:
    for family, head in (*HUB.values(), *GGUF.values()):
        assert head in family.build
    for format_, table in (("safetensors", HUB), ("gguf", GGUF)):
        for name, row in table.items():
            config = {"architectures": [name], "general.architecture": name}
            found = find_family(Declared(format_, config))  # type: ignore[arg-type]
            assert (found.name, found.family, found.head) == (name, *row)


def test_a_name_of_the_other_format_is_not_supported() -> None:
    with pytest.raises(ModelError, match="architecture llama is not supported"):
        find_family(Declared("safetensors", {"architectures": ["llama"]}))
    with pytest.raises(ModelError, match="architecture LlamaForCausalLM is not supported"):
        find_family(Declared("gguf", {"general.architecture": "LlamaForCausalLM"}))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("MistraForCausalLM", "the nearest is MistralForCausalLM"),
        ("LLaMAForCausalLM", "the nearest is LlamaForCausalLM"),
        ("Llama4ForCausalLM", "the nearest is LlamaForCausalLM"),
        ("rwkv7", f"not supported; supported are {', '.join([*HUB, *GGUF])}$"),
    ],
)
def test_an_unsupported_architecture_is_one_line_with_the_nearest_supported_one(
    name: str, nearest: str
) -> None:
    with pytest.raises(ModelError, match=nearest) as raised:
        find_family(Declared("safetensors", {"architectures": [name]}))
    assert f"the architecture {name} is not supported" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_one_row_is_enough_for_a_further_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "HUB", {**HUB, "OtherForCausalLM": HUB["LlamaForCausalLM"]})
    found = find_family(Declared("safetensors", {"architectures": ["OtherForCausalLM"]}))
    assert found.family.name == "llama"
