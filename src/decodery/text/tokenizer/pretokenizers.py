"""Holds the pre-tokenizers of BPE vocabularies: one scheme for each name in `tokenizer.ggml.pre`.

A GGUF file names its pre-tokenizer and does not describe it. The schemes repeat what the models' own
`tokenizer.json` files declare; "default" is what llama.cpp does without a name.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import Final

from tokenizers import Regex, pre_tokenizers

from decodery.errors import CheckpointError
from decodery.text.tokenizer import split_patterns as patterns

# Steps that are built into the tokenizers library. Any other step is a regex whose matches are isolated.
_SINGLE_DIGITS: Final = "single digits"
_DIGIT_RUNS: Final = "digit runs"
_PUNCTUATION_RUNS: Final = "punctuation runs"
_GPT2: Final = "GPT-2's regex, then bytes to their alphabet"
_WORDS: Final = "words, without the whitespace between them"


@dataclass(frozen=True, slots=True)
class Scheme:
    """Holds what the name of a pre-tokenizer implies.

    `compose`: text is normalized to Unicode form C first. `ignore_merges`: a piece that is itself a token is
    encoded as that token without applying merges. `add_bos`: the default when the file lacks the key;
    `always_bos`: the key is ignored. `byte_level`: tokens are written in the byte alphabet, else as plain
    text with byte tokens such as `<0x0A>`. `mark_spaces`: spaces become U+2581 first.
    """

    steps: tuple[str, ...]
    compose: bool = False
    ignore_merges: bool = False
    add_bos: bool = False
    always_bos: bool = False
    byte_level: bool = True
    mark_spaces: bool = False


_PLAIN_GPT2 = Scheme((_GPT2,))
_NEOX = Scheme((_GPT2,), compose=True)
_DIGITS_GPT2 = Scheme((_SINGLE_DIGITS, _GPT2))
_LLAMA3 = Scheme((patterns.LLAMA3,), ignore_merges=True, add_bos=True)
_LLAMA3_MERGED = Scheme((patterns.LLAMA3,))
_QWEN2 = Scheme((patterns.QWEN2,))
_QWEN2_NFC = Scheme((patterns.QWEN2,), compose=True)
_GPT4O = Scheme((patterns.GPT4O,))
_DEEPSEEK3 = Scheme(patterns.DEEPSEEK3)
_BLOOM = Scheme((patterns.BLOOM,))
_BAILING = Scheme((patterns.BAILING,))
_TINY_AYA = Scheme(patterns.TINY_AYA)
_MARKED = Scheme((patterns.LINES,), byte_level=False, mark_spaces=True)

SCHEMES: Final[dict[str, Scheme]] = {
    "default": Scheme(patterns.DEFAULT),
    **dict.fromkeys(
        ("gpt-2", "phi-2", "jina-v1-en", "jina-v2-code", "jina-v2-de", "jina-v2-es", "jina-de"),
        _PLAIN_GPT2,
    ),
    **dict.fromkeys(
        ("jina-es", "roberta-bpe", "gigachat", "a.x-4.0", "mellum", "exaone4", "jais", "trillion"),
        _PLAIN_GPT2,
    ),
    **dict.fromkeys(("granite-docling",), _PLAIN_GPT2),
    **dict.fromkeys(("mpt", "olmo", "modern-bert"), _NEOX),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"), _DIGITS_GPT2
    ),
    "command-r": Scheme((_SINGLE_DIGITS, _GPT2), compose=True),
    "falcon": Scheme((_PUNCTUATION_RUNS, _GPT2, _DIGIT_RUNS, "[0-9][0-9][0-9]")),
    **dict.fromkeys(
        (
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ),
        _LLAMA3,
    ),
    **dict.fromkeys(("dbrx", "smaug-bpe", "chatglm-bpe"), _LLAMA3_MERGED),
    **dict.fromkeys(("glm4", "glm5"), replace(_LLAMA3_MERGED, ignore_merges=True)),
    "jais-2": Scheme((patterns.JAIS2,)),
    "minicpm5": Scheme(patterns.MINICPM5, ignore_merges=True),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "f2llmv2"), _QWEN2_NFC),
    **dict.fromkeys(("stablelm2", "kormo", "megrez", "hunyuan", "solar-open", "grok-2"), _QWEN2),
    "qwen35": Scheme((patterns.QWEN35,)),
    "ufakzeka": Scheme((patterns.UFAKZEKA,)),
    "seed-coder": Scheme((patterns.SEED_CODER,)),
    **dict.fromkeys(("bailingmoe", "bailingmoe2", "llada-moe"), _BAILING),
    "exaone-moe": Scheme((patterns.EXAONE_MOE,)),
    "laguna": Scheme(patterns.LAGUNA),
    "tekken": Scheme((patterns.TEKKEN,), ignore_merges=True, add_bos=True),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), _GPT4O),
    "granite-embed-multi-97m": replace(_GPT4O, ignore_merges=True),
    "kimi-k2": Scheme((patterns.KIMI_K2,)),
    **dict.fromkeys(("tiny_aya", "cohere2moe"), _TINY_AYA),
    "youtu": Scheme(patterns.YOUTU, ignore_merges=True),
    "deepseek-llm": Scheme((*patterns.DEEPSEEK_LLM, _SINGLE_DIGITS)),
    "deepseek-coder": Scheme((*patterns.DEEPSEEK_CODER, _SINGLE_DIGITS)),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"), _DEEPSEEK3),
    "spark2_5": Scheme(patterns.SPARK),
    "afmoe": Scheme(patterns.AFMOE),
    **dict.fromkeys(("bloom", "gpt3-finnish", "poro-chat"), _BLOOM),
    "viking": Scheme((patterns.BLOOM, _SINGLE_DIGITS)),
    "superbpe": Scheme(patterns.SUPERBPE),
    "chameleon": Scheme((*patterns.CHAMELEON, _GPT2), add_bos=True),
    **dict.fromkeys(("gemma4", "granite-embed-multi-311m"), replace(_MARKED, add_bos=True, always_bos=True)),
    "sarvam-moe": _MARKED,
    "whitespace": Scheme((_WORDS,), byte_level=False),
}


def scheme_named(name: str) -> Scheme:
    """Returns the scheme of a pre-tokenizer. Raises `CheckpointError`, with the nearest names, if unknown."""
    try:
        return SCHEMES[name]
    except KeyError:
        nearest = difflib.get_close_matches(name, SCHEMES, n=3, cutoff=0.5) or sorted(SCHEMES)
        raise CheckpointError(
            f"the vocabulary's pre-tokenizer {name!r} (tokenizer.ggml.pre) is unknown; "
            f"known are {', '.join(nearest)}"
            + ("" if len(nearest) == len(SCHEMES) else f" and {len(SCHEMES) - len(nearest)} others")
        ) from None


def build_pre_tokenizer(scheme: Scheme, *, add_prefix_space: bool = False) -> pre_tokenizers.PreTokenizer:
    """Returns a scheme's pre-tokenizer; that of a byte-level one maps bytes to their alphabet."""
    steps = [_build_step(step, add_prefix_space) for step in scheme.steps]
    if scheme.byte_level and _GPT2 not in scheme.steps:
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=False))
    return pre_tokenizers.Sequence(steps)


def _build_step(step: str, add_prefix_space: bool) -> pre_tokenizers.PreTokenizer:
    if step == _SINGLE_DIGITS:
        return pre_tokenizers.Digits(individual_digits=True)
    if step == _DIGIT_RUNS:
        return pre_tokenizers.Digits(individual_digits=False)
    if step == _PUNCTUATION_RUNS:
        return pre_tokenizers.Punctuation(behavior="contiguous")
    if step == _WORDS:
        return pre_tokenizers.WhitespaceSplit()
    if step == _GPT2:
        return pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=True)
    return pre_tokenizers.Split(Regex(step), behavior="isolated")
