# Each target makes .venv on first use and installs what it needs, pinned by constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: run toy test test-slow test-real check format docs bench bench-rollout-quick clean

run: $(VENV)/.run          ## make a reasoning model from nothing, and its three laws: seven to nine minutes on two CPU cores
	$(BIN)/trilaw run

toy: $(VENV)/.run          ## every stage of the default recipe at toy size, in a folder that is thrown away
	dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && $(BIN)/trilaw run tiny --out "$$dir/tiny" \
	  --set stages.smallest.tokens=20000 --set stages.small-short.tokens=10000 --set stages.small-half.tokens=20000 \
	  --set stages.medium-short.tokens=10000 --set stages.medium-half.tokens=20000 \
	  --set stages.small.tokens=40000 --set stages.medium.tokens=40000 --set stages.base.tokens=120000 \
	  --set stages.zero.steps=4 --set stages.zero.problems=8 --set stages.zero.keep_every=1 \
	  --set stages.exam.limit=16 --set stages.exam.samples=4 --set stages.points.limit=16 --set stages.laws.bootstraps=20

test: $(VENV)/.test        ## the test suite
	$(BIN)/python -m pytest -m "not real and not slow"

test-slow: $(VENV)/.test   ## statistical proofs that take minutes: coverage of the laws' intervals
	$(BIN)/python -m pytest -m slow

test-real: $(VENV)/.test   ## tests that need real weights, fetched on first use
	$(BIN)/python -m pytest -m real

check: $(VENV)/.check      ## format, lint, types, import floors, line budget
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/line_budget.py

format: $(VENV)/.check
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.run         ## the generated parts of docs/: commands, field tables, the planner's tables, the question
	$(BIN)/python scripts/docs_cli.py
	$(BIN)/python scripts/docs_fields.py
	$(BIN)/python scripts/docs_planner.py
	$(BIN)/python scripts/docs_question.py

QUESTIONS ?=
BENCHMARK = $(BIN)/python benchmarks/$(1) $(if $(QUESTIONS),--questions $(QUESTIONS))

bench: $(VENV)/.test       ## every benchmark with every peer (docs/benchmarks.md): about two hours on two cores; QUESTIONS=test.jsonl of GSM8K
	status=0; \
	$(BIN)/python benchmarks/engine_tiny.py || status=1; \
	$(call BENCHMARK,rollout.py) --all || status=1; \
	$(call BENCHMARK,rollout.py) --all --single || status=1; \
	$(call BENCHMARK,train_step.py) || status=1; \
	$(call BENCHMARK,grpo_step.py) || status=1; \
	exit $$status

bench-rollout-quick: $(VENV)/.test  ## rollouts beside transformers, three rounds of shorter samples: under eight minutes on two cores
	$(call BENCHMARK,rollout.py) --rounds 3 --new 48 --tries 2 --minutes 4

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Trilaw needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": set PYTHON=python3.11, for example." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable .
	touch $@

$(VENV)/.test: $(VENV)/.run
	$(PIP) --editable ".[test]"
	touch $@

$(VENV)/.check: $(VENV)/.test
	$(PIP) --editable ".[test,check]"
	touch $@

clean:
	rm -rf $(VENV) .bench build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
