SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DAYS ?= 60
START ?= 2013-03-01
JOBS ?= 2
COMPILE := --quiet --universal --python-version 3.11 --generate-hashes --no-header
export DO_NOT_TRACK := true
# Bytecode is kept, beside the tools and nowhere else: a test run starts a hundred processes, each of which
# would compile MLflow and Prefect again where the machine sets PYTHONDONTWRITEBYTECODE, as images do.
export PYTHONPYCACHEPREFIX := $(abspath $(VENV))/bytecode
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test lint bench exactly-once pins up clean
.DEFAULT_GOAL := help

help:  ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# The tools are installed by hash into one virtual environment; nothing else on the machine changes.
$(VENV)/.installed: requirements/dev.txt requirements/installer.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/installer.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(VENV)/.installed  ## Replay real flights through four pipelines (DAYS=60 START=2013-03-01)
	$(BIN)/python -m examples.flights.demo --days $(DAYS) --start $(START)

test: $(VENV)/.installed  ## Run every test (JOBS=2 at a time, a file each)
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder --durations=40

lint: $(VENV)/.installed  ## Ruff, strict mypy, import-linter; hadolint, yamllint, compose's schema
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint infra/Dockerfile
	$(BIN)/yamllint --strict .
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec infra/compose.yaml

bench: $(VENV)/.installed  ## Measure every claim, or CLAIMS="...", a JSON line each, then a table (hours)
	$(BIN)/python -m benchmarks $(CLAIMS)

exactly-once: $(VENV)/.installed  ## Kill flows, worker and server 100 times: one update a decision
	$(BIN)/python -m benchmarks exactly-once

up: $(VENV)/.installed  ## Start Prefect, MLflow and a worker on loopback
	$(BIN)/headwater up

pins: $(VENV)/.installed  ## Compile requirements/ again: hashes, no addresses
	$(BIN)/uv pip compile $(COMPILE) --group dev --all-extras pyproject.toml -o requirements/dev.txt
	$(BIN)/uv pip compile $(COMPILE) --all-extras --constraint requirements/dev.txt pyproject.toml -o requirements/image.txt
	$(BIN)/uv pip compile $(COMPILE) requirements/installer.in -o requirements/installer.txt
	cd benchmarks/speed/peer_setups && for peer in bentoml mlflow mlserver; do \
	  $(abspath $(BIN))/uv pip compile $(COMPILE) $$peer.in -o $$peer.txt || exit 1; done

clean:  ## Remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
