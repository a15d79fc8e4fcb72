# One virtual environment for everything; each target sets up what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-inside test-outside simulate faults soak fuzz lint types docs bench bench-check bench-record bench-restart bench-memory bench-flat fmt lock clean

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

# What talks to processes and waits for them runs beside what computes. Coverage gates need both.
OUTSIDE := tests/faults tests/journeys tests/simulation

test: $(VENV)/.dev ## Run every test, with the coverage gates (ARGS='-k name' narrows)
	$(BIN)/coverage erase
ifeq ($(ARGS),)
	@$(MAKE) --no-print-directory -j2 test-inside test-outside
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	@$(BIN)/coverage report --include='$(PURE)' --fail-under=100 >/dev/null || { echo 'The pure parts must be covered in full:'; $(BIN)/coverage report --include='$(PURE)'; exit 1; }
else
	$(BIN)/coverage run -m pytest $(ARGS)
endif

test-inside: $(VENV)/.dev
	$(BIN)/coverage run -m pytest $(OUTSIDE:%=--ignore=%)

test-outside: $(VENV)/.dev
	$(BIN)/coverage run -m pytest $(OUTSIDE)

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

bench: $(VENV)/.dev ## Measure beside nginx, a plain handler, a bare protocol and others
	$(BIN)/python -m tests.bench $(ARGS)

bench-check: $(VENV)/.dev ## Fail when a ratio fell more than 15 % below the recorded one
	$(BIN)/python -m tests.bench.check $(ARGS)

bench-record: $(VENV)/.dev ## Record the ratios that bench-check compares with
	$(BIN)/python -m tests.bench.check --record $(ARGS)

bench-restart: $(VENV)/.dev ## Measure a restart with a million customers in the store
	$(BIN)/python -m tests.bench.restart $(ARGS)

bench-memory: $(VENV)/.dev ## Measure what a customer costs in memory, up to a million
	$(BIN)/python -m tests.bench.memory $(ARGS)

bench-flat: $(VENV)/.dev ## Ask one process ten million times and see that nothing grows
	$(BIN)/python -m tests.bench.flat $(ARGS)

fmt: $(VENV)/.dev ## Format and fix what can be fixed by machine
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

# Versions a week old at least; no host is named in the files.
LOCKING = --universal --generate-hashes --no-emit-index-url --quiet \
  --custom-compile-command "make lock" --exclude-newer $$(date -u -d '7 days ago' +%F)
COMPILE = uv pip compile pyproject.toml $(LOCKING)

lock: ## Renew the locked requirements (needs uv)
	$(COMPILE) --extra encryption -o requirements.lock
	$(COMPILE) --group dev -o requirements-dev.lock
	uv pip compile --group build $(LOCKING) -o requirements-build.lock

clean: ## Remove what the other targets made
	rm -rf $(VENV) .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist
