# make demo: install into .venv and generate text from the default model.
# make test: install the dev extra into .venv and run lint, types and the default tests.
# Both work alone on a fresh machine and do not install again until pyproject.toml, constraints.txt or the native sources change.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

.PHONY: demo test test-all lint types bench clean

demo: $(VENV)/.run
	$(BIN)/decodery generate "Once upon a time" --max-tokens 60 --temperature 0.8 --top-p 0.95 --seed 7

test: lint types
	$(BIN)/python -m pytest

test-all: lint types
	$(BIN)/python -m pytest -m "not gpu"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

bench: $(VENV)/.bench
	$(BIN)/python -m bench
	$(BIN)/python -m bench.decoding

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt hatch_build.py $(wildcard native/*) | $(VENV)/bin/python
	$(PIP) -e .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt hatch_build.py $(wildcard native/*) | $(VENV)/bin/python
	$(PIP) -e ".[dev]"
	touch $@ $(VENV)/.run

$(VENV)/.bench: pyproject.toml constraints.txt hatch_build.py $(wildcard native/*) | $(VENV)/bin/python
	$(PIP) -e ".[bench]"
	touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
