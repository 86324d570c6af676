"""Embeds sentences with onnxruntime, its weights in int8 and its activations rounded as they come."""

from __future__ import annotations

from pathlib import Path

from bench.contenders.encoders.batches import Batched
from bench.contenders.encoders.onnxruntime import exported, prepare, session

__all__ = ["load", "prepare"]


def load(model: Path, threads: int) -> Batched:
    """Loads the model in int8, which is written first if it is missing."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = exported(model)
    target = whole.with_name("model-int8.onnx")
    if not target.exists():
        quantize_dynamic(str(whole), str(target), weight_type=QuantType.QInt8, per_channel=True)
    return session(target, model, threads)
