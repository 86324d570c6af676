"""Reads how a folder makes vectors, from the files of sentence-transformers beside the model's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from decodery.encoding.vectors.multi_vector_files import SETTINGS, multi_vector_files
from decodery.encoding.vectors.pooling import POOLINGS
from decodery.encoding.vectors.sentence_layers import SentenceLayer, UnitLength, dense, layer_norm
from decodery.encoding.vectors.vector_settings import METRICS, Metric, VectorSettings
from decodery.errors import ModelError
from decodery.models.checkpoint_keys import CheckpointKeys
from decodery.models.contract import EncoderModel
from decodery.weights.formats.safetensors import read_json_file
from decodery.weights.formats.sentence_modules import SentenceModule, modules_of

LIMITS = (
    "sentence_bert_config.json",
    *(
        f"sentence_{family}_config.json"
        for family in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
    ),
)
"""The names that the file of limits has or had."""
FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The older keys of a pooling's config.json; the vectors of several are concatenated in this order."""


def read_vector_settings(folder: Path, model: EncoderModel) -> VectorSettings:
    """Returns how the vectors of a folder's model are made.

    A folder without modules.json takes the model's default, and does not normalise. Raises `ModelError`,
    naming the file, for files that are damaged or contradict each other, and for modules that are not
    supported.
    """
    modules = modules_of(folder)
    limit, lowers = text_rules(folder, model.context_length)
    found = _Pipeline(model)
    for module in modules[1:]:
        found.add(module)
    if modules and not found.poolings:
        raise ModelError(f"{folder / 'modules.json'} has no Pooling, so it says nothing of a text's vector")
    # A last module that makes the length 1 comes after the vector was cut.
    normalizes = bool(found.layers) and isinstance(found.layers[-1], UnitLength)
    layers = found.layers[:-1] if normalizes else found.layers
    keys = _settings(folder)
    prompts, default = _prompts(keys)
    return VectorSettings(
        width=found.width,
        limit=limit,
        pooling=found.poolings or model.default_pooling,
        reads_prompt=found.reads_prompt,
        layers=tuple(layers),
        normalizes=normalizes,
        prompts=prompts,
        default_prompt=default,
        lowers=lowers,
        metric=_metric(keys),
        truncate_dim=_truncate_dim(keys, found.width),
    )


def read_prompts(folder: Path) -> tuple[Mapping[str, str], str | None]:
    """Returns a folder's prompts by name, and the name of the default one; raises as the others do."""
    return _prompts(_settings(folder))


def default_prompt(folder: Path) -> str:
    """Returns the text of a folder's default prompt, empty without one; raises as the others do."""
    prompts, default = read_prompts(folder)
    return "" if default is None else prompts[default]


def largest_number_of_weights(folder: Path) -> int | None:
    """Returns how many weights a sparse vector of this folder has at most, None for any number."""
    keys = _settings(folder)
    return keys.count("max_active_dims") if keys.has("max_active_dims") else None


def activation_of_scores(folder: Path) -> str | None:
    """Returns the name of the function that makes scores of a cross-encoder's logits, None without one."""
    keys = _settings(folder)
    return keys.text("activation_fn") if keys.has("activation_fn") else None


class TextRules(NamedTuple):
    """Holds the largest number of tokens of a text, and whether texts are put into lower case."""

    limit: int
    lowers: bool


def text_rules(folder: Path, context_length: int) -> TextRules:
    """Returns how a folder's model reads texts; the limit counts special tokens.

    The truncation of tokenizer.json does not count: published files hold another number there. Where tokens
    have vectors, the limit is that of a document if the folder has one. Raises `ModelError`, naming the file,
    for files that are damaged.
    """
    modules = modules_of(folder)
    multi = multi_vector_files(folder)
    place = modules[0].folder if modules else folder
    file = next((place / name for name in LIMITS if (place / name).is_file()), None)
    keys = CheckpointKeys({} if file is None else read_json_file(file), str(file))
    lowers = keys.flag("do_lower_case", False)
    if multi is not None and multi.document.limit is not None:
        return TextRules(min(multi.document.limit, context_length), lowers)
    if keys.has("max_seq_length"):
        return TextRules(min(keys.count("max_seq_length"), context_length), lowers)
    tokenizer = place / "tokenizer_config.json"
    declared = read_json_file(tokenizer).get("model_max_length") if tokenizer.is_file() else None
    # A tokenizer without a limit has a number that no text reaches.
    limited = isinstance(declared, int) and not isinstance(declared, bool) and declared > 0
    return TextRules(min(int(declared or 0), context_length) if limited else context_length, lowers)


class _Pipeline:
    """Collects the modules behind a transformer; `width` is that of the vector after those so far."""

    def __init__(self, model: EncoderModel) -> None:
        self.model = model
        self.width = model.width
        self.poolings: tuple[str, ...] = ()
        self.reads_prompt = True
        self.layers: list[SentenceLayer] = []

    def add(self, module: SentenceModule) -> None:
        """Adds a module. Raises `ModelError` if it is not supported or does not fit those before it."""
        kind, folder = module
        if (kind == "Pooling") == bool(self.poolings) and kind not in (
            *("Dropout", "LogitScore", "SpladePooling"),
        ):
            order = "a second Pooling" if self.poolings else f"{kind} before a Pooling"
            raise ModelError(f"{folder.parent / 'modules.json'} lists {order}, which is not supported")
        match kind:
            case "Pooling":
                self._add_pooling(folder)
            case "Dense":
                layer = dense(folder, self.width, self.model)
                self.layers.append(layer)
                self.width = layer.outputs
            case "LayerNorm":
                self.layers.append(layer_norm(folder, self.width, self.model))
            case "Normalize":
                self.layers.append(UnitLength())
            case "SpladePooling":
                raise ModelError(
                    f"{folder.parent / 'modules.json'} lists a SpladePooling: this model gives sparse vectors"
                    " (embed_sparse)"
                )
            case "LogitScore":
                raise ModelError(
                    f"{folder.parent / 'modules.json'} lists a LogitScore: this model orders documents"
                    " (rerank) and gives no vectors"
                )
            case "Dropout":
                pass  # It does something in training alone.
            case _:
                raise ModelError(
                    f"{folder.parent / 'modules.json'} lists a {kind}, which is not supported: supported are"
                    " Transformer, Pooling, Dense, LayerNorm, Normalize and Dropout"
                )

    def _add_pooling(self, folder: Path) -> None:
        keys = CheckpointKeys(read_json_file(folder / "config.json"), str(folder / "config.json"))
        for key in ("word_embedding_dimension", "embedding_dimension"):
            if keys.has(key) and keys.count(key) != self.width:
                raise keys.error(key, f"{self.width}, the width of the model's states")
        self.poolings = _poolings(keys)
        self.reads_prompt = keys.flag("include_prompt", True)
        self.width *= len(self.poolings)


def _poolings(keys: CheckpointKeys) -> tuple[str, ...]:
    flagged = tuple(pooling for key, pooling in FLAGS.items() if keys.flag(key, False))
    if not keys.has("pooling_mode"):
        if not flagged and any(keys.has(key) for key in FLAGS):
            raise ModelError(f"{keys.source}: no pooling_mode is true: one must be")
        return flagged or ("mean",)
    stored = keys.values["pooling_mode"]
    names = [stored] if isinstance(stored, str) else stored
    known = {name: name for name in POOLINGS} | {"mean_sqrt_len_tokens": "mean_sqrt_len"}
    if not isinstance(names, Sequence) or not names or not all(name in known for name in names):
        raise keys.error("pooling_mode", f"one or several of {', '.join(POOLINGS)}")
    found = tuple(known[name] for name in names)
    if flagged and set(flagged) != set(found):
        raise ModelError(
            f"{keys.source}: pooling_mode says {', '.join(found)}, the older keys say {', '.join(flagged)}"
        )
    return found


def _settings(folder: Path) -> CheckpointKeys:
    file = folder / SETTINGS
    return CheckpointKeys(read_json_file(file) if file.is_file() else {}, str(file))


def _prompts(keys: CheckpointKeys) -> tuple[Mapping[str, str], str | None]:
    """Returns the prompts by name, and the name of the default one."""
    prompts: dict[str, str] = {}
    section = keys.section("prompts")
    for name in section.values:
        # A prompt that is null is not set.
        prompts[name] = section.text(name, "")
    default = keys.text("default_prompt_name") if keys.has("default_prompt_name") else None
    if default is not None and default not in prompts:
        names = ", ".join(prompts) or "of which there are none"
        raise keys.error("default_prompt_name", f"the name of a prompt, {names}")
    return prompts, default


def _metric(keys: CheckpointKeys) -> Metric:
    metric = METRICS.get(keys.text("similarity_fn_name", "cosine"))
    if metric is None:
        raise keys.error("similarity_fn_name", f"one of {', '.join(METRICS)}")
    return metric


def _truncate_dim(keys: CheckpointKeys, width: int) -> int | None:
    if not keys.has("truncate_dim"):
        return None
    found = keys.count("truncate_dim")
    if found > width:
        raise keys.error("truncate_dim", f"at most {width}, the width of the vectors")
    return found
