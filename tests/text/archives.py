"""Fetches the published archives whose vocabularies and templates the slow tests read."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest


def llama_cpp_models(folder: Path) -> Path:
    """Returns the folder `models` of llama.cpp, from the source archive of llama-cpp-python.

    The archive is the file that DECODERY_LLAMA_CPP_ARCHIVE names, else pip fetches it.
    """
    archive = _fetched("DECODERY_LLAMA_CPP_ARCHIVE", folder, "llama-cpp-python==0.3.36", source=True)
    with tarfile.open(archive) as opened:
        for member in opened:
            if "/vendor/llama.cpp/models/" in member.name and member.isfile():
                opened.extract(member, folder, filter="data")
    return next(folder.glob("*/vendor/llama.cpp/models"))


def mistral_files(folder: Path) -> Path:
    """Returns the folder with the vocabularies in the wheel of mistral-common.

    The wheel is the file that DECODERY_MISTRAL_COMMON_WHEEL names, else pip fetches it.
    """
    archive = _fetched("DECODERY_MISTRAL_COMMON_WHEEL", folder, "mistral-common>=1.8")
    with zipfile.ZipFile(archive) as opened:
        for name in opened.namelist():
            if name.startswith("mistral_common/data/"):
                opened.extract(name, folder)
    return folder / "mistral_common" / "data"


def _fetched(variable: str, folder: Path, package: str, *, source: bool = False) -> Path:
    if variable in os.environ:
        return Path(os.environ[variable])
    name = package.split("=")[0].split(">")[0]
    options = ["--no-binary", name] if source else []
    command = [sys.executable, "-m", "pip", "download", "--no-deps", *options, "-d", str(folder), package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    files = [file for file in folder.iterdir() if file.name.startswith(name.replace("-", "_"))]
    if done.returncode or not files:
        pytest.skip(f"{package} is not to be had: {done.stderr.strip()[-200:]}")
    return files[0]
