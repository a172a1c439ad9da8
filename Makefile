# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets. PYTHON chooses the interpreter for the virtual environment.

PYTHON ?= $(if $(wildcard /usr/bin/python3),/usr/bin/python3,python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --use-pep517 --disable-pip-version-check
PYTEST_ARGS ?=
BENCH_ARGS ?=

# Without byte code each program of a test would compile what it imports, which takes longer than the rest;
# and what is written is buffered for a user.
unexport PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED

.DELETE_ON_ERROR:
.PHONY: help demo demo-stop docs test test-device fault soak powercut deb fuzz lint bench clean dist release footprint stdlib test-packages test-pythons

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | while IFS='|' read -r name text; do printf '  make %-13s %s\n' "$$name" "$$text"; done

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "make: $(PYTHON) is not Python 3.10 or newer; name another: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: $(PYTHON) cannot make virtual environments: apt-get install python3-venv"; exit 1; }
	@echo "setting up $(VENV) once; this downloads a few packages"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@$(PIP) -e '.[dev,test,seccomp,signature]'
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed ## start a daemon below .demo/, apply a running config, show its status
	@$(BIN)/python demo/demo.py

demo-stop: ## stop what `make demo` started
	@if [ -d .demo ]; then $(BIN)/python demo/demo.py stop; else echo "nothing was running"; fi

test: $(VENV)/.installed-dev ## run every test this machine can run; the others say why not
	@timeout --foreground --signal INT --kill-after 30 600 $(BIN)/pytest -q -n auto -m "not bench and not device and not packages" $(PYTEST_ARGS) || { status=$$?; [ $$status -ne 124 ] || echo "make: the tests took longer than 10 minutes and were ended"; exit $$status; }

fault: $(VENV)/.installed-dev ## inject every fault at full count, and print how often and what was lost
	@MAESTRO_KILLS=1000 MAESTRO_KILL_JOBS=50 MAESTRO_CRASHES=10000 MAESTRO_FAULTS=all $(BIN)/pytest -q -s tests/fault $(PYTEST_ARGS)

soak: $(VENV)/.installed-dev ## an hour of churn and ten thousand deaths of jobs, and what is left of them
	@MAESTRO_SOAK_SECONDS=$${MAESTRO_SOAK_SECONDS:-3600} MAESTRO_CRASHES=$${MAESTRO_CRASHES:-10000} $(BIN)/pytest -q -s tests/fault/test_soak.py $(PYTEST_ARGS)

test-pythons: ## run the unit and machine tests under each supported Python that is here
	@bash tests/pythons.sh $(PYTEST_ARGS)

test-device: $(VENV)/.installed-dev ## boot a device under QEMU and test there; MAESTRO_DEVICE=arm64: another processor
	@$(BIN)/pytest -q -m device tests/device $(PYTEST_ARGS)

powercut: $(VENV)/.installed-dev ## take the power from a device under QEMU a hundred times
	@MAESTRO_POWER_CUTS=$${MAESTRO_POWER_CUTS:-100} $(BIN)/pytest -q -s -m device tests/device/test_power.py $(PYTEST_ARGS)

test-packages: $(VENV)/.installed-dev ## make small systems and install, upgrade and remove packages in them
	@$(BIN)/pytest -q -m packages tests/packages $(PYTEST_ARGS)

dist: $(VENV)/.installed-dev ## build source archive, wheel and bill of materials into build/dist/
	@PYTHON=$(BIN)/python bash packaging/dist.sh

release: $(VENV)/.installed-dev ## the same, and the archive's checksum into the Yocto recipe
	@PYTHON=$(BIN)/python bash packaging/dist.sh release

stdlib: $(BIN)/python ## list the standard modules that are needed again, for systems that split Python
	@$(BIN)/python packaging/stdlib.py

deb: ## build the Debian package into build/deb/
	@PYTHON=$(PYTHON) bash packaging/deb.sh

docs: $(VENV)/.installed ## make the man pages, the schemas for editors and the OpenAPI document again
	@$(BIN)/python -m docs
	@$(BIN)/python -m maestro_py.daemon.openapi

fuzz: $(VENV)/.installed-dev ## ten minutes of input nobody would send, for each reader
	@MAESTRO_FUZZ_SECONDS=$${MAESTRO_FUZZ_SECONDS:-600} $(BIN)/pytest -q -s tests/fuzz $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy docs demo/demo.py templates/python-modules/host.py packaging/sbom.py packaging/stdlib.py

footprint: $(VENV)/.installed-dev ## measure disk, memory, writes and boot of devices under QEMU
	@PYTHONPATH=tests $(BIN)/python -m device.lab.footprint

bench: $(VENV)/.installed-dev ## measure maestro and the other supervisors that are installed
	@$(BIN)/python -m tests.bench $(BENCH_ARGS)

clean: demo-stop ## remove what make, the tests and the demo left, except the virtual environment
	rm -rf .demo build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
