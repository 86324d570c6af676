"""Tests `decodery embed`: what it reads and writes, and that it goes on after it was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from decodery import LLM
from decodery.cli.resumable_file import ResumableFile
from tests.cli.conftest import Run
from tests.encoding.folders import encoder_folder, sentence_folder

TEXTS = ["the dog sat", "", "bank of the river, and money"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(sentence_folder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture(scope="module")
def vectors(encoder: str) -> Any:
    return LLM(encoder).embed(TEXTS).vectors


def lines(path: Path, texts: list[str] = TEXTS, end: str = "\n") -> str:
    path.write_bytes("".join(text + end for text in texts).encode())
    return str(path)


def read(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_each_line_has_a_line_of_json(decodery: Run, encoder: str, vectors: Any, tmp_path: Path) -> None:
    ran = decodery("embed", lines(tmp_path / "in.txt"), "-m", encoder)
    assert (ran.status, ran.err) == (0, "")
    found = read(ran.out)
    assert [(one["tokens"], one["lost"]) for one in found] == [(5, 0), (2, 0), (9, 0)]
    assert np.array_equal(np.array([one["embedding"] for one in found], np.float32), vectors)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_stdin_is_read_without_files(decodery: Run, encoder: str, vectors: Any, end: str) -> None:
    lines = ("\ufeff" + end.join(TEXTS)).encode()
    ran = decodery("embed", "-m", encoder, stdin=lines)
    assert decodery("embed", "-m", encoder, "-", stdin=lines).out == ran.out
    assert np.array_equal(np.array([one["embedding"] for one in read(ran.out)], np.float32), vectors)


def test_lines_of_json_are_texts_objects_or_token_ids(decodery: Run, encoder: str, tmp_path: Path) -> None:
    llm = LLM(encoder)
    ids = llm.tokenizer.encode("cat")
    values = ["dog", {"id": 7, "text": "bank"}, ids]
    path = lines(tmp_path / "in.jsonl", [json.dumps(value) for value in values])
    found = read(decodery("embed", path, "-m", encoder).out)
    right = llm.embed(["dog", "bank", "cat"]).vectors
    assert np.array_equal(np.array([one["embedding"] for one in found], np.float32), right)
    assert [one.get("id") for one in found] == [None, 7, None]
    named = json.dumps({"body": "bank"}).encode()
    found = read(decodery("embed", "-m", encoder, "--jsonl", "--field", "body", stdin=named).out)
    assert np.array_equal(np.array(found[0]["embedding"], np.float32), right[1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("dog\n" + "cat " * 70 + "\nbank\n", "line 2 of {file}: the text has 70 tokens, and 62 fit"),
        (b"dog\n\xff\n", "line 2 of {file} is not UTF-8"),
    ],
)
def test_an_error_names_the_line(
    decodery: Run, encoder: str, tmp_path: Path, content: str | bytes, message: str
) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    ran = decodery("embed", str(path), "-m", encoder)
    assert ran.status == 1
    assert message.format(file=path) in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 of {file} is not JSON"),
        ('{"a": "x"}', "line 1 of {file}: there is no field 'text', only 'a'"),
        ("3", "line 1 of {file}: a text must be a string or a list of token ids, not int"),
        ("[1, 9999]", "line 1 of {file}: token id 9999 at place 1 is outside the vocabulary"),
        ("[]", "line 1 of {file}: there are no token ids"),
    ],
)
def test_wrong_json_names_the_line(
    decodery: Run, encoder: str, tmp_path: Path, line: str, message: str
) -> None:
    path = lines(tmp_path / "in.jsonl", [line, '"dog"'])
    ran = decodery("embed", path, "-m", encoder)
    assert ran.status != 0
    assert message.format(file=path) in ran.err


def test_arrays_hold_the_vectors(decodery: Run, encoder: str, vectors: Any, tmp_path: Path) -> None:
    path = lines(tmp_path / "in.txt")
    for precision, right in {
        "float32": vectors,
        "binary": LLM(encoder).embed(TEXTS, precision="binary"),
    }.items():
        out = tmp_path / precision
        for suffix in (".npy", ".safetensors"):
            ran = decodery("embed", path, "-m", encoder, "--out", f"{out}{suffix}", "--precision", precision)
            assert (ran.status, ran.out) == (0, "")
        assert np.array_equal(np.load(f"{out}.npy"), np.asarray(right))
        assert np.load(f"{out}.npy").dtype == np.asarray(right).dtype
        assert np.array_equal(load_file(f"{out}.safetensors")["embeddings"], np.asarray(right))


def test_no_lines_give_an_empty_array(decodery: Run, encoder: str, tmp_path: Path) -> None:
    for suffix in ("npy", "safetensors", "jsonl"):
        out = tmp_path / f"out.{suffix}"
        assert decodery("embed", "-m", encoder, "--out", str(out), stdin=b"").status == 0
    assert np.load(tmp_path / "out.npy").shape == (0, 24)
    assert load_file(tmp_path / "out.safetensors")["embeddings"].shape == (0, 24)
    assert (tmp_path / "out.jsonl").read_text() == ""


def test_ranges_of_a_file_make_int8(decodery: Run, encoder: str, vectors: Any, tmp_path: Path) -> None:
    path, ranges = lines(tmp_path / "in.txt"), tmp_path / "ranges.npy"
    ran = decodery("embed", path, "-m", encoder, "--precision", "int8")
    assert ran.status == 2
    assert "needs ranges=" in ran.err
    np.save(ranges, np.stack([vectors.min(0), vectors.max(0)]))
    ran = decodery("embed", path, "-m", encoder, "--precision", "int8", "--ranges", str(ranges))
    assert (
        read(ran.out)[0]["embedding"]
        == LLM(encoder).embed(TEXTS, precision="int8", ranges=np.load(ranges))[0].tolist()
    )


def test_texts_that_were_cut_are_counted(decodery: Run, encoder: str) -> None:
    ran = decodery("embed", "-m", encoder, "--long", "cut", stdin=b"cat\n" + b"dog " * 70)
    assert [one["lost"] for one in read(ran.out)] == [0, 8]
    assert ran.err == "decodery: a text was too long, and its end was cut off\n"
    ran = decodery(
        "embed", "-m", encoder, "--long", "cut", stdin=b"cat\n" + b"dog " * 70 + b"\n" + b"dog " * 90
    )
    assert ran.err == "decodery: 2 texts were too long, and their ends were cut off\n"


def test_a_file_that_exists_is_replaced_only_when_asked(decodery: Run, encoder: str, tmp_path: Path) -> None:
    path, out = lines(tmp_path / "in.txt"), tmp_path / "out.npy"
    out.write_bytes(b"precious")
    ran = decodery("embed", path, "-m", encoder, "--out", str(out))
    assert ran.status == 2
    assert f"{out} exists already" in ran.err
    assert out.read_bytes() == b"precious"
    assert decodery("embed", path, "-m", encoder, "--out", str(out), "--overwrite").status == 0
    assert np.load(out).shape == (3, 24)


def test_the_suffix_of_out_names_a_format(decodery: Run, encoder: str, tmp_path: Path) -> None:
    ran = decodery("embed", "-m", encoder, "--out", str(tmp_path / "out.csv"), stdin=b"a")
    assert ran.status == 2
    assert "out must end in .jsonl or .npy or .safetensors, not 'out.csv'" in ran.err


def test_a_terminal_is_told_how_to_give_lines(decodery: Run, encoder: str) -> None:
    ran = decodery("embed", "-m", encoder)
    assert ran.status == 2
    assert "name files to read, or give lines through a pipe" in ran.err


def test_a_model_that_continues_texts_is_one_clear_error(decodery: Run, model: str) -> None:
    ran = decodery("embed", "-m", model, stdin=b"a")
    assert ran.status == 2
    assert 'pooling="last"' in ran.err


@pytest.mark.parametrize("suffix", ["jsonl", "npy", "safetensors"])
def test_a_killed_command_goes_on_where_it_was(encoder: str, tmp_path: Path, suffix: str) -> None:
    texts = [f"the dog sat {number} and the cat" for number in range(6000)]
    path, out = lines(tmp_path / "in.txt", texts), tmp_path / f"out.{suffix}"
    whole = tmp_path / f"whole.{suffix}"
    part, state = tmp_path / f"out.{suffix}.part", tmp_path / f"out.{suffix}.part.json"
    begun = start(encoder, path, out)
    wait_until(lambda: state.exists() and json.loads(state.read_text())["done"] > 0, begun)
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    done = json.loads(state.read_text())["done"]
    assert 0 < done < len(texts)
    assert not out.exists()
    with part.open("ab") as file:
        file.write(b"more than was noted" * 1_000_000)
    assert start(encoder, path, out).wait() == 0
    assert start(encoder, path, whole).wait() == 0
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(["in.txt", out.name, whole.name])


def start(encoder: str, path: str, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "decodery", "embed", path, "-m", encoder, "--out", str(out)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})


def wait_until(true: Any, process: subprocess.Popen[bytes], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_begun_file_is_not_continued_with_other_lines_or_settings(
    decodery: Run, encoder: str, tmp_path: Path
) -> None:
    bad = "dog " * 70
    texts = [*["dog"] * 600, bad]
    path, out = lines(tmp_path / "in.txt", texts), str(tmp_path / "out.jsonl")
    assert decodery("embed", path, "-m", encoder, "--out", out).status == 1
    ran = decodery("embed", path, "-m", encoder, "--out", out, "--pooling", "max")
    assert ran.status == 2
    assert "was begun with other settings (pooling)" in ran.err
    ran = decodery("embed", lines(tmp_path / "other.txt", ["cat"] * 600), "-m", encoder, "--out", out)
    assert ran.status == 1
    assert "the input differs in its first 512 lines" in ran.err
    ran = decodery("embed", lines(tmp_path / "short.txt", ["dog"] * 3), "-m", encoder, "--out", out)
    assert ran.status == 1
    assert "the input has 3 lines, and 512 were done" in ran.err
    mended = lines(tmp_path / "in.txt", [*["dog"] * 600, "cat"])
    assert decodery("embed", mended, "-m", encoder, "--out", out).status == 0
    assert len(Path(out).read_text().splitlines()) == 601


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--pooling", "meen"), "pooling must be one of"),
        (("--truncate-dim", "999"), "truncate_dim must be a whole number from 1 to 24"),
        (("--prompt-name", "nobody"), "prompt_name must name a prompt"),
        (("--long", "short"), "long must be error, cut or windows"),
    ],
)
def test_a_wrong_option_blames_no_line_and_hinders_no_later_command(
    decodery: Run, encoder: str, tmp_path: Path, flags: tuple[str, str], message: str
) -> None:
    path, out = lines(tmp_path / "in.txt"), str(tmp_path / "out.npy")
    ran = decodery("embed", path, "-m", encoder, "--out", out, *flags)
    assert ran.status == 2
    assert ran.err.startswith(f"decodery: {message}")
    assert decodery("embed", "-m", encoder, *flags, stdin=b"").err.startswith(f"decodery: {message}")
    ran = decodery("embed", path, "-m", encoder, "--out", out)
    assert (ran.status, ran.err) == (0, "")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in.txt", "out.npy"]


def test_a_begun_file_without_a_line_is_begun_anew_with_other_settings(
    decodery: Run, encoder: str, tmp_path: Path
) -> None:
    path, out = lines(tmp_path / "in.txt", ["dog " * 70]), str(tmp_path / "out.npy")
    assert decodery("embed", path, "-m", encoder, "--out", out).status == 1
    ran = decodery("embed", lines(tmp_path / "in.txt"), "-m", encoder, "--out", out, "--pooling", "max")
    assert (ran.status, ran.err) == (0, "")
    assert np.array_equal(np.load(out), LLM(encoder).embed(TEXTS, pooling="max").vectors)


def test_a_model_without_settings_pools_the_mean(decodery: Run, tmp_path: Path) -> None:
    folder = encoder_folder(tmp_path)
    found = read(decodery("embed", "-m", str(folder), stdin=b"dog").out)
    assert np.array_equal(
        np.array(found[0]["embedding"], np.float32), LLM(folder).embed("dog", pooling="mean")[0]
    )


def test_a_begun_file_is_not_continued_with_another_model_of_the_name(decodery: Run, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    sentence_folder(folder)
    path, out = lines(tmp_path / "in.txt", [*["dog"] * 600, "dog " * 70]), str(tmp_path / "out.npy")
    assert decodery("embed", path, "-m", str(folder), "--out", out).status == 1
    mended = lines(tmp_path / "in.txt", [*["dog"] * 600, "cat"])
    weights = (folder / "model.safetensors").read_bytes()
    encoder_folder(folder, seed=1)
    ran = decodery("embed", mended, "-m", str(folder), "--out", out)
    assert ran.status == 2
    assert "was begun with other settings (files of the model)" in ran.err
    (folder / "model.safetensors").write_bytes(weights)
    assert decodery("embed", mended, "-m", str(folder), "--out", out).status == 0


def test_a_begun_file_is_not_continued_with_other_ranges_of_the_name(
    decodery: Run, encoder: str, vectors: Any, tmp_path: Path
) -> None:
    path, out = lines(tmp_path / "in.txt", [*["dog"] * 600, "dog " * 70]), str(tmp_path / "out.npy")
    ranges = tmp_path / "ranges.npy"
    np.save(ranges, np.stack([vectors.min(0), vectors.max(0)]))
    command = ["embed", path, "-m", encoder, "--out", out, "--precision", "int8", "--ranges", str(ranges)]
    assert decodery(*command).status == 1
    np.save(ranges, np.stack([vectors.min(0), 1 + vectors.max(0)]))
    ran = decodery(*command)
    assert ran.status == 2
    assert "was begun with other settings (ranges)" in ran.err


def test_a_file_beside_the_model_is_continued(decodery: Run, tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path / "encoder")
    path, out = lines(tmp_path / "in.txt", [*["dog"] * 600, "dog " * 70]), folder / "out.npy"
    assert decodery("embed", path, "-m", str(folder), "--out", str(out)).status == 1
    lines(tmp_path / "in.txt", [*["dog"] * 600, "cat"])
    assert decodery("embed", path, "-m", str(folder), "--out", str(out)).status == 0
    assert np.load(out).shape == (601, 24)


def test_a_file_that_another_process_writes_is_an_error(decodery: Run, encoder: str, tmp_path: Path) -> None:
    path, out = lines(tmp_path / "in.txt"), tmp_path / "out.npy"
    other = ResumableFile(out, {})
    ran = decodery("embed", path, "-m", encoder, "--out", str(out))
    assert ran.status == 1
    assert f"{out}.part is being written by another process" in ran.err
    other.write(b"whole", [])
    other.finish()
    assert out.read_bytes() == b"whole"
    assert decodery("embed", path, "-m", encoder, "--out", str(out), "--overwrite").status == 0
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in.txt", "out.npy"]


def test_sparse_vectors_are_lines_of_json(decodery: Run, tmp_path: Path) -> None:
    folder = str(encoder_folder(tmp_path / "masked", "BertForMaskedLM"))
    ran = decodery("embed", lines(tmp_path / "in.txt"), "-m", folder, "--sparse")
    assert ran.status == 0
    for line, one in zip(ran.out.splitlines(), LLM(folder).embed_sparse(TEXTS), strict=True):
        found = json.loads(line)
        assert found["indices"] == one.ids.tolist()
        assert np.array_equal(np.array(found["values"], np.float32), one.weights)
        assert (found["tokens"], found["lost"]) == (one.tokens, one.lost)
    ran = decodery("embed", "-m", folder, "--sparse", "--normalize", "yes", stdin=b"a")
    assert ran.status == 2
    assert "--normalize has no meaning with --sparse" in ran.err
    ran = decodery("embed", "-m", folder, "--sparse", "--max-active-dims", "3", stdin=b"dog")
    assert (
        json.loads(ran.out)["indices"] == LLM(folder).embed_sparse("dog", max_active_dims=3)[0].ids.tolist()
    )
    ran = decodery("embed", "-m", folder, "--max-active-dims", "3", stdin=b"dog")
    assert ran.status == 2
    assert "--max-active-dims has no meaning without --sparse" in ran.err
    ran = decodery("search", "dog", lines(tmp_path / "in.txt"), "-m", folder, "--sparse", "--json")
    assert ran.status == 0
    scores = [json.loads(line)["score"] for line in ran.out.splitlines()]
    assert scores == sorted(scores, reverse=True)
    for flags, message in (
        (["-m", folder, "--hybrid"], "--sparse goes without"),
        ([], "--sparse needs --model"),
        (["--with", "bow"], "--sparse has no meaning with --with"),
    ):
        ran = decodery("search", "dog", lines(tmp_path / "in.txt"), "--sparse", *flags)
        assert ran.status == 2
        assert message in ran.err
