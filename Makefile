# One virtual environment for everything; each target sets up what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test simulate fuzz faults soak lint types docs bench bench-restart fmt lock clean

help: ## Show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.runtime: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "entitlement-sidecar needs Python 3.11 or newer; name one with: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

demo: $(VENV)/.runtime ## Run the sidecar against the built-in Stripe and watch it answer
	@$(BIN)/python -m sidecar demo $(ARGS)

PURE := sidecar/core/*,sidecar/kit/*,sidecar/model.py,sidecar/errors.py,sidecar/stripe/pages.py,sidecar/stripe/events.py,sidecar/stripe/webhook.py

test: $(VENV)/.dev ## Run every test, with the coverage gates (ARGS='-k name' narrows)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
ifeq ($(ARGS),)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	@$(BIN)/coverage report --include='$(PURE)' --fail-under=100 >/dev/null || { echo 'The pure parts must be covered in full:'; $(BIN)/coverage report --include='$(PURE)'; exit 1; }
endif

SEEDS ?= 2000

simulate: $(VENV)/.dev ## Play SEEDS random histories under virtual time and check every promise
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

CASES ?= 100000

fuzz: $(VENV)/.dev ## Send CASES made-up requests to shortcuts and to aiohttp alone, and compare
	$(BIN)/python -m tests.fuzz --cases $(CASES) $(ARGS)

RESTARTS ?= 200

faults: $(VENV)/.dev ## Break real processes in every way, RESTARTS times with kill -9
	RESTARTS=$(RESTARTS) $(BIN)/python -m pytest tests/faults $(ARGS)

MINUTES ?= 60

soak: $(VENV)/.dev ## Load one process for MINUTES and see that nothing grows
	$(BIN)/python -m tests.faults.soak --minutes $(MINUTES) $(ARGS)

lint: $(VENV)/.dev ## Check format, style and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(VENV)/.dev ## Check types
	$(BIN)/mypy

docs: $(VENV)/.dev ## Write the generated tables of the README again
	$(BIN)/python -m tests.tables

bench: $(VENV)/.dev ## Measure against a plain handler, nginx and a bare protocol
	$(BIN)/python -m tests.bench $(ARGS)

bench-restart: $(VENV)/.dev ## Measure a restart with a million customers in the store
	$(BIN)/python -m tests.bench.restart $(ARGS)

fmt: $(VENV)/.dev ## Format and fix what can be fixed by machine
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

# Versions a week old at least; no host is named in the files.
COMPILE = uv pip compile pyproject.toml --universal --generate-hashes --no-emit-index-url --quiet \
  --custom-compile-command "make lock" --exclude-newer $$(date -u -d '7 days ago' +%F)

lock: ## Renew the locked requirements (needs uv)
	$(COMPILE) --extra encryption -o requirements.lock
	$(COMPILE) --group dev -o requirements-dev.lock

clean: ## Remove what the other targets made
	rm -rf $(VENV) .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist
