# Everything from a fresh clone with Python 3.11+ and make: app, quick (tests of a minute), test, bench, screenshots.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8501

.PHONY: app quick unit test bench screenshots lint clean

app: $(VENV)/.app
	$(BIN)/jsc-explore app --port $(PORT) $(APP_OPTIONS)

# Before each commit: under a minute on two cores.
quick: $(VENV)/.test
	$(MAKE) --jobs=2 --output-sync unit lint

unit: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 tests/unit

test: $(VENV)/.test lint
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --skip-covered --sort=cover

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.bench
	$(BIN)/python -m bench all --write $(BENCH_OPTIONS)

screenshots: $(VENV)/.test
	$(BIN)/python docs/screenshots.py

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is older than Python 3.11; name another with make PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The package itself is installed last, editable, without its version ranges: requirements.txt has pinned everything.
$(VENV)/.app: $(VENV)/.python requirements.txt pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/.test: $(VENV)/.app tests/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.test bench/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r bench/requirements.txt
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .coverage* build dist
