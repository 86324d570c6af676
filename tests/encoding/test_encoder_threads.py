"""Tests the number of threads on which an encoder runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decodery import LLM
from decodery.kernels.native import library
from tests.encoding.folders import encoder_folder


@pytest.mark.parametrize("threads", [1, 2])
def test_an_encoder_runs_on_its_own_number_of_threads(
    tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = encoder_folder(tmp_path)
    llm = LLM(folder, threads=threads)
    seen: list[tuple[int, int]] = []
    model: Any = llm.encoder.model
    hidden = model.hidden

    def watched(*arguments: Any, **options: Any) -> Any:
        native = library.own_threads() if library.available() else threads
        seen.append((torch.get_num_threads(), native))
        return hidden(*arguments, **options)

    monkeypatch.setattr(model, "hidden", watched)
    before = torch.get_num_threads()
    vectors = llm.embed(["the dog", "a cat " * 20]).vectors
    assert seen == [(threads, threads)]
    assert torch.get_num_threads() == before
    assert np.allclose(vectors, LLM(folder).embed(["the dog", "a cat " * 20]).vectors, atol=1e-6)
