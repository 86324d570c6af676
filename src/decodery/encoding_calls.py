"""Offers what encoders compute as methods of `LLM`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.results import (
    Answer,
    Classification,
    Embeddings,
    MaskFill,
    Precision,
    Ranked,
    TaggedSpan,
    TokenEmbeddings,
)
from decodery.encoding.tasks.answer import answer
from decodery.encoding.tasks.classify import choose, next_sentence
from decodery.encoding.tasks.examples import LearnedLabels, learn
from decodery.encoding.tasks.fill_mask import fill_mask
from decodery.encoding.tasks.methods import Method, classify
from decodery.encoding.tasks.rerank import rerank
from decodery.encoding.tasks.tag import tag
from decodery.encoding.tasks.tag_spans import Merge
from decodery.encoding.text_batches import BatchRunner
from decodery.encoding.texts import Long
from decodery.encoding.vectors.embed import LongText, embed
from decodery.encoding.vectors.late_chunks import embed_parts
from decodery.encoding.vectors.multi_vectors import MultiVector, embed_multi
from decodery.encoding.vectors.similarity import similarities
from decodery.encoding.vectors.sparse import SparseEmbedding, embed_sparse
from decodery.encoding.vectors.token_vectors import embed_token_layers, embed_tokens
from decodery.loading.open_model import Opened
from decodery.models.readers.text_reader import reader_of
from decodery.token_ids import plain


def open_encoder(opened: Opened, threads: int | None = None) -> EncoderParts:
    """Returns the parts of an open model that reads texts, on `threads` threads (None: the process's number).

    A model that continues texts also reads them.
    """
    model = reader_of(opened.model, "causal") if opened.encoder is None else opened.encoder
    return EncoderParts(
        model=model,
        architecture=opened.architecture,
        tokenizer=opened.tokenizer,
        runner=BatchRunner(model, threads),
        config=opened.config,
        folder=opened.path,
    )


class EncodingCalls:
    """Holds the methods of a model that reads texts."""

    _encoder: EncoderParts

    @property
    def encoder(self) -> EncoderParts:
        """Returns the parts of the model that read texts; a model that continues texts also reads them."""
        return self._encoder

    @property
    def text_limit(self) -> int:
        """Returns how many tokens a text may have, with special tokens and prompt."""
        return self.encoder.rules.limit

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
        "lasttoken", or several with + between them; a model that continues texts has none of its own, and
        must be given one. `normalize` makes vectors of length 1. `truncate_dim` keeps the first dimensions,
        and normalises again. `precision` "int8" and "uint8" need `ranges`
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

    def embed_tokens(
        self,
        texts: Any,
        *,
        layer: int = -1,
        words: str | Sequence[str] | None = None,
        long: Long = "error",
        prompt_name: str | None = None,
        prompt: str | None = None,
        query: bool = False,
        document: bool = False,
    ) -> list[TokenEmbeddings]:
        """Returns the vectors of the tokens of each text, in their order.

        `layer` is the number of layers behind them: 0 are the embeddings, -1 the last layer's states, which
        `embed` pools. The same prompt as there stands before a text, and its tokens have vectors too.
        `words` are words whose occurrences in the texts get the mean of their tokens; a word is found as it
        is written, and not within a longer one. `long="cut"` drops the end of a text that is too long.
        Raises the errors of `embed`.
        """
        return embed_tokens(
            self.encoder,
            texts,
            layer=layer,
            words=words,
            long=long,
            prompt_name=prompt_name,
            prompt=prompt,
            query=query,
            document=document,
        )

    def embed_token_layers(
        self, texts: Any, layers: Sequence[int], *, long: Long = "error"
    ) -> list[list[TokenEmbeddings]]:
        """Returns for each of these layers what `embed_tokens` returns, from one pass over the texts.

        No prompt stands before a text. Raises the errors of `embed`.
        """
        return embed_token_layers(self.encoder, texts, layers, long=long)

    def embed_parts(
        self, text: str, spans: Sequence[tuple[int, int]], *, query: bool = False, document: bool = False
    ) -> NDArray[np.float32]:
        """Returns the vector of each part of a text [parts, width], which knows the whole text.

        The text is read as a whole, and a part has the mean of its own tokens' states (late chunking), then
        what the folder puts behind a mean. `spans` are the parts' first characters and the ones behind them.
        `query` and `document` choose the folder's prompt for those, which no part contains.

        Raises `ModelError` for a model whose vectors are not the mean of states, `RequestError` for a text
        that is too long and for a part without a token, and `ParameterError` for spans beyond the text.
        """
        return embed_parts(self.encoder, text, spans, query=query, document=document)

    def embed_sparse(
        self,
        texts: Any,
        *,
        query: bool = False,
        document: bool = False,
        max_active_dims: int | None = None,
        long: Long = "error",
    ) -> list[SparseEmbedding]:
        """Returns the sparse vector of each text: the weights of the vocabulary's tokens (SPLADE).

        A token's weight is the largest log(1 + relu(score)) that the head of masked tokens gives it at any
        place of the text, unless the folder's SpladePooling says otherwise. Tokens without a weight are left
        out, and all but the `max_active_dims` largest (default: as many as the folder says, or all). `query`
        and `document` choose the folder's prompt for those, and none where it has none. `long="cut"` drops
        the end of a text that is too long.

        Raises `ModelError` for a model without that head, and the errors of `embed`.
        """
        return embed_sparse(
            self.encoder,
            texts,
            query=query,
            document=document,
            max_active_dims=max_active_dims,
            long=long,
        )

    def embed_multi(self, texts: Any, *, query: bool = False, long: Long = "error") -> list[MultiVector]:
        """Returns the vectors of the tokens of each document, or with `query` of each query (ColBERT).

        The folder says which token stands before a text, with which tokens a query is filled up, and which
        of a document's are left out. `query.max_sim(document)` compares them. `long="cut"` drops the end of
        a text that has more tokens than the folder allows its kind.

        Raises `ModelError` for a model that was not trained for that, `RequestError` for a text that is too
        long or has no token that counts, and `ParameterError` for token ids.
        """
        return embed_multi(self.encoder, texts, query=query, long=long)

    def similarity(self, a: Any, b: Any, *, metric: str | None = None) -> NDArray[np.float32]:
        """Returns how alike each of `a` is to each of `b`, [len(a), len(b)]: more is more alike.

        Both are a text, a list of texts, or vectors. Where the folder has prompts for queries and for
        documents, texts of `a` are read as queries and those of `b` as documents; elsewhere both are read
        alike, with the folder's default prompt if it has one. `metric` is "cosine", "dot", "euclidean" or
        "manhattan", the last two less than 0 (default: the folder's, else "cosine"). `Embeddings` of bits are
        compared with each other, as dimensions of -1 and 1. Raises `ParameterError` for another metric, for
        vectors that do not match or are not finite, and for int8 and uint8, whose numbers mean nothing
        without their ranges.
        """
        chosen = self.encoder.vectors.metric if metric is None else metric
        has_roles = self.encoder.vectors.tells_queries
        one = self.embed(a, query=has_roles) if _are_texts(a) else a
        two = self.embed(b, document=has_roles) if _are_texts(b) else b
        return similarities(one, two, chosen)

    def classify(
        self,
        texts: Any,
        *,
        labels: Sequence[str] | None = None,
        method: Method | None = None,
        examples: Any = None,
        hypothesis: str | None = None,
        entailment: str | int | None = None,
        contradiction: str | int | None = None,
        prompt: str | None = None,
        top_k: int | None = None,
        multi_label: bool | None = None,
        long: LongText = "error",
    ) -> list[Classification]:
        """Returns the classes of a text, or of each of several.

        A text is a str, a pair of two (a tuple, or a list inside a list), or a list of token ids. `method`
        is "head", the classes that the model was trained for; "similarity", the cosine between the vectors of
        a text and of each of the `labels`; "entailment", how far a text entails the `hypothesis` about each
        label, in which {} is the label (default: "This example is {}."), by a head of natural language
        inference; "prompt", the probability of the labels' tokens behind a `prompt` with {text} and {labels},
        of a model that continues texts; or "examples", a logistic regression on the vectors of labelled
        `examples`: pairs of a text and a label, texts by their labels, or what `learn_labels` returned.
        Without a `method`, the arguments and the model decide.

        Scores of classes that exclude each other are their softmax. With `multi_label` each class has a
        sigmoid of its own (default: as config.json says, and for entailment with one label alone).
        `entailment` and `contradiction` name those classes, by name or index, where config.json does not.
        `top_k` bounds the labels of each result. `long` "cut" drops the end of a text that is too long, of a
        pair the second one's, and for entailment the text's, never the hypothesis.

        Raises `ModelError` for a model without the head, `RequestError` for a text that is too long, and
        `ParameterError` for arguments that have no meaning.
        """

        def embed_texts(given: list[str]) -> Embeddings:
            return self.embed(given, long=long)

        return classify(
            self.encoder,
            embed_texts,
            texts,
            method=method,
            top_k=top_k,
            long=long,
            labels=labels,
            examples=examples,
            hypothesis=hypothesis,
            entailment=entailment,
            contradiction=contradiction,
            prompt=prompt,
            multi_label=multi_label,
        )

    def learn_labels(self, examples: Any, *, long: LongText = "error") -> LearnedLabels:
        """Returns a logistic regression on the vectors of labelled examples, for `classify`.

        It tells its accuracy on examples that it had not seen. The same examples give the same regression.
        Needs scikit-learn, of the extra `search`.
        """
        return learn(lambda texts: self.embed(texts, long=long), examples)

    def choose(self, prompt: str, options: Sequence[str]) -> Classification:
        """Returns the options of a prompt with their probabilities, the best first.

        Raises `ModelError` for a model without a head of multiple choice.
        """
        return choose(self.encoder, prompt, options)

    def next_sentence(self, first: str, second: str) -> float:
        """Returns the probability that the second text follows the first, by BERT's head for that.

        Raises `ModelError` for a model without it.
        """
        return next_sentence(self.encoder, first, second)

    def fill_mask(
        self, texts: Any, *, top_k: int | None = None, targets: Sequence[str] | None = None
    ) -> list[list[list[MaskFill]]]:
        """Returns the likeliest tokens for each mask of each text, in lists by text and by mask.

        A mask is the model's mask token, such as [MASK] or <mask>; other masks of a text stay in the texts of
        the results. `top_k` (default 5) bounds the tokens of each mask. With `targets`, only these words are
        ranked, by default all of them. Scores are probabilities among all tokens.

        Raises `ModelError` for a model without a head for that or without a mask token, `RequestError` for a
        text without a mask or one that is too long, and `ParameterError` for a target that is not one token.
        """
        return fill_mask(self.encoder, texts, top_k=top_k, targets=targets)

    def tag(
        self,
        texts: Any,
        *,
        merge: Merge = "first",
        overlap: int | None = None,
        ignore: Collection[str] = ("O",),
    ) -> list[list[TaggedSpan]]:
        """Returns the labelled spans of each text, such as names, in their order.

        A text is a str, or the list of its words. A word has one label: that of its "first" token, of the
        "average" of its tokens, or of the token with the largest score ("max"). Neighbours become one span
        as the labels say, with B-, I-, E- and S- or without. `merge` "simple" joins tokens whatever their
        words, and "none" joins nothing. Labels to `ignore` are given without or with their prefix.

        A long text is read in windows that are cut between words and share `overlap` tokens (default 64, or
        half a window if that is less). A span that two windows see comes once, with the better score.

        Raises `ModelError` for a model without a head of token classes.
        """
        return tag(self.encoder, texts, merge=merge, overlap=overlap, ignore=ignore)

    def answer(
        self,
        question: str,
        context: str,
        *,
        top_k: int = 1,
        no_answer: bool | float | None = None,
        overlap: int | None = None,
        longest: int = 15,
    ) -> list[Answer]:
        """Returns the parts of a context that answer a question, the likeliest first.

        An answer is whole words, from at most `longest` tokens. A long context is read in windows that are
        cut between words and share `overlap` tokens (default 128, or half a window if that is less). With
        `no_answer`, an empty text is among the answers: as likely as the model says it, or, with a number,
        only if the logarithm of its probability is larger by so much.

        Raises `ModelError` for a model without a head of spans, and `RequestError` for a question that is
        too long or a context without words.
        """
        return answer(
            self.encoder,
            question,
            context,
            top_k=top_k,
            no_answer=no_answer,
            overlap=overlap,
            longest=longest,
        )

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        long: Long = "error",
        instruction: str | None = None,
        answers: Sequence[str] | None = None,
    ) -> list[Ranked]:
        """Returns documents in the order in which they answer a query, the best first, at most `top_n`.

        The order is that of the logits, and equal ones are in the given order. Scores are the sigmoid of the
        logits, unless the folder of the cross-encoder says otherwise. `long` "cut" drops the end of a
        document that is too long, never of the query or of a prompt.

        A model that gives each token a vector (ColBERT) compares these: a score, which is also the logit, is
        the sum over the query's tokens of the largest product with one of the document's. There "cut" also
        drops the end of a query that is too long, and counts it as lost.

        A model that continues texts is asked in the prompt of its chat template: a logit is that of the
        answer yes less that of no, so the score is p(yes) / (p(yes) + p(no)). `instruction` says what a query
        asks for; a cross-encoder reads it before the query (default: the folder's default prompt). `answers`
        are the two texts, each one token (default: what the folder says, else "yes" and "no").

        Raises `ModelError` for a model without a head of one score and without such vectors, and
        `RequestError` for a document or a query that is too long.
        """
        return rerank(
            self.encoder,
            query,
            documents,
            top_n=top_n,
            long=long,
            instruction=instruction,
            answers=answers,
        )


def _are_texts(side: Any) -> bool:
    """True if it is a text, or a list or array that begins with one."""
    given = plain(side)
    return isinstance(given, str) or (
        isinstance(given, (list, tuple)) and len(given) > 0 and isinstance(given[0], str)
    )
