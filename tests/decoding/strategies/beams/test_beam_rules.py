"""Compares beams with transformers: with the installed version 5, and with texts recorded from 4.48."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.strategy_params import BeamSearch
from decodery.errors import ParameterError
from tests.decoding.strategies.searching import Outcome, load, markov, row_of, run_searches, search
from tests.engine.runs import make_engine
from tests.models.tiny import tiny_llama_folder

DATA = Path(__file__).parents[3] / "data"
ORACLE = json.loads((DATA / "decoding-smollm2.json").read_text(encoding="utf-8"))["cases"]
TINY = json.loads((DATA / "beams-tiny.json").read_text(encoding="utf-8"))["cases"]
STRATEGY = ("num_beams", "length_penalty", "early_stopping", "num_return_sequences")
GROUPS = ("num_beam_groups", "diversity_penalty")
PAD = 96


def params_of(args: dict[str, Any], **rules: Any) -> GenerationParams:
    """Returns the parameters that correspond to these arguments of transformers."""
    strategy = {name: args[name] for name in (*STRATEGY, *GROUPS) if name in args}
    words = tuple(
        tuple(tuple(part) if isinstance(part, list) else part for part in word)
        for word in args.get("force_words_ids", ())
    )
    return GenerationParams(
        max_tokens=args.get("max_new_tokens", 40),
        min_tokens=args.get("min_new_tokens", 0),
        repetition_penalty=args.get("repetition_penalty", 1.0),
        no_repeat_ngram_size=args.get("no_repeat_ngram_size", 0),
        bad_words=tuple(tuple(word) for word in args.get("bad_words_ids", ())),
        strategy=BeamSearch(**strategy, force_words=words, **rules),
    )


@pytest.mark.slow
def test_beams_by_the_rules_of_4_are_the_recorded_ones_all_in_one_batch(default_llm: Any) -> None:
    cases = [case for case in ORACLE if "num_beams" in case["args"]]
    assert len(cases) == 11
    outputs = default_llm.generate(
        [case["prompt_ids"] for case in cases],
        [params_of(case["args"], rules="transformers-4") for case in cases],
    )
    for case, output in zip(cases, outputs, strict=True):
        assert [c.token_ids for c in output.completions] == case["sequences"], case["name"]
        assert [c.score for c in output.completions] == pytest.approx(case["scores"], abs=1e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama_folder(tmp_path_factory.mktemp("tiny"))


def test_beams_groups_and_constraints_by_the_rules_of_4_are_those_of_transformers_4_48(folder: Path) -> None:
    model = load(folder)
    for case in TINY:
        engine = make_engine(model, end_ids=case["end"])
        (events,) = run_searches(engine, [(case["prompt"], params_of(case["args"], rules="transformers-4"))])
        assert [list(e.tokens) for e in events] == case["sequences"], case
        assert [e.score for e in events] == pytest.approx(case["scores"], abs=1e-3)


def random_args(rng: random.Random, end_ids: Sequence[int]) -> dict[str, Any]:
    beams = rng.randint(2, 6)
    args: dict[str, Any] = {
        "num_beams": beams,
        "num_return_sequences": rng.randint(1, beams),
        "length_penalty": rng.choice([0.0, 0.5, 1.0, 2.0, -1.0]),
        "early_stopping": rng.choice([True, False, "never"]),
        "max_new_tokens": rng.randint(1, 14),
    }
    if rng.random() < 0.4:
        args["repetition_penalty"] = 1.3
    if rng.random() < 0.3:
        args["min_new_tokens"] = rng.randint(1, args["max_new_tokens"])
    if rng.random() < 0.3:
        args["no_repeat_ngram_size"] = 2
    if rng.random() < 0.3:
        # transformers allows end tokens, whatever the bad words.
        bad = [token for token in range(97) if token not in end_ids]
        args["bad_words_ids"] = [[rng.choice(bad)], rng.choices(bad, k=2)]
    return args


def theirs_of(
    model: Any, prompt: Sequence[int], end_ids: Sequence[int], **args: Any
) -> tuple[list[list[int]], list[float]]:
    """Returns the texts, padded, and the scores of transformers' beams."""
    found = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        eos_token_id=list(end_ids) or None,
        pad_token_id=PAD,
        output_scores=True,
        return_dict_in_generate=True,
        **{"do_sample": False, **args},
    )
    return [text[len(prompt) :] for text in found.sequences.tolist()], found.sequences_scores.tolist()


def agree(ours: Any, theirs: tuple[list[list[int]], list[float]], *, ordered: bool = True) -> bool:
    """True if our endings or events have their scores and texts.

    Not `ordered`, texts are equal if they have the same tokens. Texts that pass through the pairs of a table
    in another order have the same score.
    """
    texts, scores = theirs
    if [e.score for e in ours] != pytest.approx(scores, rel=1e-4, abs=1e-4):
        return False
    padded = [[*e.tokens, *[PAD] * len(texts[0])][: len(texts[0])] for e in ours]
    return padded == texts if ordered else [sorted(t) for t in padded] == [sorted(t) for t in texts]


def test_beams_are_those_of_transformers_5_over_random_parameters(folder: Path) -> None:
    from transformers import LlamaForCausalLM

    theirs = LlamaForCausalLM.from_pretrained(folder).eval()
    model = load(folder)
    rng = random.Random(0)
    ended = 0
    for _ in range(60):
        prompt = [rng.randrange(97) for _ in range(rng.randint(1, 8))]
        with torch.no_grad():
            likely = theirs(torch.tensor([prompt])).logits[0, -1].topk(8).indices.tolist()
        end_ids = rng.sample(likely, rng.choice([1, 1, 2, 4]))
        args = random_args(rng, end_ids)
        (events,) = run_searches(make_engine(model, end_ids=end_ids), [(prompt, params_of(args))])
        assert agree(events, theirs_of(theirs, prompt, end_ids, **args)), (args, prompt, end_ids)
        ended += sum(e.finish == "stop" for e in events)
    assert ended > 30, "end tokens must occur"


def table_model(table: Tensor) -> Any:
    """Returns a model of transformers whose logits after a token are `table[token]`."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.modeling_outputs import CausalLMOutput

    class TableModel(LlamaForCausalLM):  # type: ignore[misc]
        def forward(self, input_ids: Tensor, **ignored: Any) -> Any:
            return CausalLMOutput(logits=table[input_ids])

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = TableModel(LlamaConfig(vocab_size=len(table), **sizes)).eval()
    model.generation_config.use_cache = False
    return model


GRID = list(
    itertools.product(
        (2, 3, 5),  # num_beams
        (-1.0, 0.0, 0.7, 2.0),  # length_penalty
        (True, False, "never"),  # early_stopping
        (1, 2, 4, 9),  # max_new_tokens
    )
)


@pytest.mark.parametrize("likely", [0.0, 1.5, 4.0], ids=["rare ends", "ends", "frequent ends"])
def test_beams_are_those_of_transformers_5_over_a_grid(likely: float) -> None:
    rng = random.Random(likely)
    finishes = set()
    for number, (beams, penalty, early, most) in enumerate(GRID):
        end_ids = rng.sample(range(40), rng.choice([0, 1, 1, 2, 3]))
        table = markov(40, seed=number)
        table[:, end_ids] += likely
        least = rng.choice([0, 0, rng.randint(0, most)])
        strategy = BeamSearch(beams, penalty, early, rng.randint(1, beams))  # type: ignore[arg-type]
        ours = search(row_of(strategy, most, end_ids, min_tokens=least), table).endings
        theirs = theirs_of(
            table_model(table),
            [0],
            end_ids,
            num_beams=beams,
            length_penalty=penalty,
            early_stopping=early,
            max_new_tokens=most,
            min_new_tokens=least,
            num_return_sequences=strategy.num_return_sequences,
        )
        assert agree(ours, theirs, ordered=False), (strategy, most, least, end_ids, number)
        finishes |= {e.finish for e in ours}
    assert finishes == {"stop", "length"}


def test_drawn_beams_are_those_of_transformers_5_where_no_draw_is_in_doubt() -> None:
    rng = random.Random(3)
    compared = 0
    for number in range(30):
        # The gaps between most logits are so large that draws follow the order of the sums.
        source = torch.Generator().manual_seed(number)
        ranks = torch.stack([torch.randperm(12, generator=source) for _ in range(12)])
        table = -17.0 * (ranks + 0.8 * torch.rand(12, 12, generator=source))
        args = {
            "num_beams": 2,
            "num_return_sequences": 2,
            "max_new_tokens": rng.randint(1, 3),
            "length_penalty": rng.choice([0.0, 1.0]),
            "early_stopping": rng.choice([True, False, "never"]),
        }
        end_ids = rng.sample(range(12), 1)
        strategy = BeamSearch(**{name: args[name] for name in STRATEGY}, sample=True)
        row = row_of(strategy, args["max_new_tokens"], end_ids)
        ours = [search(replace(row, seed=seed), table).endings for seed in range(20)]
        if any(endings != ours[0] for endings in ours):
            continue
        compared += 1
        theirs = theirs_of(table_model(table), [0], end_ids, **args, do_sample=True, top_k=0)
        assert agree(ours[0], theirs), (args, end_ids, number)
    assert compared > 10


def test_a_drawn_text_is_cut_off_only_among_the_first_drawn() -> None:
    # Of two draws the first is returned, also where the second is likelier.
    table = torch.tensor([[0.0, 1.0, -1.0, -torch.inf]])
    count = 2000
    rows = [row_of(BeamSearch(1, sample=True), 1, seed=s) for s in range(count)]
    seen = Counter(search(row, table).tokens[0][0] for row in rows)
    shares = table[0, :3].double().softmax(0).tolist()
    assert chisquare([seen[i] for i in range(3)], [s * count for s in shares]).pvalue > 1e-3


def outcome_by(rules: Any, table: Tensor, most: int, **strategy: Any) -> Outcome:
    """Returns the outcome of a search of two beams; token 0 ends a text."""
    return search(row_of(BeamSearch(2, num_return_sequences=2, rules=rules, **strategy), most, [0]), table)


def test_texts_cut_off_at_the_limit_compete_with_ended_ones_by_the_rules_of_5_alone() -> None:
    # At the limit two texts have ended; one that is cut off scores higher.
    table = torch.tensor([[-0.5, -5.0, 0.0], [0.0, 0.0, 0.0], [-1.0, -9.0, 0.0]])
    assert outcome_by("transformers-5", table, 2, early_stopping=True).tokens == [(2, 2), (2, 0)]
    assert outcome_by("transformers-4", table, 2, early_stopping=True).tokens == [(2, 0), (0,)]


def test_the_best_live_beam_decides_by_the_rules_of_5_and_the_best_candidate_by_those_of_4() -> None:
    # After two steps the text that just ended scores higher than the other one, and live beams lower.
    table = torch.tensor([[-4.0, 0.0, -6.0], [0.0, -5.0, -9.0], [0.0, 0.0, 0.0]])
    assert len(outcome_by("transformers-5", table, 6, length_penalty=0.0).rows) == 2
    assert len(outcome_by("transformers-4", table, 6, length_penalty=0.0).rows) == 3


@pytest.mark.parametrize("only_by_4", [{"num_beam_groups": 2}, {"force_words": ((1,),)}])
def test_groups_and_forced_words_follow_the_rules_of_4_and_exclude_those_of_5(only_by_4: Any) -> None:
    assert BeamSearch(4).rules_in_force == "transformers-5"
    assert BeamSearch(4, **only_by_4).rules_in_force == "transformers-4"
    assert BeamSearch(4, **only_by_4, rules="transformers-4").rules_in_force == "transformers-4"
    (name,) = only_by_4
    with pytest.raises(ParameterError, match=f"{name} and rules='transformers-5'"):
        BeamSearch(4, **only_by_4, rules="transformers-5")


def test_unknown_rules_are_refused() -> None:
    with pytest.raises(ParameterError, match="rules must be 'transformers-5' or 'transformers-4'"):
        BeamSearch(2, rules="5")  # type: ignore[arg-type]
