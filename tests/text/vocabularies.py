"""Trains small real vocabularies, and writes them in the form of model folders and of GGUF files."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
USER_DEFINED = "<think>"
METADATA = "tokenizer.ggml."

CORPUS = [
    "Once upon a time there was a small village by the sea, and in it lived an old fisherman named Tom.",
    "The capital of France is Paris; the capital of Japan is Tokyo. It's 1,234,567 people - isn't it?",
    "def main(argv):\n    for i in range(10):\n\t\tprint(f'{i:02d}', end=\"\\n\")\n    return 0\n\n\n",
    "für größere Städte: Zürich, Köln, Malmö, São Paulo, Łódź. They're naïve, we'll see, he'd go, I'm sure.",
    "русский текст, ещё немного слов; ελληνικά γράμματα; עברית; العربية; हिन्दी; ภาษาไทย",
    "日本語の文章です。中文句子也在这里。한국어 문장도 있습니다。",
    "1 22 333 4444 55555 2024-07-30 3.14159 1e-9 0xFF  two  spaces   three    four     five",
    "😀 👍🏽 👨‍👩‍👧 🇫🇷 ❤️ the the the and and and then there these those that this them thing think thank",
] * 6

# Characters that the SentencePiece vocabulary has only as byte tokens.
FALLBACK = set("😀👍ß日")

FRAGMENTS = (
    *(
        "",
        " ",
        "  ",
        "     ",
        "\t",
        "\t\t ",
        "\n",
        "\n\n",
        "\r\n",
        " \n ",
        "\u00a0",
        "\u3000",
        "\u200b",
        "\u2028",
    ),
    *("😀", "👨‍👩‍👧‍👦", "👍🏽", "🇫🇷🇩🇪", "❤️", "日本語の文章", "中文", "한국어", "カタカナ", "𠮷野家", "𝔘𝔫𝔦"),
    *(
        "e\u0301",
        "n\u0303o\u0308",
        "Z\u0351\u036b\u0343",
        "é",
        "ﬁ",
        "Å",
        "עברית",
        "العربية",
        "\u202eabc\u202c",
    ),
    *(
        "def f(x):\n    return x**2",
        "a_b->c[0]++;",
        "</div>",
        "\\n",
        '{"k": [1, 2]}',
        "it's",
        "I'LL",
        "we're",
        "'s",
    ),
    *(
        "\x00",
        "\x07",
        "\x1b[0m",
        "\x7f",
        "\x85",
        "\ufffd",
        "\ufeff",
        "0",
        "7",
        "42",
        "1234567890",
        "٣٤",
        "²³",
        "½",
    ),
    *(
        "<|im_end|>",
        "<|im_start|>user",
        "<|endoftext|>",
        "<think>",
        "<s>",
        "</s>",
        "<unk>",
        "<0x0A>",
        "<|im_",
        "|>",
    ),
    *(
        "the",
        "The",
        " the",
        "then",
        "upon",
        "Paris",
        "supercalifragilistic" * 12,
        "aaaaaaaa",
        "▁",
        "Ġ",
        "Ċ",
        "Â",
    ),
    *("\ud83d!", "\udc00!", "x\udfffy", "http://a.b/c?d=e&f=%20", "--", "...", "$€£¥", "µ", "ß", "İ", "ſ"),
)


def odd_strings(count: int = 1000) -> list[str]:
    """Returns strings that are difficult for tokenizers, the same at every call."""
    source = random.Random(7)
    strings = list(FRAGMENTS)
    while len(strings) < count:
        strings.append("".join(source.choices(FRAGMENTS, k=source.randint(2, 9))))
    return strings


def repaired(text: str) -> str:
    """Returns the text with every surrogate replaced; the odd strings have only lone ones."""
    return "".join("\ufffd" if 0xD800 <= ord(character) <= 0xDFFF else character for character in text)


def byte_level_reference() -> tokenizers.Tokenizer:
    """Trains a byte-level BPE as SmolLM2's tokenizer.json declares it."""
    reference = tokenizers.Tokenizer(models.BPE())
    reference.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
    reference.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    reference.train_from_iterator(CORPUS, trainer)
    reference.add_tokens([AddedToken(USER_DEFINED, normalized=False)])
    return reference


def sentence_piece_reference() -> tokenizers.Tokenizer:
    """Trains a SentencePiece BPE with byte fallback as Llama 2's tokenizer.json declares it."""
    pieces = [f"▁{word}" for line in CORPUS for word in line.split(" ")]
    trained = tokenizers.Tokenizer(models.BPE())
    trained.train_from_iterator(pieces, trainers.BpeTrainer(vocab_size=700, show_progress=False))
    learned = json.loads(trained.to_str())["model"]
    joined = ["".join(merge) for merge in learned["merges"] if not set("".join(merge)) & FALLBACK]
    characters = sorted(token for token in learned["vocab"] if len(token) == 1 and token not in FALLBACK)
    runs = ["▁▁", "▁▁▁", "▁▁▁▁"]
    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *joined,
        *runs,
        *characters,
    ]
    tokens = list(dict.fromkeys(tokens))
    vocabulary = {token: place for place, token in enumerate(tokens)}
    model = models.BPE(
        vocabulary, _all_pairs(tokens[259:], vocabulary), unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )
    reference = tokenizers.Tokenizer(model)
    reference.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    reference.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    reference.add_special_tokens([AddedToken(token, normalized=False) for token in ("<unk>", "<s>", "</s>")])
    reference.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return reference


def _all_pairs(ranked: list[str], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Returns every pair whose text is a token, the earlier token first, then the longer left half."""
    pairs = [(left, right) for left in ranked for right in ranked if left + right in vocabulary]
    return sorted(pairs, key=lambda pair: (vocabulary[pair[0] + pair[1]], -len(pair[0])))


def byte_level_metadata(reference: tokenizers.Tokenizer) -> dict[str, Any]:
    """Returns the key-values that a converter writes into a GGUF file for `byte_level_reference`."""
    tokens = _tokens(reference)
    types = [3 if token in SPECIAL else 4 if token == USER_DEFINED else 1 for token in tokens]
    merges = [" ".join(merge) for merge in json.loads(reference.to_str())["model"]["merges"]]
    return {
        "general.architecture": "llama",
        f"{METADATA}model": "gpt2",
        f"{METADATA}pre": "smollm",
        f"{METADATA}tokens": tokens,
        f"{METADATA}token_type": types,
        f"{METADATA}merges": merges,
        f"{METADATA}bos_token_id": 1,
        f"{METADATA}eos_token_id": 2,
        f"{METADATA}padding_token_id": 0,
        f"{METADATA}add_bos_token": False,
    }


def sentence_piece_metadata(reference: tokenizers.Tokenizer) -> dict[str, Any]:
    """Returns the key-values that a converter writes into a GGUF file for `sentence_piece_reference`."""
    tokens = _tokens(reference)
    types = [2, 3, 3] + [6] * 256 + [1] * (len(tokens) - 259)
    return {
        "general.architecture": "llama",
        f"{METADATA}model": "llama",
        f"{METADATA}tokens": tokens,
        f"{METADATA}token_type": types,
        f"{METADATA}scores": [0.0] * 259 + [float(-rank) for rank in range(len(tokens) - 259)],
        f"{METADATA}bos_token_id": 1,
        f"{METADATA}eos_token_id": 2,
        f"{METADATA}unknown_token_id": 0,
    }


def plain_text_metadata(**more: Any) -> dict[str, Any]:
    """Returns a Gemma-4 vocabulary: plain text with marked spaces, all pairs as merges, and byte tokens."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += ["▁", "t", "h", "e", "\n", "▁t", "th", "he", "▁the", "the", "\n\n", "<turn|>"]
    merges = ["▁t he", "▁ the", "th e", "t he", "▁ t", "t h", "h e", "\n \n"]
    keys = {
        **{"model": "gemma4", "tokens": tokens, "merges": merges, "bos_token_id": 2, "eos_token_id": 1},
        **{"token_type": [3, 3, 3, 2] + [6] * 256 + [1] * 11 + [3], "unknown_token_id": 3},
    }
    return {f"{METADATA}{name}": value for name, value in {**keys, **more}.items()}


def _tokens(reference: tokenizers.Tokenizer) -> list[str]:
    ids = reference.get_vocab()
    return sorted(ids, key=lambda token: ids[token])


def write_folder(folder: Path, reference: tokenizers.Tokenizer, **files: Any) -> Path:
    """Writes a model folder with a tokenizer.json and the named JSON files, and returns its path."""
    reference.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
