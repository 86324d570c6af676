from __future__ import annotations

import pytest
import tokenizers

from tests.text.vocabularies import byte_level_reference, sentence_piece_reference


@pytest.fixture(scope="session")
def byte_level() -> tokenizers.Tokenizer:
    return byte_level_reference()


@pytest.fixture(scope="session")
def sentence_piece() -> tokenizers.Tokenizer:
    return sentence_piece_reference()
