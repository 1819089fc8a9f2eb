# Two commands do all: `make play` and `make test`. Each makes .venv and installs what it needs.

TASK ?= car_racing
SUITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	if command -v $$python >/dev/null 2>&1 && $$python -c '$(SUITS)' 2>/dev/null; \
	then echo $$python; break; fi; done)
BIN := .venv/bin

.PHONY: play test slow faults train bench lint clean

play: .venv/installed
	@if [ "$$(uname)" = Darwin ] || [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ]; then \
		$(BIN)/python -m player $(TASK); \
	else \
		$(BIN)/python -m player $(TASK) --headless --gif dream.gif && \
		echo "There is no display: a drive in the dream was written to dream.gif instead."; \
	fi

test: .venv/installed-test
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

slow: .venv/installed-test .venv/installed-serve
	$(BIN)/python -m pytest -m slow --ignore=tests/serving/test_server.py
	$(BIN)/python -m pytest -m "slow or not slow" tests/serving/test_server.py  # needs the extra

faults: .venv/installed-test .venv/installed-distributed
	$(BIN)/python -m pytest tests/faults

train: .venv/installed
	$(BIN)/python -m wm_tf reproduce $(TASK)

bench: .venv/installed-bench
	$(BIN)/python -m wm_tf bench

lint: .venv/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv

.venv/python:
	@$(or $(PYTHON),false) -c '$(SUITS)' 2>/dev/null || { \
		found=$$($(or $(PYTHON),python3) --version 2>/dev/null || echo none); \
		echo "wm_tf needs Python 3.11, 3.12 or 3.13; found: $$found" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	@touch $@

.venv/installed: .venv/python pyproject.toml
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/installed-%: .venv/python pyproject.toml
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@
