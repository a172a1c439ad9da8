# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets. PYTHON chooses the interpreter for the virtual environment.

PYTHON ?= $(if $(wildcard /usr/bin/python3),/usr/bin/python3,python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --use-pep517 --disable-pip-version-check
PYTEST_ARGS ?=
BENCH_ARGS ?=

.DELETE_ON_ERROR:
.PHONY: help demo demo-stop test test-device deb lint bench clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | while IFS='|' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "make: $(PYTHON) is not Python 3.10 or newer; name another: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: $(PYTHON) cannot make virtual environments: apt-get install python3-venv"; exit 1; }
	@echo "setting up $(VENV) once; this downloads a few packages"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@$(PIP) -e '.[dev,test,seccomp]'
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed ## start a daemon below .demo/, apply a running config, show its status
	@$(BIN)/python demo/demo.py

demo-stop: ## stop what `make demo` started
	@if [ -d .demo ]; then $(BIN)/python demo/demo.py stop; else echo "nothing was running"; fi

test: $(VENV)/.installed-dev ## run every test this machine can run; the others say why not
	@timeout --foreground --signal INT --kill-after 30 600 $(BIN)/pytest -q -n auto -m "not bench and not device" $(PYTEST_ARGS) || { status=$$?; [ $$status -ne 124 ] || echo "make: the tests took longer than 10 minutes and were ended"; exit $$status; }

test-device: $(VENV)/.installed-dev ## boot a device under QEMU with the Debian package in it, and test there
	@$(BIN)/pytest -q -m device tests/device $(PYTEST_ARGS)

deb: ## build the Debian package into build/deb/
	@PYTHON=$(PYTHON) bash packaging/deb.sh

lint: $(VENV)/.installed-dev ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy demo/demo.py templates/python-modules/host.py

bench: $(VENV)/.installed-dev ## measure maestro and the other supervisors that are installed
	@$(BIN)/python -m tests.bench $(BENCH_ARGS)

clean: demo-stop ## remove what make, the tests and the demo left, except the virtual environment
	rm -rf .demo build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
