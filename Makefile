# Every target sets itself up with plain pip; a second run finds the stamps and costs nothing.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-page check setup docs docs-site pictures notebook package format lock clean \
        bench bench-engine bench-overhead bench-steps bench-sweep bench-curves bench-tried bench-rows bench-page

help: ## say what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: $(VENV)/.installed ## steer Gemma-3-270M and show the proof
	$(BIN)/trimtab demo

test: $(VENV)/.installed-dev ## run the tests
	$(BIN)/python -m pytest

test-page: $(VENV)/.installed-page ## run the tests of the server's page, in Chromium
	tools/chromium.sh
	$(BIN)/python -m pytest tests/serve/page

check: $(VENV)/.installed-dev ## formatter, linter, types, import floors, generated docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/cli_docs.py --check
	$(BIN)/python tools/api_docs.py --check

# GGUF=FILE adds llama.cpp on the same model, which needs `pip install xllamacpp`. Each step can be made alone (make
# bench-sweep), and RUN stands before every command (RUN="taskset -c 0,1").
bench: bench-engine bench-overhead bench-steps bench-sweep bench-curves bench-tried bench-page ## measure the engine beside others (half an hour), write docs/performance.md

bench-engine: $(VENV)/.installed-dev
	$(RUN) $(BIN)/python bench/engine.py --out bench/results/engine.json $(if $(GGUF),--gguf $(GGUF))

bench-overhead: $(VENV)/.installed-dev
	$(RUN) $(BIN)/python bench/engine.py --only ours_plain ours_add ours_clamp_8 --rows 32 128 --rounds 9 --out bench/results/overhead.json --no-tutorial --no-bfloat16

bench-steps: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(RUN) $(BIN)/python bench/overhead.py --out bench/results/steps.json

bench-sweep: $(VENV)/.installed-dev
	$(RUN) $(BIN)/python bench/sweep.py --out bench/results/sweep.json

bench-curves: $(VENV)/.installed-dev
	$(RUN) $(BIN)/python bench/curves.py --out bench/results/curves.json

bench-tried: $(VENV)/.installed-dev
	$(RUN) $(BIN)/python bench/tried.py --out bench/results/tried.json

# not part of `bench`: 10,000 texts take most of an hour
bench-rows: $(VENV)/.installed-dev
	$(RUN) $(BIN)/python bench/rows.py run build/rows
	$(RUN) $(BIN)/python bench/rows.py check build/rows --out bench/results/rows.json

# PERSONA=FOLDER adds sets of model-written evals. What is in bench/results/find_* already is not measured again.
bench-find: $(VENV)/.installed-dev ## measure ways of finding (40 minutes), write docs/finding-measured.md
	$(RUN) $(BIN)/python bench/find_cost.py
	$(if $(PERSONA),$(RUN) $(BIN)/python bench/find_persona.py $(PERSONA))
	$(RUN) $(BIN)/python bench/find_methods.py $(PERSONA)
	$(BIN)/python bench/find_page.py bench/results docs/finding-measured.md

bench-page: $(VENV)/.installed-dev
	$(BIN)/python bench/page.py bench/results docs/performance.md

# TEXTS=FILE are the texts that are indexed. MEMORY=1 adds a build of a million tokens (about ten minutes).
bench-index: $(VENV)/.installed-dev ## measure the feature index (two minutes), write the tables of docs/index.md
	$(BIN)/python bench/index.py $(TEXTS) --out bench/results/index.json
	$(if $(MEMORY),$(BIN)/python bench/index.py $(TEXTS) --dtypes bfloat16 --threads 2 --memory 100000 1000000 --out bench/results/index-memory.json)
	$(BIN)/python bench/index_page.py bench/results docs/index.md

# the soak takes ten minutes on each of two models
bench-serve: $(VENV)/.installed-dev ## measure the server under load, random clients and random bodies (half an hour)
	$(RUN) $(BIN)/python bench/serve_load.py
	$(RUN) $(BIN)/python bench/serve_soak.py
	$(BIN)/python bench/serve_soak.py --planted --out bench/results/serve_soak_planted.json
	$(BIN)/python bench/serve_fuzz.py
	$(BIN)/python bench/serve_page.py bench/results docs/serve.md

setup: $(VENV)/.installed-dev ## prepare .venv and nothing else

docs: $(VENV)/.installed-dev ## write docs/cli.md and docs/reference.md again, from --help and the docstrings
	$(BIN)/python tools/cli_docs.py
	$(BIN)/python tools/api_docs.py

docs-site: $(VENV)/.installed-dev ## build the documentation's site, site/index.html
	$(BIN)/python tools/site.py

pictures: $(VENV)/.installed-dev ## draw the pictures of docs/concepts.md and the outputs of docs/start.md again (minutes)
	$(BIN)/python tools/pictures.py
	$(BIN)/python tools/start_page.py

notebook: $(VENV)/.installed-dev ## open the whole story as a notebook, in the browser
	$(BIN)/marimo edit notebooks/story.py

package: ## build wheel and sdist, install into an empty environment, run the demo from there
	PYTHON=$(PYTHON) tools/package.sh

format: $(VENV)/.installed-dev ## format the code and fix what the linter can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## resolve the pinned versions again
	PYTHON=$(PYTHON) tools/lock.sh

clean: ## remove .venv, caches and build output
	rm -rf $(VENV) build dist site src/*.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "trimtab needs Python 3.11 or newer, and $(PYTHON) is older: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.lock pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -r requirements.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	$(BIN)/python -m pip install -r requirements-dev.lock
	@touch $@

$(VENV)/.installed-page: requirements-page.lock $(VENV)/.installed-dev
	$(BIN)/python -m pip install -r requirements-page.lock
	@touch $@
