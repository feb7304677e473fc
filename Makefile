# The project's commands. Everything they create is in .venv/ and data/.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# A Python that is new enough, and on Debian the package without which there is no virtual environment.
USABLE = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3.12" >&2; exit 1; }; \
	$(PYTHON) -c 'import sys; from importlib.util import find_spec; sys.exit(find_spec("ensurepip") is None)' \
	|| { echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
export DAGSTER_HOME := $(CURDIR)

.PHONY: help install demo ui receiver bench test lint types imports unit dates lock clean

help:
	@echo "make install   install only what production needs into .venv: the command, the UI, the receiver, the page, the PostgreSQL driver"
	@echo "make demo      archive two dates of a sandbox RingCX into a local S3, and show the result"
	@echo "make ui        run the Dagster UI and daemon, for the demo or for the account in .env"
	@echo "make receiver  take End Call Events from RingCX (docs/events.md)"
	@echo "make test      lint, types, import rules and the whole test suite"
	@echo "make dates     the tests that know dates, on twenty dates: month ends, midnights, clock changes; takes hours"
	@echo "make bench     measure transfer, limits, ledger and receiver against their peers; takes about ten minutes"
	@echo "make lock      pin the newest dependencies that pyproject.toml allows (needs uv)"
	@echo "make clean     remove .venv and the demo; keep an account's run history and data"

$(READY): requirements.lock pyproject.toml
	@$(USABLE)
	@echo "Making .venv and installing the pinned packages; this takes a minute or two the first time."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

install:
	@$(USABLE)
	@echo "Making .venv and installing the pinned packages of production; this takes a minute or two."
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-install.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@echo "Installed: $$($(BIN)/ringcx-archive --version). Next: install -m 600 .env.example .env, fill it in, then" \
		"$(BIN)/ringcx-archive check"

demo: $(READY)
	@$(BIN)/ringcx-archive demo

# With what `make install` installed, if that is there: production gets no test tools.
ui receiver:
	@test -x $(BIN)/ringcx-archive -a ! -e $(READY) || $(MAKE) --silent --no-print-directory $(READY)
	@exec $(BIN)/ringcx-archive $@

test: lint types imports unit

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/deptry .
	$(BIN)/codespell
	@grep -rnIiEf tests/words_to_avoid.txt pipelines assets sandbox tests benchmarks deploy docs *.yaml README.md \
		CONTRIBUTING.md SECURITY.md .env.example --exclude-dir=__pycache__ --exclude=words_to_avoid.txt; \
		[ $$? -eq 1 ] || { echo "These words are to be avoided" >&2; exit 1; }

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports

# Four workers for two cores: much of a test's time is waiting, for processes, for limits and for Dagster's daemon.
# A file stays with its worker, and starts its servers once; tests/conftest.py says which begin first.
unit: $(READY)
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

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
