# `make demo` and `make test` need nothing but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml Makefile
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
COMPILE := $(BIN)/python -m compileall -q -j 2
# What it makes of the tests is kept for the next time, even where PYTHONDONTWRITEBYTECODE is set.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest

.PHONY: demo test lint types check torture mutants bench monitoring clean bytecode

demo: $(VENV)/.installed
	$(BIN)/tb-cli demo

test: lint types check

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

# While one test waits for a process another one runs: three workers keep two cores busy.
check: bytecode
	$(PYTEST) -n 3 --dist worksteal

# What `check` takes samples of, in full; it takes an hour or more.
torture: bytecode
	TB_TORTURE=1 $(PYTEST) -n 2 --dist worksteal --timeout=0

# Whether the tests notice small mistakes in the rooms that move money; MUTANTS=--all takes hours.
MUTANTS ?= --sample 150 --seed 1
mutants: $(VENV)/.installed-dev
	$(BIN)/python -m tests.mutants $(MUTANTS)

bench: $(VENV)/.installed-dev
	@for script in benchmarks/[a-z]*.py; do \
		case $$script in */measure.py|*/load.py|*/rounds.py|*/gpu.py) continue;; esac; \
		echo "== $$script"; $(BIN)/python $$script || failed=1; \
	done; exit $${failed:-0}

# Alerts, their tests and dashboards, after a metric, an alert or a panel has changed.
monitoring: $(VENV)/.installed-dev
	$(BIN)/python -m monitoring.generate

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)

# Bytecode is compiled even where PYTHONDONTWRITEBYTECODE is set: without it every command
# compiles its modules anew, which doubles the start-up time.
$(VENV)/.installed: $(BIN)/python $(SOURCES)
	$(INSTALL) --editable .
	$(COMPILE) $(VENV)/lib compute_market cli || true
	touch $@

# With the large ones that only tests use, Python compiles what they come to import.
LATER := dask distributed grafana_foundation_sdk graphql hypothesis mypy mypyc numpy pip \
	pkg_resources playwright schemathesis setuptools tornado werkzeug
NOTHING :=
SPACE := $(NOTHING) $(NOTHING)
$(VENV)/.installed-dev: $(BIN)/python $(SOURCES)
	$(INSTALL) --no-compile --editable '.[dev]'
	$(COMPILE) -x '/site-packages/($(subst $(SPACE),|,$(strip $(LATER))))/' $(VENV)/lib compute_market cli || true
	touch $(VENV)/.installed $@

# Of what was changed since: the tests start a thousand commands.
bytecode: $(VENV)/.installed-dev
	$(COMPILE) compute_market cli

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
