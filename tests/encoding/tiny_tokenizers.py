"""Builds tiny tokenizers of the kinds that encoders have."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

LISTED = """
the a an of in on at to is was i you he she we they it and or not no good bad great movie bank river money
water angela merkel visited microsoft seattle paris france capital city who what where how love hate like
dog cat sat mat query document passage question answer red green blue one two three long short text word
words play plays playing worked
"""
WORDS = tuple(LISTED.split())
LETTERS = string.ascii_lowercase + string.digits
MARKS = ".,:;!?'\"()-/"


class TinyTokenizer(NamedTuple):
    """Holds a tokenizer and the texts of its special tokens by their roles."""

    backend: tokenizers.Tokenizer
    roles: Mapping[str, str]

    def id_of(self, role: str) -> int:
        """Returns the id of a role's token, such as that of "mask"."""
        found: int = self.backend.token_to_id(self.roles[role])
        return found

    @property
    def settings(self) -> dict[str, Any]:
        """Returns what config.json says of it."""
        ids = {f"{role}_token_id": self.id_of(role) for role in ("pad", "bos", "eos") if role in self.roles}
        return {"vocab_size": self.backend.get_vocab_size(), **ids}


def word_pieces() -> TinyTokenizer:
    """Returns a tokenizer like BERT's, which lowers letters; a pair's second text has the segment 1."""
    roles = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    pieces = [
        *roles.values(),
        *LETTERS,
        *MARKS,
        *(f"##{letter}" for letter in LETTERS),
        "##ing",
        "##s",
        *WORDS,
    ]
    vocab = {piece: token for token, piece in enumerate(dict.fromkeys(pieces))}
    backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    backend.add_special_tokens([_special(text) for text in roles.values()])
    return TinyTokenizer(backend, roles)


ROBERTA = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
CLS_AND_SEP = {"cls": "<s>", "sep": "</s>", "mask": "<mask>"}
MASK = AddedToken("<mask>", lstrip=True, special=True)


def byte_pairs() -> TinyTokenizer:
    """Returns a tokenizer like RoBERTa's: of bytes; `<mask>` takes the space before it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {text: token for token, text in enumerate([*ROBERTA.values(), *alphabet])}
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS:
        for text in (word, word.capitalize()):
            joined = [(text[:end], text[end]) for end in range(1, len(text))]
            for left, right in (*joined, ("Ġ", text)):
                merges[left, right] = None
                vocab.setdefault(left + right, len(vocab))
    # A word of the vocabulary is one token, whatever the order of the merges.
    backend = tokenizers.Tokenizer(models.BPE(vocab, list(merges), ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    backend.add_special_tokens([*map(_special, ROBERTA.values()), MASK])
    return TinyTokenizer(backend, ROBERTA | CLS_AND_SEP)


def unigrams() -> TinyTokenizer:
    """Returns a tokenizer like XLM-R's: pieces with their log-probabilities, `▁` before words."""
    pieces = [
        *((text, 0.0) for text in ROBERTA.values()),
        ("▁", -4.0),
        *((letter, -8.0) for letter in (*LETTERS, *string.ascii_uppercase, *MARKS)),
        *((f"▁{word}", -3.0) for word in WORDS),
        *((f"▁{word.capitalize()}", -3.5) for word in WORDS if len(word) > 1),
    ]
    backend = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    backend.add_special_tokens([*map(_special, ROBERTA.values()), MASK])
    return TinyTokenizer(backend, ROBERTA | CLS_AND_SEP)


def unigrams_before_cls() -> TinyTokenizer:
    """Returns a tokenizer like XLNet's, whose CLS token is the last one of a text, with the segment 2."""
    backend, _ = unigrams()
    backend.post_processor = processors.TemplateProcessing(
        single="$A:0 </s>:0 <s>:2",
        pair="$A:0 </s>:0 $B:1 </s>:1 <s>:2",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return TinyTokenizer(backend, ROBERTA | CLS_AND_SEP)


CHAT = {"pad": "<|endoftext|>", "eos": "<|im_end|>"}
CHAT_MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def chat_bytes() -> TinyTokenizer:
    """Returns a tokenizer like that of Qwen's embedders: of bytes; its padding token ends each text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {text: token for token, text in enumerate([*CHAT_MARKS, *alphabet])}
    merges: dict[tuple[str, str], None] = {}
    for word in (*WORDS, "yes"):
        joined = [(word[:end], word[end]) for end in range(1, len(word))]
        for left, right in (*joined, ("Ġ", word)):
            merges[left, right] = None
            vocab.setdefault(left + right, len(vocab))
    backend = tokenizers.Tokenizer(models.BPE(vocab, list(merges), ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    backend.add_special_tokens([*map(_special, CHAT_MARKS)])
    return TinyTokenizer(backend, CHAT)


TOKENIZERS: Mapping[str, Callable[[], TinyTokenizer]] = {
    "word pieces": word_pieces,
    "byte pairs": byte_pairs,
    "unigrams": unigrams,
    "unigrams before cls": unigrams_before_cls,
    "chat bytes": chat_bytes,
}


def _special(text: str) -> AddedToken:
    return AddedToken(text, special=True, normalized=False)
