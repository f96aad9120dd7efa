# Every target does its own set-up: python3 >= 3.11 with venv is all that must be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SECONDS_RUN ?= 60
JOBS ?= $(shell nproc 2>/dev/null || echo 1)

.PHONY: run test compiled matrix bench clean

# A 60-second campaign on v4.3 from nothing, on every core. Finding something (exit 1) is success.
run: $(VENV)/.installed
	@$(BIN)/kfuzz run --kernel v4.3 --time $(SECONDS_RUN) --jobs $(JOBS) --crashes crashes; \
	status=$$?; test $$status -eq 1 || { echo "kfuzz run ended with status $$status" >&2; exit 2; }

test: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n auto

# kstate compiled with mypyc gives the same runs as the pure one. Wants a C compiler; minutes.
compiled: $(VENV)/.installed
	$(BIN)/pytest tests/compiled.py

# Every file of corpus/races with up to 2 preemptions on every kernel it names, on both cores.
# Stopped, it goes on where it was; `make clean` forgets.
matrix: $(VENV)/.installed
	$(BIN)/kfuzz bench matrix --keep .matrix.jsonl

bench: $(VENV)/.installed
	$(BIN)/kfuzz bench

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) .matrix.jsonl build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
