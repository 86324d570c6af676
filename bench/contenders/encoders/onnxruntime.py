"""Embeds sentences with onnxruntime, on a file that is exported here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.contenders.encoders.batches import Batched


def prepare() -> None:
    """Imports the library."""
    import onnxruntime  # noqa: F401


def exported(model: Path) -> Path:
    """Returns the model as ONNX in float32, and writes it first if it is missing."""
    import torch
    import transformers

    target = Path(".bench-models") / f"{model.name}-onnx" / "model.onnx"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        encoder = transformers.AutoModel.from_pretrained(model, attn_implementation="eager").eval()

        class States(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.encoder = encoder

            def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
                states: torch.Tensor = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
                return states

        ids = torch.ones(2, 8, dtype=torch.long)
        axes = {0: "batch", 1: "length"}
        torch.onnx.export(
            *(States(), (ids, ids), str(target)),
            input_names=["ids", "mask"],
            output_names=["states"],
            dynamic_axes={"ids": axes, "mask": axes, "states": axes},
            opset_version=17,
            dynamo=False,
        )
    return target


def session(file: Path, model: Path, threads: int) -> Batched:
    """Returns the contender of an ONNX file that was made of the folder `model`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    found: Any = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return Batched(model, lambda tokens, mask: found.run(None, {"ids": tokens, "mask": mask})[0])


def load(model: Path, threads: int) -> Batched:
    """Loads the model in float32."""
    return session(exported(model), model, threads)
