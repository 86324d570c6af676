"""Tests the folders of sentence-transformers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from decodery import LLM, ModelError, ParameterError
from tests.encoding.folders import MEAN, NORMALIZE, Module, sentence_folder, write_json
from tests.encoding.states import states_of

WIDTH = 24
TEXT = "the dog sat on the mat"
PROMPTS = {"query": "query: ", "passage": "passage: ", "other": "what is it"}


def pooling(*flags: str, **config: Any) -> Module:
    """Returns a Pooling with the older keys."""
    return "Pooling", {
        "word_embedding_dimension": WIDTH,
        **{f"pooling_mode_{f}": True for f in flags},
        **config,
    }


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def close(found: Any, right: Any) -> None:
    np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-5)


WEIGHTS = torch.arange(1, 9, dtype=torch.float32)[:, None]
POOLED: Mapping[str, tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "cls": ("cls_token", lambda states: states[0]),
    "max": ("max_tokens", lambda states: states.amax(0)),
    "mean": ("mean_tokens", lambda states: states.mean(0)),
    "mean_sqrt_len": ("mean_sqrt_len_tokens", lambda states: states.sum(0) / math.sqrt(len(states))),
    "weightedmean": ("weightedmean_tokens", lambda states: (states * WEIGHTS).sum(0) / WEIGHTS.sum()),
    "lasttoken": ("lasttoken", lambda states: states[-1]),
}


@pytest.mark.parametrize("name", POOLED)
def test_a_folder_pools_as_its_files_say(tmp_path: Path, name: str) -> None:
    flag, right = POOLED[name]
    states = states_of(sentence_folder(tmp_path, [pooling(flag)]), TEXT)
    llm = LLM(tmp_path)
    found = llm.embed(TEXT)
    close(found[0], right(states))
    assert found.pooling == name
    close(llm.embed(TEXT, pooling="max")[0], states.amax(0))
    write_json(tmp_path / "1_Pooling" / "config.json", {"embedding_dimension": WIDTH, "pooling_mode": name})
    assert np.array_equal(LLM(tmp_path).embed(TEXT).vectors, found.vectors)


@pytest.mark.parametrize("text", ["", "dog", TEXT])
def test_the_cls_token_of_xlnet_is_the_last_one(tmp_path: Path, text: str) -> None:
    sizes = {"d_model": WIDTH, "n_layer": 2, "n_head": 3, "d_inner": 40}
    folder = sentence_folder(
        tmp_path,
        [pooling("cls_token", "mean_tokens")],
        architecture="XLNetModel",
        tokenizer="unigrams before cls",
        **sizes,
    )
    llm = LLM(folder)
    states = states_of(folder, text)
    found = llm.embed(["cat sat", text])
    assert found.pooling == "cls+mean"
    close(found[1], torch.cat([states[-1], states.mean(0)]).numpy())
    close(llm.embed(text, pooling="cls")[0], states[-1])
    ids = llm.tokenizer.encode(text)
    assert ids[-1] == llm.tokenizer.named_ids["cls"]


def test_several_poolings_are_concatenated_in_the_order_of_sentence_transformers(tmp_path: Path) -> None:
    states = states_of(sentence_folder(tmp_path, [pooling("mean_tokens", "cls_token"), NORMALIZE]), TEXT)
    right = torch.cat([states[0], states.mean(0)]).numpy()
    close(LLM(tmp_path).embed(TEXT)[0], unit(right))


def test_the_modules_behind_a_pooling_are_computed_in_their_order(tmp_path: Path) -> None:
    torch.manual_seed(1)
    layers = [dense(tmp_path / "2_Dense", WIDTH, 10, "torch.nn.modules.activation.Tanh")]
    layers.append(dense(tmp_path / "3_Dense", 10, 7, "torch.nn.modules.linear.Identity", bias=False))
    norm = torch.nn.LayerNorm(7)
    torch.nn.init.normal_(norm.weight)
    norms = {f"norm.{name}": value.data for name, value in norm.named_parameters()}
    modules = [
        MEAN,
        ("Dense", layers[0][1]),
        ("Dense", layers[1][1]),
        ("LayerNorm", {"dimension": 7}),
        NORMALIZE,
    ]
    states = states_of(sentence_folder(tmp_path, modules), TEXT)
    save_file(norms, tmp_path / "4_LayerNorm" / "model.safetensors")
    with torch.no_grad():
        right = norm(layers[1][0](layers[0][0](states.mean(0)).tanh())).numpy()
    llm = LLM(tmp_path)
    close(llm.embed(TEXT)[0], unit(right))
    close(llm.embed(TEXT, normalize=False)[0], right)
    texts = ["cat", TEXT, "bank " * 9]
    assert np.array_equal(llm.embed(texts)[1], llm.embed(TEXT)[0])
    with pytest.raises(ParameterError, match="pooling 'cls\\+max' gives a vector of another width"):
        llm.embed(TEXT, pooling="cls+max")


def dense(
    folder: Path, inputs: int, outputs: int, activation: str, bias: bool = True
) -> tuple[Any, dict[str, Any]]:
    linear = torch.nn.Linear(inputs, outputs, bias=bias)
    config = {"in_features": inputs, "out_features": outputs, "bias": bias, "activation_function": activation}
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"linear.{name}": value.data for name, value in linear.named_parameters()}
    save_file(tensors, folder / "model.safetensors")
    return linear, config


def test_a_cut_vector_has_the_length_1_where_the_folder_normalises(tmp_path: Path) -> None:
    sentence_folder(tmp_path)
    llm = LLM(tmp_path)
    whole, cut = llm.embed(TEXT)[0], llm.embed(TEXT, truncate_dim=4)[0]
    close(np.linalg.norm(cut), 1.0)
    close(cut, unit(whole[:4]))
    close(llm.embed(TEXT, truncate_dim=4, normalize=False)[0], llm.embed(TEXT, normalize=False)[0][:4])
    assert llm.embed([], truncate_dim=4).vectors.shape == (0, 4)
    close(llm.embed(TEXT, truncate_dim=np.int64(4))[0], cut)  # type: ignore[arg-type]
    for wrong in (0, 25, 2.0, True):
        with pytest.raises(ParameterError, match="truncate_dim must be a whole number from 1 to 24"):
            llm.embed(TEXT, truncate_dim=wrong)  # type: ignore[arg-type]


def test_a_folder_says_how_many_dimensions_are_kept(tmp_path: Path) -> None:
    whole = LLM(sentence_folder(tmp_path)).embed(TEXT)[0]
    file = tmp_path / "config_sentence_transformers.json"
    write_json(file, {"truncate_dim": 4})
    llm = LLM(tmp_path)
    close(llm.embed(TEXT)[0], unit(whole[:4]))
    assert llm.embed([]).vectors.shape == (0, 4)
    close(llm.embed(TEXT, truncate_dim=9)[0], unit(whole[:9]))
    close(llm.embed(TEXT, truncate_dim=WIDTH)[0], whole)
    assert llm.embed(TEXT, pooling="cls+max").vectors.shape == (1, 4)
    write_json(file, {"truncate_dim": None})
    close(LLM(tmp_path).embed(TEXT)[0], whole)
    for wrong in (0, 25, "4"):
        write_json(file, {"truncate_dim": wrong})
        with pytest.raises(ModelError, match=r"config_sentence_transformers\.json.*truncate_dim"):
            LLM(tmp_path).embed(TEXT)


def test_the_limit_of_sentence_transformers_holds_whatever_the_tokenizer_cuts(tmp_path: Path) -> None:
    sentence_folder(tmp_path, sentence_bert={"max_seq_length": 40, "do_lower_case": False})
    file = tmp_path / "tokenizer.json"
    stored = json.loads(file.read_text())
    stored["truncation"] = {"direction": "Right", "max_length": 20, "strategy": "LongestFirst", "stride": 0}
    stored["padding"] = {
        **{"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None},
        **{"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
    }
    file.write_text(json.dumps(stored))
    llm = LLM(tmp_path)
    assert llm.text_limit == 40
    assert llm.embed("dog " * 38).tokens.tolist() == [40]
    assert llm.embed("dog " * 50, long="cut").tokens.tolist() == [40]
    assert llm.embed("dog").tokens.tolist() == [3]


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, 64),
        ({"tokenizer_config.json": {"model_max_length": 30}}, 30),
        ({"tokenizer_config.json": {"model_max_length": 10**30}}, 64),
        (
            {
                "tokenizer_config.json": {"model_max_length": 30},
                "sentence_bert_config.json": {"max_seq_length": 50},
            },
            50,
        ),
        ({"sentence_bert_config.json": {"max_seq_length": None}}, 64),
        ({"sentence_bert_config.json": {"max_seq_length": 700}}, 64),
        ({"sentence_roberta_config.json": {"max_seq_length": 17}}, 17),
    ],
)
def test_the_limit_is_the_first_that_the_files_name_and_never_above_the_context(
    tmp_path: Path, files: Mapping[str, Any], limit: int
) -> None:
    sentence_folder(tmp_path)
    for name, content in files.items():
        kept = json.loads((tmp_path / name).read_text()) if (tmp_path / name).exists() else {}
        write_json(tmp_path / name, {**kept, **content})
    assert LLM(tmp_path).text_limit == limit


def test_the_512_positions_of_roberta_are_the_limit_and_not_its_514_rows(tmp_path: Path) -> None:
    sentence_folder(
        tmp_path,
        sentence_bert={"max_seq_length": 514},
        architecture="RobertaModel",
        tokenizer="byte pairs",
        max_position_embeddings=514,
    )
    llm = LLM(tmp_path)
    assert llm.text_limit == 512
    assert llm.embed("dog" + " dog" * 509).tokens.tolist() == [512]


def test_a_model_in_a_folder_of_its_own_is_found(tmp_path: Path) -> None:
    inner = sentence_folder(
        tmp_path,
        transformer="0_Transformer",
        sentence_bert={"max_seq_length": 20},
        settings={"prompts": PROMPTS},
    )
    llm = LLM(inner)
    close(llm.embed(TEXT)[0], unit(states_of(inner / "0_Transformer", TEXT).mean(0).numpy()))
    assert llm.text_limit == 20
    assert not np.array_equal(llm.embed(TEXT, query=True)[0], llm.embed(TEXT)[0])


def test_prompts_stand_before_the_text(tmp_path: Path) -> None:
    sentence_folder(tmp_path, settings={"prompts": PROMPTS, "default_prompt_name": "other"})
    llm = LLM(tmp_path)

    def plain(text: str) -> Any:
        return llm.embed(text, prompt="").vectors

    assert np.array_equal(llm.embed("dog", query=True), plain("query: dog"))
    assert np.array_equal(llm.embed("dog", document=True), plain("passage: dog"))
    assert np.array_equal(llm.embed("dog", prompt_name="query"), plain("query: dog"))
    assert np.array_equal(llm.embed("dog", prompt="red "), plain("red dog"))
    assert np.array_equal(llm.embed("dog"), plain("what is itdog"))
    ids = llm.tokenizer.encode("dog")
    assert np.array_equal(llm.embed([ids]), plain("dog")), "token ids are taken as they are"
    with pytest.raises(ParameterError, match="'query', 'passage', 'other', not 'nothing'"):
        llm.embed("dog", prompt_name="nothing")
    with pytest.raises(ParameterError, match="give one of prompt_name and query"):
        llm.embed("dog", prompt_name="other", query=True)


def test_queries_and_documents_have_no_prompt_where_the_folder_has_none(tmp_path: Path) -> None:
    llm = LLM(sentence_folder(tmp_path))
    assert np.array_equal(llm.embed("dog", query=True), llm.embed("dog"))
    assert np.array_equal(llm.embed("dog", document=True), llm.embed("dog"))


@pytest.mark.parametrize("flag", ["mean_tokens", "cls_token", "lasttoken", "weightedmean_tokens"])
def test_a_prompt_that_is_not_pooled_leaves_the_text_and_what_follows(tmp_path: Path, flag: str) -> None:
    modules = [pooling(flag, include_prompt=False)]
    sentence_folder(tmp_path, modules, settings={"prompts": {"q": "what is"}, "default_prompt_name": "q"})
    llm = LLM(tmp_path)
    for text in ("the red dog", "cat"):
        states = states_of(tmp_path, "what is " + text)
        weights = torch.arange(1, len(states) + 1)[3:, None]
        right = {
            "mean_tokens": states[3:].mean(0),
            "cls_token": states[3],
            "lasttoken": states[-1],
            "weightedmean_tokens": (states[3:] * weights).sum(0) / weights.sum(),
        }
        found = llm.embed([text, "the long word dog"], prompt="what is ")
        close(found[0], right[flag])
        close(llm.embed(text, prompt="")[0], llm.embed([llm.tokenizer.encode(text)])[0])


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (
            [pooling("mean_tokens", word_embedding_dimension=25)],
            "word_embedding_dimension is 25; it must be 24",
        ),
        ([pooling(pooling_mode_mean_tokens=False)], "no pooling_mode is true"),
        ([pooling("mean_tokens", pooling_mode="cls")], "pooling_mode says cls, the older keys say mean"),
        ([pooling(pooling_mode="median")], "pooling_mode is 'median'; it must be one or several of cls, max"),
        (
            [pooling(pooling_mode_cls_token="yes")],
            "pooling_mode_cls_token is 'yes'; it must be true or false",
        ),
        ([MEAN, MEAN], "lists a second Pooling"),
        ([NORMALIZE], "lists Normalize before a Pooling"),
        ([], "has no Pooling"),
        ([MEAN, ("CNN", {})], "lists a CNN, which is not supported: supported are Transformer, Pooling"),
        ([MEAN, ("Dense", {"in_features": 25, "out_features": 3})], "2_Dense holds no weights"),
    ],
)
def test_a_folder_that_contradicts_itself_is_one_clear_error(
    tmp_path: Path, modules: list[Module], message: str
) -> None:
    llm = LLM(sentence_folder(tmp_path, modules))
    with pytest.raises(ModelError, match=message) as caught:
        llm.embed(TEXT)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": {"a": 3}}, "prompts: a is 3; it must be a string"),
        ({"default_prompt_name": "q"}, "default_prompt_name is 'q'; it must be the name of a prompt"),
        ({"similarity_fn_name": "jaccard"}, "similarity_fn_name is 'jaccard'; it must be one of cosine"),
    ],
)
def test_wrong_settings_name_their_key(tmp_path: Path, settings: Mapping[str, Any], message: str) -> None:
    llm = LLM(sentence_folder(tmp_path, settings=settings))
    with pytest.raises(ModelError, match=message):
        llm.embed(TEXT)


def test_a_dense_of_another_width_names_both(tmp_path: Path) -> None:
    _, config = dense(tmp_path / "2_Dense", 25, 3, "torch.nn.modules.activation.Tanh")
    llm = LLM(sentence_folder(tmp_path, [MEAN, ("Dense", config)]))
    with pytest.raises(ModelError, match="in_features is 25; it must be 24"):
        llm.embed(TEXT)


def test_a_module_outside_the_folder_is_refused(tmp_path: Path) -> None:
    sentence_folder(tmp_path)
    listed = json.loads((tmp_path / "modules.json").read_text())
    listed[1]["path"] = "../elsewhere"
    write_json(tmp_path / "modules.json", listed)
    llm = LLM(tmp_path)
    with pytest.raises(ModelError, match="must be a folder within the model's folder"):
        llm.embed(TEXT)


def test_texts_are_in_lower_case_where_the_folder_says_so(tmp_path: Path) -> None:
    sentence_folder(tmp_path, sentence_bert={"do_lower_case": True}, tokenizer="byte pairs")
    llm = LLM(tmp_path)
    assert np.array_equal(llm.embed("The DOG"), llm.embed("the dog"))


def test_a_token_at_the_border_of_prompt_and_text_belongs_to_the_text(tmp_path: Path) -> None:
    sentence_folder(tmp_path, [pooling("cls_token", include_prompt=False)], tokenizer="byte pairs")
    llm = LLM(tmp_path)
    states = states_of(tmp_path, "the red dog cat")
    close(llm.embed("dog cat", prompt="the red ")[0], states[3])
    close(llm.embed(" dog cat", prompt="the red")[0], states[3])
