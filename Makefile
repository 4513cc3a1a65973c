# Two commands do everything on a fresh machine: `make demo` and `make test`.
# Needs Python 3.11 or newer with venv (Debian: apt install python3-venv); a C++ compiler makes training faster (apt install g++).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt
export UV_LINK_MODE ?= copy

.PHONY: demo test lint types layers check docs clean

demo: $(VENV)/.train
	$(BIN)/diglot run recipes/quickstart.yaml

test: $(VENV)/.dev lint types layers
	$(BIN)/pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

layers: $(VENV)/.dev
	$(BIN)/lint-imports

# what a commit should pass in a minute: no slow test
check: $(VENV)/.dev lint types layers
	$(BIN)/pytest -m "not slow"

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

$(VENV)/.uv: constraints.txt
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Diglot needs Python 3.11 or newer, this is " + sys.version; import ensurepip' \
	  || { echo "A Python >= 3.11 with venv is needed. Debian: apt install python3-venv; or set PYTHON=/path/to/python3"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@touch $@

$(VENV)/.train: $(VENV)/.uv pyproject.toml
	$(UV) --editable '.[train]'
	@touch $@

$(VENV)/.dev: $(VENV)/.uv pyproject.toml
	$(UV) --editable '.[dev]'
	@touch $@ $(VENV)/.train

$(VENV)/.docs: $(VENV)/.uv pyproject.toml
	$(UV) --editable '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) build site src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
