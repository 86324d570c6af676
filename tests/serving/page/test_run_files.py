"""Tests runs as files: the exported ones match the schema, and nothing else is taken."""

from __future__ import annotations

import ast
import json
import random
import re
from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest

from decodery.pictures.markup import escaped
from decodery.serving.page.run_page import page_of
from tests.serving.live import LiveServer
from tests.serving.page.run_schema import FILE, run_schema, written
from tests.serving.page.test_run_page import changed

RUNS: Mapping[str, dict[str, Any]] = {
    "sampled": {"n": 2, "temperature": 1.2, "logprobs": 2, "prompt_logprobs": 1},
    "the best": {"n": 2, "best_of": 3},
    "beams": {"strategy": {"type": "beam_search", "num_beams": 3, "num_return_sequences": 2}},
    "groups of beams": {
        "strategy": {"type": "beam_search", "num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5}
    },
    "forced words": {"strategy": {"type": "beam_search", "num_beams": 3, "force_words": ["ab"]}},
    "stochastic beams": {"strategy": {"type": "stochastic_beam_search", "num_beams": 3}},
    "contrastive search": {"strategy": "contrastive_search"},
    "layers": {"strategy": {"type": "dola", "layers": [0, 1]}, "guidance_scale": 1.5},
    "drafts": {"speculate": {"type": "prompt_lookup"}, "temperature": 0},
    "a grammar": {"grammar": {"type": "regex", "pattern": "[ab]{3}c"}, "logit_bias": {"3": "-inf"}},
}
# Runs the requests, and returns the runs as they are exported.
EXPORTED = """async (all) => {
  const { Api } = await import("/assets/core/api.js");
  const { Runs } = await import("/assets/core/runs.js");
  const { toJson } = await import("/assets/core/run_json.js");
  const runs = new Runs(new Api(), { save: async () => {} });
  const { continuation } = await import("/assets/core/branches.js");
  const ended = async (some) => {
    while (some.some((run) => !run.ended)) await new Promise((done) => setTimeout(done, 5));
    return some;
  };
  const found = await ended(runs.start({ requests: all.map((params) => ({ prompt: "abcabcabc", params })) }));
  const [first] = found;
  const parent = { run: first.id, stream: 1, position: 3, token: 70 };
  const branch = continuation(first, first.streams[1], 3, [70]);
  found.push(...(await ended(runs.start({ requests: [branch], parent }))));
  return found.map((run) => JSON.stringify(toJson(run)));
}"""
# Reads files as an import does; returns each one's fault, or the JSON of its run.
READ = """async (texts) => {
  const { readRun, ImportError } = await import("/assets/core/import_run.js");
  const { toJson } = await import("/assets/core/run_json.js");
  const schema = await (await fetch("/assets/core/run_schema.json")).json();
  const found = [];
  for (const text of texts) {
    try {
      found.push({ run: JSON.stringify(toJson(await readRun(new File([text], "run.json"), schema))) });
    } catch (error) {
      found.push(error instanceof ImportError ? { refused: error.message } : { wrong: String(error.stack) });
    }
  }
  return found;
}"""
FAULTS = """async (texts) => {
  const { faultOf } = await import("/assets/core/check_schema.js");
  const schema = await (await fetch("/assets/core/run_schema.json")).json();
  return texts.map((text) => String(faultOf(JSON.parse(text), schema) ?? ""));
}"""


@pytest.fixture(scope="module")
def blank(browser: Any, server: LiveServer) -> Any:
    """Returns a page of the server that runs nothing by itself."""
    page = browser.new_page()
    page.goto(f"{server.url}/health")
    yield page
    page.close()


@pytest.fixture(scope="module")
def exported(blank: Any) -> list[str]:
    """Returns runs as the page exports them."""
    params = [{"max_tokens": 8, "seed": 5, **one} for one in RUNS.values()]
    found: list[str] = blank.evaluate(EXPORTED, params)
    return found


def read(page: Any, *texts: str) -> list[dict[str, str]]:
    """Returns what comes of files that are imported; nothing goes wrong but by a refusal of one line."""
    found: list[dict[str, str]] = page.evaluate(READ, list(texts))
    assert [one for one in found if "wrong" in one] == []
    assert not any("\n" in one.get("refused", "") for one in found)
    return found


def test_the_schema_is_that_of_the_classes_of_the_wire() -> None:
    jsonschema.Draft202012Validator.check_schema(run_schema())
    assert FILE.read_text(encoding="utf-8") == written(), "run python -m tests.serving.page.run_schema"


def test_exported_runs_match_the_schema_and_come_back_the_same(blank: Any, exported: list[str]) -> None:
    validator = jsonschema.Draft202012Validator(run_schema())
    for text in exported:
        run = json.loads(text)
        assert run["state"] == "done", run["error"]
        assert [error.message for error in validator.iter_errors(run)] == []
    assert [one.get("run") for one in read(blank, *exported)] == exported


@pytest.mark.page
def test_a_branch_keeps_the_choices_of_the_text_that_it_goes_on_from(blank: Any, exported: list[str]) -> None:
    run = json.loads(exported[-1])
    header, _, given, *_ = run["lines"]
    assert header["requests"][0]["generated"] == 4
    assert [position["picked"] for position in given["positions"]] == [False, False, False, True]
    code = """async (text) => {
      const { fromJson } = await import("/assets/core/run_json.js");
      const run = fromJson(JSON.parse(text));
      const { positions } = run.streams[0];
      const spelled = positions.filter(({ token }) => run.pieces.has(token));
      return [positions.length, spelled.length, run.promptTokenIds.length];
    }"""
    assert blank.evaluate(code, exported[-1]) == [8, 8, 9]
    assert escaped(header["requests"][0]["generated_text"]) in page_of(run)


@pytest.mark.page
def test_the_command_for_curl_gives_a_branch_again(
    blank: Any, exported: list[str], server: LiveServer
) -> None:
    code = """async (text) => {
      const { fromJson } = await import("/assets/core/run_json.js");
      const snippets = await import("/assets/core/snippets.js");
      const run = fromJson(JSON.parse(text));
      const place = { address: location.origin, keyed: false, described: null };
      const others = [snippets.python(run, place), snippets.cli(run, place)];
      return [snippets.curl(run, place), run.streams[0].tokens, others];
    }"""
    command, tokens, others = blank.evaluate(code, exported[-1])
    # `test_snippets.py` runs those of other branches.
    assert "params, generated=4)" in others[0]
    assert "--generated=4" in others[1]
    body = json.loads(command.split("<<'END'\n")[1].removesuffix("\nEND\n"))
    with server.client.stream("POST", "/trace", json=body) as answer:
        lines = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    [output] = [line["output"] for line in lines if line["kind"] == "output"]
    assert output["completions"][0]["token_ids"] == tokens[4:]


@pytest.mark.page
def test_a_page_of_a_run_is_imported_like_its_json(blank: Any, exported: list[str]) -> None:
    pages = [page_of(json.loads(text)) for text in exported]
    assert [json.loads(one["run"]) for one in read(blank, *pages)] == [json.loads(text) for text in exported]


@pytest.mark.page
def test_the_page_finds_the_faults_that_a_checker_of_json_schema_finds(
    blank: Any, exported: list[str]
) -> None:
    validator = jsonschema.Draft202012Validator(run_schema())
    drawn = random.Random(1)
    runs = [json.loads(text) for text in exported]
    texts = [json.dumps(changed(drawn.choice(runs), drawn)) for _ in range(150)]
    found = blank.evaluate(FAULTS, texts)
    expected = [validator.is_valid(json.loads(text)) for text in texts]
    assert [fault == "" for fault in found] == expected
    assert 10 < sum(expected) < 140


@pytest.mark.page
def test_a_damaged_run_is_refused_or_read_and_never_half(blank: Any, exported: list[str]) -> None:
    drawn = random.Random(2)
    runs = [json.loads(text) for text in exported]
    texts = []
    for _ in range(150):
        run = drawn.choice(runs)
        texts.append(json.dumps({**run, "lines": changed(run["lines"], drawn)}))
    found = read(blank, *texts)
    assert 20 < sum("refused" in one for one in found) < 150


def hostile(text: str) -> dict[str, tuple[str, str]]:
    """Returns files made of a run, and words of the reason why each is refused."""
    run = json.loads(text)
    header = run["lines"][0]
    twice = header["requests"] * 2
    event = next(place for place, line in enumerate(run["lines"]) if line["kind"] == "event")

    def with_event(**more: Any) -> str:
        lines = list(run["lines"])
        lines[event] = {"kind": "event", "event": {**lines[event]["event"], **more}}
        return json.dumps({**run, "lines": lines})

    def with_request(**more: Any) -> str:
        request = {**header["requests"][0], **more}
        return json.dumps({**run, "lines": [{**header, "requests": [request]}, *run["lines"][1:]]})

    return {
        "nothing": ("", "neither JSON"),
        "no JSON": ("<b>x", "neither JSON"),
        "a page without a run": ("<html><script>alert(1)</script></html>", "neither JSON"),
        "null": ("null", "not a run"),
        "a number": ("3", "not a run"),
        "a list": ("[]", "not a run"),
        "something else": ('{"format": "other"}', "not a run"),
        "an unknown version": (json.dumps({**run, "version": 2}), "has version 2; this page reads version 1"),
        "a version of markup": (json.dumps({**run, "version": "<img onerror=alert(1)>"}), "has version <img"),
        "a prototype": (text[:-1] + ', "__proto__": {"polluted": true}}', "__proto__"),
        "a prototype deep inside": (with_event(x=[{"y": {"constructor": {"prototype": 1}}}]), "constructor"),
        "depth": ('{"format":"decodery-run","x":' + "[" * 100_000 + "]" * 100_000 + "}", "deeper than 64"),
        "another trace": (json.dumps({**run, "lines": [{**header, "version": 9}]}), "lines.0.version"),
        "no lines": (json.dumps({**run, "lines": []}), "lines"),
        "an id of markup": (json.dumps({**run, "id": "<script>"}), "id must be like"),
        "a title of 1 MB": (json.dumps({**run, "title": "x" * 10**6}), "title"),
        "a stream far away": (with_event(stream=10**9), "stream"),
        "another request": (with_event(request=1), "request"),
        "a token that is not there": (with_event(tokens=[10**6], considered=[]), "not spelled"),
        "a token of text": (with_event(tokens=["<b>"]), "tokens"),
        "more choices than tokens": (with_event(tokens=[]), "choices"),
        "more drafts than there are": (with_event(accepted=3), "drafts"),
        "infinity": (json.dumps({**run, "created": 0.125}).replace("0.125", "1e999"), "created"),
        "parameters by a wrong name": (with_request(params={"x; rm -rf ~ #": 1}), "params"),
        "a seed that is not exact": (with_request(seed=2**60), "seed"),
        "two headers": (json.dumps({**run, "lines": [header, header]}), "second header"),
        "two requests": (json.dumps({**run, "lines": [{**header, "requests": twice}]}), "requests"),
        "lines after the end": (json.dumps({**run, "lines": [*run["lines"], {"kind": "end"}]}), "others"),
    }


@pytest.mark.page
def test_a_hostile_file_is_refused_with_one_clear_line(blank: Any, exported: list[str]) -> None:
    files = hostile(exported[0])
    found = read(blank, *(text for text, _ in files.values()))
    for (name, (_, words)), one in zip(files.items(), found, strict=True):
        assert words in one.get("refused", ""), (name, one)
        assert len(one["refused"]) < 300
    assert blank.evaluate("({}).polluted") is None


@pytest.mark.page
def test_a_file_that_is_too_large_is_refused_before_it_is_read(blank: Any) -> None:
    code = """async () => {
      const { readRun } = await import("/assets/core/import_run.js");
      const file = { size: 50_000_001, text: () => { throw new Error("it was read"); } };
      return await readRun(file, {}).catch((error) => error.message);
    }"""
    assert blank.evaluate(code) == "The file is larger than 50 MB."


@pytest.mark.page
def test_code_that_a_run_would_put_into_a_snippet_is_refused(blank: Any, exported: list[str]) -> None:
    code = """async ([text, all]) => {
      const { fromJson } = await import("/assets/core/run_json.js");
      const snippets = await import("/assets/core/snippets.js");
      const { SnippetError } = await import("/assets/core/snippet_texts.js");
      const found = [];
      for (const params of all) {
        const plain = JSON.parse(text);
        plain.lines[0].requests[0].params = params;
        const run = fromJson(plain);
        for (const form of ["python", "cli"]) {
          try {
            found.push(snippets[form](run, { address: "", keyed: false, described: null }));
          } catch (error) {
            if (!(error instanceof SnippetError)) throw error;
            found.push("refused");
          }
        }
      }
      return found;
    }"""
    evil = "EVIL"
    params = [
        {f"x={evil}()#": 1},
        {"strategy": {"type": "beam_search", f"x={evil}()#": 1}},
        {"strategy": {"type": evil}},
        {"strategy": {"type": "constructor"}},
        {"strategy": [evil]},
        {"grammar": {"type": f"lark;{evil}", "grammar": "x"}},
        {"grammar": {"type": "regex"}},
        {"watermark": {f"x={evil}()#": 1}},
        {"logit_bias": {f"1: {evil}()}}#": 1}},
        {"logit_bias": {"1": [evil]}},
        {"logit_bias": [evil]},
        {"sequence_bias": [["a", [evil]]]},
        {"sequence_bias": evil},
        {"speculate": {"type": evil}},
        {"speculate": {"type": "draft_model", "model": {"x": evil}}},
    ]
    found = blank.evaluate(code, [exported[0], params])
    for python, cli in zip(found[::2], found[1::2], strict=True):
        names = {node.id for node in ast.walk(ast.parse(python)) if isinstance(node, ast.Name)}
        assert evil not in names
        # Nothing of it is left where a shell reads: it is a value of a flag, or quoted.
        assert evil not in re.sub(rf"'[^']*'|={evil}(?= |$)", "", cli, flags=re.MULTILINE), cli
