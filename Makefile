# Everything starts here: `make help` lists it. Needs Python 3.11 or 3.12 and a C++ compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The stages call `python`: theirs is the environment's.
export PATH := $(CURDIR)/$(BIN):$(PATH)
PORT ?= 5000

.DEFAULT_GOAL := help
.PHONY: help setup repro plan sweep nightly test test-all lint types check ui clean

help:  ## list the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make the virtual environment and install everything

# The stamp is written last, so that an interrupted install is done again.
$(STAMP): pyproject.toml constraints.txt $(wildcard pipeline/inference/dense_crf/native/*)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13) and "error: Python 3.11 or 3.12 is needed, this is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$$(sed -n 's/^uv==//p' constraints.txt)
	$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $@

repro: $(STAMP)  ## run the pipeline, data to report; only what changed is redone
	$(BIN)/dvc repro
	@echo "report: $(CURDIR)/report/index.html    dashboard: make ui"

plan: $(STAMP)  ## say what would run, why, and what it costs
	$(BIN)/python -m pipeline.plan

sweep: $(STAMP)  ## like repro, with variants side by side on this machine's GPUs or cores
	$(BIN)/python -m pipeline.sweep $(if $(SLOTS),--slots $(SLOTS))

nightly: $(STAMP)  ## every table of the papers in small, data to report (hours)
	$(BIN)/python -m pipeline.table all scale=small --run $(if $(SLOTS),--slots $(SLOTS))

# Files of many minutes come first (tests/conftest.py), so that no process ends alone.
TEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
test: $(STAMP)  ## run the tests, without the slow ones
	$(TEST) -m "not slow"

test-all: $(STAMP)  ## run all tests: every page of the documentation is followed too
	$(TEST)

lint: $(STAMP)  ## style: ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## types: mypy
	$(BIN)/mypy

check: lint types test  ## style, types and tests, as the CI does

ui: $(STAMP)  ## open the MLflow dashboard on 127.0.0.1:5000 (PORT=... for another port)
	@$(BIN)/python -m pipeline.ui --port $(PORT)

clean:  ## remove what can be made again: runs, prepared data, reports (never your environment or mlflow.db)
	rm -rf build runs report data/prepared data/previews data/decoded outputs multirun
