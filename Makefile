# The project's commands. Everything they create is in .venv/ and data/.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
NEW_ENOUGH = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3.12" >&2; exit 1; }
export DAGSTER_HOME := $(CURDIR)

.PHONY: help install demo ui receiver bench test lint types imports unit dates lock clean

help:
	@echo "make install  install only what production needs into .venv: the command, the UI, the receiver, the page, the PostgreSQL driver"
	@echo "make demo   archive two dates of a sandbox RingCX into a local S3, and show the result"
	@echo "make ui     run the Dagster UI and daemon, for the demo or for the account in .env"
	@echo "make receiver  take End Call Events from RingCX (docs/events.md)"
	@echo "make test   lint, types, import rules and the whole test suite"
	@echo "make dates  the tests that know dates, on twenty dates: month ends, midnights, clock changes; takes hours"
	@echo "make bench  measure transfer, limits, ledger and receiver against their peers; takes about ten minutes"
	@echo "make lock   pin the newest dependencies that pyproject.toml allows (needs uv)"
	@echo "make clean  remove .venv and the demo's data; keep the run history and an account's data"

$(READY): requirements.lock pyproject.toml
	@$(NEW_ENOUGH)
	@echo "Making .venv and installing the pinned packages; this takes a minute or two the first time."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

install:
	@$(NEW_ENOUGH)
	@echo "Making .venv and installing the pinned packages of production; this takes a minute or two."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-install.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@echo "Installed: $$($(BIN)/ringcx-archive --version). Next: copy .env.example to .env, fill it in, then" \
		"$(BIN)/ringcx-archive check"

demo: $(READY)
	@$(BIN)/ringcx-archive demo

ui: $(READY)
	@exec $(BIN)/ringcx-archive ui

receiver: $(READY)
	@exec $(BIN)/ringcx-archive receiver

test: lint types imports unit

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/deptry .
	$(BIN)/codespell
	! grep -rnIiEf tests/words_to_avoid.txt pipelines assets docs README.md .env.example --exclude-dir=__pycache__

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports

# Two workers for two cores: with a third it was no faster, and files with servers and daemons of their own timed out.
# A file stays with its worker, and starts its servers once; tests/conftest.py puts the slow ones first.
unit: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

bench: $(READY)
	@for subject in transfer limits ledger events find; do \
		printf '\n== %s\n' $$subject; $(BIN)/python benchmarks/$$subject.py || exit 1; \
	done

dates: $(READY)
	tests/dates/run.sh

lock:
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-strip-extras --no-annotate --no-header --quiet --upgrade -o requirements.lock
	printf 'hatchling\neditables\n' | uv pip compile pyproject.toml - --extra ui --extra receiver --extra browse --extra postgres --constraint requirements.lock \
		--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-strip-extras --no-annotate --no-header --quiet \
		-o requirements-install.lock

clean:
	rm -rf .venv data/demo data/sandbox
