# make demo    train, measure, export and ask a real model (SEEDS=3: the range over three seeds)
# make test    format, lint, types, tests (OFFLINE=1 leaves out what needs the package samples)
# Each target makes .venv with the pinned packages first, once.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The newest Python that the pinned packages were tested with; python3.11 before any other.
PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
EXTRAS := dev,smollm2
BIN := .venv/bin
STAMP := .venv/.installed
# Two processes: most of the time goes into tracing, which is one thread.
PYTEST_FLAGS ?= -n 2 --dist loadfile
SLOW := 'slow and not network and not gpu'

.PHONY: help
help:
	@echo 'make demo [SEEDS=3]   train, measure, export and ask a real model'
	@echo 'make test             format, lint, types and tests (OFFLINE=1: without the package samples)'
	@echo 'make test-all         the slow tests too'
	@echo 'make lint             format, lint and types only'
	@echo 'make format           mend format and lint'
	@echo 'make bench            measure against plain Keras; writes docs/benchmarks.md'
	@echo 'make constraints      pin the newest tested set again'
	@echo 'make hooks            check each commit before it is made'
	@echo 'make clean            remove .venv and the caches of the tools'

.PHONY: demo
demo: $(STAMP)
	@$(BIN)/python benchmarks/demo.py $(if $(SEEDS),--seeds $(SEEDS))

.PHONY: test
test: lint
	@$(BIN)/python -m pytest $(PYTEST_FLAGS)

.PHONY: test-all
# TensorFlow never gives back what a traced network took: in one process, two hundred of these filled 13 GB.
test-all: test
	@$(BIN)/python -m pytest --collect-only -q -m $(SLOW) | grep :: \
	| xargs -d '\n' -P 2 -n 40 $(BIN)/python -m pytest -q -m $(SLOW)

.PHONY: lint
lint: $(STAMP)
	@$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --diff --quiet .; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy

.PHONY: format
format: $(STAMP)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: bench
bench: $(STAMP)
	@$(BIN)/python benchmarks/run.py

.PHONY: hooks
hooks: $(STAMP)
	@$(BIN)/pre-commit install

.PHONY: venv
venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@[ -n '$(PYTHON)' ] || { echo 'make: no Python 3.11 or 3.12 found. Install one, or name it: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@echo 'Installing the pinned packages into .venv (825 MB to download, 3 GB on disk; a minute or more) ...' >&2
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

# Resolves the ranges of pyproject.toml afresh in an environment of its own, and pins what came of it.
.PHONY: constraints
constraints:
	@rm -rf .venv-constraints
	@$(PYTHON) -m venv .venv-constraints
	@.venv-constraints/bin/python -m pip install --quiet --quiet --disable-pip-version-check --upgrade setuptools wheel -e '.[$(EXTRAS)]'
	@{ sed -n '/^#/p' constraints.txt; \
	   .venv-constraints/bin/python -m pip freeze --all --exclude-editable --exclude pip \
	   | grep -E '^[A-Za-z0-9._-]+==' ; } > .venv-constraints/constraints.txt
	@mv .venv-constraints/constraints.txt constraints.txt
	@rm -rf .venv-constraints
	@echo "constraints.txt pins $$(grep -c == constraints.txt) packages. Run make test before you keep it."

.PHONY: clean
clean:
	@rm -rf .venv .venv-constraints .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
