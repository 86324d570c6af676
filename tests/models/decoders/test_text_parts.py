"""Checks that of a folder with a text model and a vision model, the text model is opened."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from decodery.errors import CheckpointError, ModelError
from decodery.kernels.reference import torch_kernels
from decodery.loading.describe import facts
from decodery.models.decoders.gemma import GEMMA3
from decodery.models.describe import describe
from decodery.models.load import load_model
from decodery.weights.formats.opening import open_checkpoint
from tests.models.decoders.families import FAMILIES, SIZES, randomise
from tests.models.decoders.rms_norm_families import GEMMA3 as GEMMA3_SETTINGS
from tests.models.decoders.rms_norm_families import MINISTRAL3, RMS_NORM_FAMILIES

VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def gemma3() -> Any:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {**GEMMA3_SETTINGS, "model_type": "gemma3_text"}
    return Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config=text,
            vision_config={**VISION, "model_type": "siglip_vision_model"},
            mm_tokens_per_image=4,
            image_token_id=95,
            boi_token_index=94,
            eoi_token_index=96,
        )
    )


def mistral3(kind: str, **settings: Any) -> Callable[[], Any]:
    def build() -> Any:
        from transformers import Mistral3Config, Mistral3ForConditionalGeneration

        sizes = MINISTRAL3 if kind == "ministral3" else {**SIZES, "head_dim": 20, "sliding_window": None}
        return Mistral3ForConditionalGeneration(
            Mistral3Config(
                text_config={**sizes, **settings, "model_type": kind},
                vision_config={**VISION, "model_type": "pixtral", "head_dim": 8},
                image_token_index=95,
                **settings,
            )
        )

    return build


def llama4() -> Any:
    from transformers import Llama4Config, Llama4ForConditionalGeneration

    own = {"projector_input_dim": 16, "projector_output_dim": 16, "vision_output_dim": 16}
    vision = {**VISION, **own, "intermediate_size": 64, "model_type": "llama4_vision_model"}
    text = {**FAMILIES["llama 4"].settings, "model_type": "llama4_text"}
    return Llama4ForConditionalGeneration(
        Llama4Config(text_config=text, vision_config=vision, image_token_index=95)
    )


def gemma4() -> Any:
    from transformers import Gemma4Config, Gemma4ForConditionalGeneration

    vision = {**VISION, "num_key_value_heads": 2, "head_dim": 8, "model_type": "gemma4_vision"}
    return Gemma4ForConditionalGeneration(
        Gemma4Config(
            text_config={**RMS_NORM_FAMILIES["gemma 4"].settings, "model_type": "gemma4_text"},
            vision_config={**vision, "position_embedding_size": 64},
            audio_config=None,
            image_token_id=95,
            video_token_id=94,
            audio_token_id=93,
        )
    )


def gemma4_unified() -> Any:
    from transformers import Gemma4UnifiedConfig, Gemma4UnifiedForConditionalGeneration

    text = {**RMS_NORM_FAMILIES["gemma 4 unified"].settings, "model_type": "gemma4_unified_text"}
    vision = {"mm_embed_dim": 16, "mm_posemb_size": 8, "output_proj_dims": 48, "patch_size": 4}
    return Gemma4UnifiedForConditionalGeneration(
        Gemma4UnifiedConfig(
            text_config=text,
            vision_config={**vision, "model_type": "gemma4_unified_vision"},
            audio_config=None,
            image_token_id=95,
            video_token_id=94,
            audio_token_id=93,
        )
    )


WHOLES: dict[str, tuple[Callable[[], Any], str]] = {
    "gemma 3": (gemma3, "Gemma3ForCausalLM"),
    "gemma 4": (gemma4, "Gemma4ForCausalLM"),
    "gemma 4 unified": (gemma4_unified, "Gemma4UnifiedForCausalLM"),
    "llama 4": (llama4, "Llama4ForCausalLM"),
    "mistral small 3.1": (mistral3("mistral", tie_word_embeddings=False), "MistralForCausalLM"),
    "ministral 3, tied": (mistral3("ministral3", tie_word_embeddings=True), "Ministral3ForCausalLM"),
}
TOKENS = torch.randint(0, 90, (2, 40), generator=torch.Generator().manual_seed(0))


def saved(name: str, folder: Path) -> Any:
    model = WHOLES[name][0]()
    randomise(model, 0)
    model.save_pretrained(folder)
    return model.eval()


def logits(folder: Path) -> torch.Tensor:
    with open_checkpoint(folder) as checkpoint:
        found: torch.Tensor = load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)(TOKENS)
    return found


def rewrite(folder: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]) -> None:
    """Changes the settings and the tensors of a folder."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "model.safetensors")
    change(config, tensors)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "model.safetensors")


def renamed(old: str, new: str) -> Callable[[dict[str, Any], dict[str, torch.Tensor]], None]:
    def change(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith(old)]:
            tensors[new + name.removeprefix(old)] = tensors.pop(name)

    return change


@pytest.mark.parametrize("name", WHOLES)
def test_its_logits_are_those_of_the_whole_on_a_text(name: str, tmp_path: Path) -> None:
    whole = saved(name, tmp_path)
    with torch.no_grad():
        expected = whole(TOKENS).logits
    assert expected.std() > 0.5
    near = 1e-5 * max(1.0, expected.abs().max().item())
    torch.testing.assert_close(logits(tmp_path), expected, atol=near, rtol=0)


@pytest.mark.parametrize("name", WHOLES)
def test_its_tensors_may_be_named_in_the_older_and_in_the_newer_way(name: str, tmp_path: Path) -> None:
    saved(name, tmp_path)
    expected = logits(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    older = any(tensor.startswith("language_model.model.") for tensor in stored)
    names = [("language_model.model.", "model.language_model."), ("language_model.lm_head.", "lm_head.")]
    for old, new in names:
        rewrite(tmp_path, renamed(old, new) if older else renamed(new, old))
    assert load_file(tmp_path / "model.safetensors").keys() != stored.keys()
    assert torch.equal(logits(tmp_path), expected)


@pytest.mark.parametrize("name", WHOLES)
def test_inspecting_it_says_what_is_left_out(name: str, tmp_path: Path) -> None:
    whole = saved(name, tmp_path)
    with open_checkpoint(tmp_path) as checkpoint:
        found = inspected(checkpoint)
        assert checkpoint.part is not None
        assert all("vision" in name or "projector" in name for name in checkpoint.part.left_out)
    assert (found["architecture"], found["part_of"]) == (WHOLES[name][1], type(whole).__name__)
    assert found["tensors_left_out"] > 5
    (tmp_path / "model.safetensors").unlink()
    with open_checkpoint(tmp_path, weights=False) as checkpoint:
        alone = inspected(checkpoint)
    assert alone["part_of"] == type(whole).__name__
    assert alone["parameters"] == found["parameters"]


def inspected(checkpoint: Any) -> dict[str, Any]:
    return facts(
        checkpoint,
        dtype="float32",
        backend="torch",
        quantization=None,
        context_length=None,
        kv_dtype="auto",
    )


def test_an_own_head_is_used_whatever_the_settings_leave_out(tmp_path: Path) -> None:
    saved("mistral small 3.1", tmp_path)
    expected = logits(tmp_path)

    def without_key(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        config.pop("tie_word_embeddings")
        config["text_config"].pop("tie_word_embeddings", None)

    rewrite(tmp_path, without_key)
    assert torch.equal(logits(tmp_path), expected)


def test_a_head_that_the_settings_tie_is_kept_with_a_warning_and_serves_alone(tmp_path: Path) -> None:
    saved("ministral 3, tied", tmp_path)
    tied = logits(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    (embedding,) = (name for name in stored if name.endswith("embed_tokens.weight"))
    table = stored[embedding]
    rewrite(tmp_path, lambda config, tensors: tensors.update({"lm_head.weight": table}))
    rewrite(tmp_path, lambda config, tensors: tensors.pop(embedding))
    assert torch.equal(logits(tmp_path), tied)
    rewrite(tmp_path, lambda config, tensors: tensors.update({embedding: table.flip(0)}))
    with open_checkpoint(tmp_path) as checkpoint:
        describe(checkpoint)
        (told,) = checkpoint.warnings
    assert "lm_head.weight differs from model.embed_tokens.weight" in told
    kept = logits(tmp_path)
    rewrite(tmp_path, lambda config, tensors: tensors.update({"lm_head.weight": table.flip(0)}))
    assert not torch.equal(logits(tmp_path), kept)


def test_a_text_part_of_an_unknown_kind_is_refused_by_name(tmp_path: Path) -> None:
    saved("gemma 3", tmp_path)
    rewrite(tmp_path, lambda config, _: config["text_config"].update(model_type="sphinx"))
    with pytest.raises(ModelError, match="architecture sphinx is not supported"):
        logits(tmp_path)
    rewrite(tmp_path, lambda config, _: config["text_config"].pop("model_type"))
    with pytest.raises(ModelError, match="text_config: model_type is missing"):
        logits(tmp_path)


def test_a_tensor_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    saved("gemma 3", tmp_path)
    names = "language_model.model.norm.weight", "model.language_model.norm.weight"
    rewrite(tmp_path, lambda _, tensors: tensors.update(dict.fromkeys(names, torch.ones(48))))
    with pytest.raises(CheckpointError, match="are one tensor"):
        logits(tmp_path)


def test_a_text_tensor_that_nothing_reads_is_refused_still(tmp_path: Path) -> None:
    saved("gemma 3", tmp_path)
    rewrite(tmp_path, lambda _, tensors: tensors.update({"language_model.model.extra": torch.ones(3)}))
    with pytest.raises(CheckpointError, match=r"model\.extra"):
        logits(tmp_path)


def test_the_text_part_of_gemma_3_may_leave_sizes_out() -> None:
    published = {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    config = GEMMA3.config.from_hub(published)
    assert (config.heads, config.kv_heads, config.head_dim, config.vocab_size) == (8, 4, 256, 262208)
    assert (config.context_length, config.windows[:6]) == (131072, (1024,) * 5 + (None,))
