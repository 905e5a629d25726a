# SPDX-License-Identifier: Apache-2.0
# Everything starts here: `make demo` and `make test` set up what they need in .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.byway-setup
PIP    := $(BIN)/python -m pip --disable-pip-version-check --no-input

PYTEST   := $(BIN)/python -m pytest --durations=25
# Tests that use nothing outside their process go side by side; those with peers need both CPUs.
BESIDE   := -n 2 --dist loadfile

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test lint types contracts docs compiled peers interpreted coverage bench lock clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 14

setup: $(STAMP)  ## a virtual environment in .venv with byway and everything pinned

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: Byway needs Python 3.11 or newer; set PYTHON=/path/to/python3" >&2; exit 2; }
	@test -x $(BIN)/python || { echo "== virtual environment in $(VENV)"; \
	  $(PYTHON) -m venv $(VENV) || \
	  { echo "make: no venv module; on Debian: apt-get install python3-venv" >&2; rm -rf $(VENV); exit 2; }; }
	@echo "== dependencies from requirements.lock (once)"
	@$(PIP) install -qq --require-hashes --requirement requirements.lock
	@$(PIP) install -qq --no-build-isolation --no-deps --editable .
	@touch $@

demo: setup  ## two networks, three guests, the proof that no frame was lost (unprivileged)
	$(BIN)/byway demo

test: setup lint types contracts docs compiled peers interpreted coverage  ## everything that must hold
	@echo "== all tests passed"

lint: setup  ## ruff
	@echo "== ruff"
	@$(BIN)/ruff check src integrations tests scripts $(wildcard bench examples)

types: setup  ## mypy, strict outside kernels
	@echo "== mypy"
	@$(BIN)/mypy

contracts: setup  ## lower packages never import higher ones
	@echo "== import contracts"
	@$(BIN)/lint-imports

docs: setup  ## the manual in site/, warnings are errors
	@echo "== docs"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir site

compiled: setup  ## the tests with compiled kernels
	@echo "== tests, kernels compiled"
	@$(PYTEST) $(BESIDE) -m "not system" tests

peers: setup  ## the tests with real peers
	@echo "== tests with peers, kernels compiled"
	@$(PYTEST) -m system tests

interpreted: setup  ## the tests with interpreted kernels, and which lines they reach
	@echo "== tests, kernels interpreted"
	@NUMBA_DISABLE_JIT=1 $(PYTEST) $(BESIDE) --cov --cov-report= \
	  tests --ignore=tests/system --ignore=tests/architecture

coverage: setup  ## the lines that the interpreted run reached, outside the CLI
	@echo "== coverage"
	@$(BIN)/python -m coverage report --fail-under=90

bench: setup  ## busy cycles per frame between two fake guests
	$(BIN)/byway bench vm2vm

lock:  ## pin the newest versions that the oldest supported Python (PYTHON=) takes, with hashes
	@$(PYTHON) -m venv .cache/lock && .cache/lock/bin/python -m pip install -qq pip-tools
	CUSTOM_COMPILE_COMMAND="make lock" .cache/lock/bin/pip-compile --quiet --upgrade --extra dev \
	  --allow-unsafe --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links \
	  --no-emit-options --output-file requirements.lock pyproject.toml

clean:  ## everything that can be made again
	rm -rf $(VENV) .cache site build dist .coverage .coverage.* htmlcov .mypy_cache .pytest_cache .ruff_cache \
	  .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
