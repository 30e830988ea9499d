# Quire from the shell: `make` lists what there is. Works with GNU make 3.81, the one macOS has.

VENV := .venv
PY := $(VENV)/bin/python
SAMPLES ?= samples
OUT ?= out
ENGINE ?= docker

# Pyright would ask the network whether there is a newer one.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
# Data of this checkout stay in it; `quire` run by hand uses ~/.local/share/quire.
export QUIRE_HOME ?= $(CURDIR)/.quire

.DEFAULT_GOAL := help
.PHONY: help setup run ui test test-core lint format bench lock image clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make .venv from requirements.lock (returns at once when nothing changed)
	@bash scripts/setup.sh

run: setup ## Find the duplicates planted in the sample PDFs; results go to out/
	@$(VENV)/bin/quire run $(SAMPLES) --out $(OUT)

ui: setup ## Open the Dagster UI on http://127.0.0.1:3000
	@$(VENV)/bin/quire ui

test: ## Lint, check types and import contracts, and run all tests
	@bash scripts/setup.sh --browser
	@$(MAKE) --no-print-directory lint
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m pytest -n 2 --no-loadscope-reorder

test-core: setup ## Run the tests that need no database or browser (seconds)
	@$(PY) -m pytest tests/core

lint: setup ## Check style, formatting, types and import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(PY)
	$(VENV)/bin/lint-imports

format: setup ## Format the code and fix what can be fixed
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: setup ## Measure copy search on the samples: quality, time, memory
	$(PY) benchmarks/copy_search.py $(SAMPLES) --truth $(SAMPLES)/truth.json

lock: setup ## Write requirements.lock from what is installed in .venv
	$(PY) scripts/lock.py

image: ## Build the container image quire:latest (ENGINE=podman or buildah, too)
	$(ENGINE) build -t quire:latest .

clean: ## Remove caches and results; keeps .venv and the database
	rm -rf out build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
