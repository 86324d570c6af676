"""Offers what encoders compute as methods of `LLM`."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.results import Embeddings, Precision
from decodery.encoding.text_batches import BatchRunner
from decodery.encoding.vectors.embed import LongText, embed
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

    @property
    def text_limit(self) -> int:
        """Returns how many tokens a text may have for `embed`, with special tokens and prompt."""
        return self.encoder.vectors.limit

    def embed(
        self,
        texts: Any,
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        pooling: str | None = None,
        normalize: bool | None = None,
        truncate_dim: int | None = None,
        precision: Precision = "float32",
        ranges: ArrayLike | None = None,
        long: LongText = "error",
        query: bool = False,
        document: bool = False,
        progress: bool | None = None,
    ) -> Embeddings:
        """Returns the vector of a text, or of each of several, in their order.

        A text is a str, or a list of token ids, which are taken as they are. Where an argument is None, the
        folder of the model decides. `prompt_name` is the name of one of the folder's prompts, and `prompt` is
        a text of your own: it stands before each text. `query` and `document` choose the folder's prompt for
        them, if it has one. `pooling` is "cls", "mean", "max", "mean_sqrt_len", "weightedmean" or
        "lasttoken", or several with + between them. `normalize` makes vectors of length 1. `truncate_dim`
        keeps the first dimensions, and normalises again. `precision` "int8" and "uint8" need `ranges`
        [2, width], the least and the largest number of each dimension, such as `Embeddings.ranges` of many
        texts; "binary" and "ubinary" hold one bit for each dimension. `long` says what happens to a text of
        more than `text_limit` tokens: it is an error, its end is cut off, or the vectors of "windows" are
        averaged by their numbers of tokens. `progress` draws a bar on stderr (default: on a terminal, for
        more than one text).

        Raises `RequestError` for a text that is too long or has no token, `ParameterError` for arguments, and
        `ModelError` for a model that does not embed.
        """
        return embed(
            self.encoder,
            texts,
            prompt_name=prompt_name,
            prompt=prompt,
            pooling=pooling,
            normalize=normalize,
            truncate_dim=truncate_dim,
            precision=precision,
            ranges=ranges,
            long=long,
            query=query,
            document=document,
            progress=progress,
        )
