"""Offers what encoders compute as methods of `LLM`."""

from __future__ import annotations

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.text_batches import BatchRunner
from decodery.errors import ModelError
from decodery.loading.open_model import Opened


def open_encoder(opened: Opened) -> EncoderParts:
    """Returns the parts of an open encoder."""
    assert opened.encoder is not None
    return EncoderParts(
        model=opened.encoder,
        architecture=opened.architecture,
        tokenizer=opened.tokenizer,
        runner=BatchRunner(opened.encoder),
        config=opened.config,
        folder=opened.path,
    )


class EncodingCalls:
    """Holds the methods of a model that reads texts."""

    _encoder: EncoderParts | None

    @property
    def encoder(self) -> EncoderParts:
        """Returns the open encoder. Raises `ModelError` for a model that continues texts."""
        if self._encoder is None:
            raise ModelError(
                "this model continues texts; embed, classify, fill_mask, tag, answer and rerank need an"
                " encoder"
            )
        return self._encoder
