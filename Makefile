# Every target sets up what it needs. Another interpreter, before there is a .venv:
# make venv PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
AUDIT := .venv-audit
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help venv run test test-library test-service test-e2e lint format type bench fuzz proto audit

help:
	@echo "make run     start the service here, solve one puzzle, stay up"
	@echo "make test    lint, format check, types, import directions, tests"
	@echo "make lint | type | format | bench | fuzz | proto | audit | venv"

venv: $(INSTALLED)

# A .venv that works is kept: making it again with another Python would mix the two.
# torch goes first: it is the one package that comes in several builds, and what follows keeps the
# build that is there. Build isolation would fetch an unpinned setuptools.
$(INSTALLED): pyproject.toml constraints.txt
	@echo "Setting up $(VENV), several minutes the first time"
	$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "1 of 2: torch"
	$(PIP) setuptools wheel
	$(PIP) torch
	@echo "2 of 2: everything else, about a hundred packages, minutes without output"
	$(PIP) --no-build-isolation --editable '.[service,train,dev]'
	@touch $@

run: venv
	$(BIN)/python -m service.demo

# The three run beside each other: the service's mostly wait for processes to start and to end.
test: lint type
	$(MAKE) --no-print-directory --jobs=3 --keep-going test-library test-service test-e2e

test-library: venv
	$(BIN)/python -m pytest --ignore=tests/e2e --ignore=tests/service

test-service: venv
	$(BIN)/python -m pytest tests/service

test-e2e: venv
	$(BIN)/python -m pytest tests/e2e

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/buf lint

type: venv
	$(BIN)/mypy

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: venv
	$(BIN)/python -m eqr_core.cli bench engine

# Ten thousand generated requests over REST and as many mutated messages over gRPC.
fuzz: venv
	$(BIN)/python -m benchmarks.fuzz

# The stubs are committed; a test holds them to proto/eqr/v1/solver.proto.
proto: venv
	$(BIN)/buf lint
	$(BIN)/buf format --write
	$(BIN)/python proto/generate.py

# Known vulnerabilities of the pinned versions. It asks the package index, and the answer changes by the day,
# so it is no part of `make test`: `.ci/audit` is for every night and before a release.
audit: $(AUDIT)/bin/pip-audit
	$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

$(AUDIT)/bin/pip-audit:
	$(PYTHON) -m venv --clear $(AUDIT)
	$(AUDIT)/bin/python -m pip install --disable-pip-version-check --quiet pip-audit==2.10.1
