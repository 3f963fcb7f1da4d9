# make train    set up .venv if needed, then train the small demo model on this machine
# make test     set up .venv if needed, then run the tests
# To use another Python (3.11, 3.12 or 3.13): make train PYTHON=/path/to/python3.12
# To pass flags: make train ARGS="--max-iters 50"
# To install PyTorch without CUDA, which saves gigabytes on Linux: make setup TORCH=cpu

.PHONY: help setup train test test-slow test-gpu gate lint format
.DEFAULT_GOAL := help

BIN := .venv/bin
INSTALLED := .venv/.installed
ARGS :=

help:
	@echo "make setup      create .venv and install what constraints.txt pins (the other targets do this when needed);"
	@echo "                TORCH=cpu installs PyTorch without CUDA, PYTHON=python3.13 uses that Python"
	@echo "make train      train the demo model on two local Ray workers; ARGS=\"...\" adds flags"
	@echo "make test       run the tests, on several processes; ARGS=\"-n 0\" on one, ARGS=\"-m 'not (processes or slow or gpu)'\" the quick ones"
	@echo "make test-slow  run the tests that take longer"
	@echo "make test-gpu   run the tests that need a CUDA device"
	@echo "make gate       compare the numbers of this tree with those of the commit before; ARGS=\"--base REVISION\""
	@echo "make lint       ruff and mypy"
	@echo "make format     format the code with ruff"

setup: $(INSTALLED)

train: $(INSTALLED)
	$(BIN)/python jobs/train.py $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest -q -n auto --dist loadfile $(ARGS)

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m slow $(ARGS)

test-gpu: $(INSTALLED)
	$(BIN)/python -m pytest -m gpu $(ARGS)

gate: $(INSTALLED)
	$(BIN)/python -m tests.gate $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The first supported Python that can create a virtual environment (a name on PATH may be an empty shim).
PYTHON :=
CANDIDATES = $(or $(PYTHON),$(BASE) python3 python3.13 python3.12 python3.11)

# The build of PyTorch: from the package index, or (cpu) without CUDA from PyTorch's own. The choice is kept in .venv.
TORCH := $(shell cat .venv/.torch 2>/dev/null)
CPU_INDEX := https://download.pytorch.org/whl/cpu
ifneq ($(filter-out cpu,$(TORCH)),)
$(error TORCH=$(TORCH) is not supported: use TORCH=cpu, or leave it out)
endif

# Create .venv again if it has another Python or PyTorch than requested, or if its Python no longer exists.
IDENTITY := import os, sys; print(*sys.version_info[:2], os.path.realpath(sys.base_prefix))
ifneq ($(wildcard .venv),)
  ifneq ($(PYTHON),)
    ifneq ($(shell .venv/bin/python -c '$(IDENTITY)' 2>&1),$(shell $(PYTHON) -c '$(IDENTITY)' 2>&1))
      STALE := it has another Python than $(PYTHON)
    endif
  endif
  ifneq ($(TORCH),$(shell cat .venv/.torch 2>/dev/null))
    STALE := it has another build of PyTorch
    BASE := $(shell .venv/bin/python -c 'import sys; print(sys._base_executable)' 2>/dev/null)
  endif
  ifneq ($(shell test -L .venv/bin/python && ! test -e .venv/bin/python && echo gone),)
    STALE := its Python no longer exists
  endif
endif

# Quiet: what goes wrong is still printed in full.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
INSTALL_SIZE := 2 GB of packages (on Linux several more for CUDA, which TORCH=cpu leaves out)
ifeq ($(TORCH),cpu)
  INSTALL_SIZE := 2 GB of packages, torch without CUDA
endif

.PHONY: stale
stale:

# The installation builds the tokenizer's C code.
$(INSTALLED): pyproject.toml constraints.txt $(wildcard nanochat_tct/tokenizer/engine.c) $(if $(STALE),stale)
	@if [ -n "$(STALE)" ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  in_range=; \
	  for python in $(CANDIDATES); do \
	    $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 || continue; \
	    in_range=$$python; \
	    $$python -c 'import venv, ensurepip' >/dev/null 2>&1 || continue; \
	    if [ -n "$(STALE)" ]; then echo "Creating .venv again: $(STALE)"; rm -rf .venv; fi; \
	    echo "Creating .venv with $$($$python --version) ($$python)"; \
	    exec $$python -m venv .venv; \
	  done; \
	  if [ -n "$$in_range" ]; then echo "error: $$in_range cannot make virtual environments; install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; \
	  else echo "error: no Python 3.11, 3.12 or 3.13 among: $(CANDIDATES); install one, or name it: make PYTHON=/path/to/python3" >&2; fi; \
	  exit 1; \
	fi
	@echo "Installing $(INSTALL_SIZE) into .venv; this takes minutes and prints nothing until it is done"
ifeq ($(TORCH),cpu)
	@$(PIP_INSTALL) --no-deps --index-url $(CPU_INDEX) "$$(grep '^torch==' constraints.txt)"
	@echo cpu > .venv/.torch
endif
	@$(PIP_INSTALL) -c constraints.txt -e '.[dev]'
	@touch $@
