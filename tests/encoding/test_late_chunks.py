"""Tests vectors of the parts of a text that know the whole text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decodery import LLM, ModelError, ParameterError, RequestError
from decodery.search import SearchIndex
from decodery.search.text_vectors import LateEmbedder
from tests.encoding.folders import MEAN, NORMALIZE, encoder_folder, sentence_folder
from tests.encoding.states import states_of

TEXT = "the dog sat. it was good; paris is a city"
SPANS = [(0, 12), (13, 25), (26, 41)]
# The tokens of the parts, behind [CLS].
PLACES = [(1, 5), (5, 9), (9, 13)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder_folder(tmp_path_factory.mktemp("bert"))


def test_a_part_has_the_mean_of_its_tokens_states_in_the_whole_text(folder: Path) -> None:
    llm = LLM(folder)
    found = llm.embed_parts(TEXT, SPANS)
    states = states_of(folder, TEXT)
    assert len(states) == 14
    for vector, (start, end) in zip(found, PLACES, strict=True):
        np.testing.assert_allclose(vector, states[start:end].mean(0), rtol=1e-5, atol=1e-5)
    # Alone, the same words have another vector.
    assert np.abs(found[1] - llm.embed(TEXT[13:25])[0]).max() > 1e-2


def test_what_the_folder_puts_behind_the_mean_is_applied_and_the_prompt_is_in_no_part(tmp_path: Path) -> None:
    path = sentence_folder(
        tmp_path, (MEAN, NORMALIZE), settings={"prompts": {"document": "document: "}, "truncate_dim": 10}
    )
    found = LLM(path).embed_parts(TEXT, SPANS, document=True)
    states = states_of(path, f"document: {TEXT}")
    for vector, (start, end) in zip(found, PLACES, strict=True):
        # The prompt has two tokens.
        expected = torch.nn.functional.normalize(states[start + 2 : end + 2].mean(0)[:10], dim=0)
        np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "words"),
    [("ein Häuschen, 😀 dog", ["Häuschen", "😀", "dog"]), ("I love  the\nmat", ["love", "mat"])],
)
def test_parts_are_found_whatever_the_characters_are(text: str, words: list[str], tmp_path: Path) -> None:
    path = encoder_folder(tmp_path, "RobertaModel", tokenizer="byte pairs")
    llm = LLM(path)
    spans = [(text.index(word), text.index(word) + len(word)) for word in words]
    tokens = llm.embed_tokens(text)[0]
    for vector, (start, end) in zip(llm.embed_parts(text, spans), spans, strict=True):
        places = [n for n, span in enumerate(tokens.spans) if start < span[1] <= end]
        assert places
        np.testing.assert_allclose(vector, tokens.vectors[places].mean(0), rtol=1e-5, atol=1e-5)


def test_wrong_models_texts_and_spans_are_errors(folder: Path, tmp_path: Path) -> None:
    llm = LLM(folder)
    with pytest.raises(RequestError, match="the text has 80 tokens, and 62 fit"):
        llm.embed_parts("dog cat " * 40, [(0, 3)])
    with pytest.raises(RequestError, match="no token ends within part 1, the characters 3 to 4"):
        llm.embed_parts("the dog", [(0, 3), (3, 4)])
    wrong: Any
    for wrong in ((3, 3), (5, 2), (-1, 2), (0, 99), (0,), 3, (0.0, 2)):
        with pytest.raises(ParameterError, match="each of the spans"):
            llm.embed_parts("the dog", [wrong])
    wrong = [3]
    with pytest.raises(ParameterError, match="the text must be a str"):
        llm.embed_parts(wrong, [(0, 1)])
    cls = "Pooling", {"word_embedding_dimension": 24, "pooling_mode_cls_token": True}
    with pytest.raises(ModelError, match="makes vectors by cls"):
        LLM(sentence_folder(tmp_path, (cls,))).embed_parts("the dog", [(0, 3)])
    assert llm.embed_parts("the dog", []).shape == (0, 24)


def test_an_index_reads_the_chunks_of_a_file_together(folder: Path, tmp_path: Path) -> None:
    llm = LLM(folder)
    page = tmp_path / "page.txt"
    lines = ["the dog sat.", "it was good", "paris is a city", *("long text " * 12, "short " * 40)]
    page.write_text("\n".join(lines))
    with SearchIndex(tmp_path / "index", LateEmbedder(llm), by="lines") as index:
        index.update([page])
        chunks, vectors = index.contents()
        hits = index.search("paris", top=3)
    assert [chunk.text for chunk in chunks] == [line.strip() for line in lines]
    # The first four lines are read together, and the last one alone.
    text = page.read_text()
    ends = [text.index(line) + len(line.strip()) for line in lines]
    spans = [(text.index(line), end) for line, end in zip(lines, ends, strict=True)]
    first = llm.embed_parts(text[: ends[3]], spans[:4], document=True)
    last = llm.embed_parts(lines[4].strip(), [(0, len(lines[4].strip()))], document=True)
    expected = np.concatenate([first, last])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-6)
    assert len(hits) == 3
    # An index of chunks that were read apart is another one.
    with pytest.raises(ModelError, match="late chunking"):
        SearchIndex(tmp_path / "index", llm, by="lines")
