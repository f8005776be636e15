# Everything runs in .venv, at the versions of constraints.txt; `make help` lists the commands.

VENV := .venv
RUN := $(VENV)/bin/python -m
PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)
SWEEP ?=
ARGS ?=
# Tests run in as many processes, two more than the cores that CI has: many wait for programs; each may hold 2 GB.
TESTERS ?= 4

# The data sets are not in the repository; a checkout may have them in a folder beside it.
ifeq ($(origin CNNSWEEP_DATA_DIR),undefined)
ifneq ($(wildcard ../shared/data),)
export CNNSWEEP_DATA_DIR := $(abspath ../shared/data)
endif
endif

.DEFAULT_GOAL := help
.PHONY: help sweep test check lint format
# With `make -j` too: two installations into one environment at the same time would break it.
.NOTPARALLEL:

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

sweep: $(VENV)/installed ## run the default sweep, or a preset: make sweep SWEEP=fashion ARGS="seed=1 budget.trials=20"
	$(RUN) cnnsweep $(addprefix +sweep=,$(SWEEP)) $(ARGS)

test: $(VENV)/installed-dev ## run all tests, or some: make test ARGS="tests/test_space.py -x"
	$(RUN) pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: lint ## before a commit: format, lint, types and the fast tests
	$(RUN) pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)

lint: $(VENV)/installed-dev ## format, lint and types only
	$(RUN) ruff format --check
	$(RUN) ruff check
	$(RUN) mypy

format: $(VENV)/installed-dev ## reformat the code and sort its imports
	$(RUN) ruff check --select I --fix
	$(RUN) ruff format

# An older pip reads PIP_CONSTRAINT for the build environments (hatchling, setuptools) too, a newer one
# PIP_BUILD_CONSTRAINT. Twice quiet: errors only.
pip-install = PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt $(RUN) pip install -qq --no-input -e

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing cnnsweep and what it needs into $(VENV) (TensorFlow is large: this can take some minutes)"
	@$(pip-install) .
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing cnnsweep, what it needs and what its tests need into $(VENV) (this can take some minutes)"
	@$(pip-install) '.[dev]'
	@touch $(VENV)/installed $@

$(VENV)/bin/python:
	@for python in $(PYTHONS); do \
	    if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
	        echo "making a virtual environment in $(VENV) with $$("$$python" --version)"; \
	        "$$python" -m venv $(VENV) && exit; \
	        rm -rf $(VENV); exit 1; \
	    fi; \
	done; \
	echo "cnnsweep needs Python 3.11, 3.12 or 3.13; tried: $(PYTHONS). Name one: make PYTHON=/path/to/python3.12" >&2; \
	exit 1
