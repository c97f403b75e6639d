# `make demo` and `make test` do all of their own set-up; a second run starts at once. `make check` answers in minutes.
PYTHON ?= python3
VENV := .venv
LOWEST := $(VENV)-lowest
SPACE := $(VENV)-space
BIN := $(VENV)/bin
ARGS ?=
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export FIFTYONE_DO_NOT_TRACK ?= 1
# The MongoDB that comes as a wheel is 6.0, the oldest that FiftyOne supports: it would warn at every start.
export FIFTYONE_DATABASE_VALIDATION ?= false
# Without it the App offers no way to run "Train on this view" in the background.
export FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS ?= true

.PHONY: help demo check test lowest space durations bench lint types format docs docs-check package setup setup-dev clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: setup  ## Segment a dataset from words and open the App (ARGS="--headless --out demo_out" to exit instead)
	$(BIN)/genseg demo $(ARGS)

check: setup-dev  ## Check style, types, imports and the quick tests (3 minutes on 2 cores)
	@$(MAKE) --no-print-directory -j 2 -O style-and-quick-tests types

.PHONY: style-and-quick-tests
style-and-quick-tests: style
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)

test: setup-dev  ## Run all tests (ARGS="-k name" for some)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lowest:  ## Run the quick tests on the lowest versions of pyproject.toml, in .venv-lowest (PYTHON=python3.13 for another)
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install -q uv
	$(LOWEST)/bin/uv pip install -q --python $(LOWEST)/bin/python --resolution lowest-direct -e ".[dev]"
	$(LOWEST)/bin/python -m fiftyone_genseg.database
	@echo "the extra serve, whose lowest Transformers is later than that of the package"
	$(LOWEST)/bin/python -m pytest -m "not slow" tests/hub/reasoners/test_server.py
	$(LOWEST)/bin/uv pip install -q --python $(LOWEST)/bin/python --resolution lowest-direct --upgrade-package transformers -e .
	$(LOWEST)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)

space: setup-dev  ## Start the Gradio Space and ask it, in .venv-space: Gradio needs another Pillow than .venv has
	$(BIN)/python -m venv --clear $(SPACE)
	@echo "import site; site.addsitedir('$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')')" \
		> $$($(SPACE)/bin/python -c 'import site; print(site.getsitepackages()[0])')/venv.pth
	$(SPACE)/bin/python -m pip install -q gradio==$$(sed -n 's/^sdk_version: //p' space/README.md)
	$(SPACE)/bin/python -m pytest tests/test_space.py

durations: setup-dev  ## Run all tests and record which are slow, into tests/durations.json
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --record-durations

bench: setup  ## Time this project against other ways of working, into benchmarks/RESULTS.md (an hour; ARGS=--quick: minutes)
	$(BIN)/python benchmarks/all.py $(ARGS)

lint: setup-dev style types  ## Check style, types and the direction of imports

.PHONY: style
style: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup-dev
	$(BIN)/mypy

docs: setup-dev  ## Serve the docs site at http://127.0.0.1:8000
	$(BIN)/python docs/site_pages.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

docs-check: setup-dev  ## Build the docs site into build/site; a warning is an error
	$(BIN)/python docs/site_pages.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

package: setup-dev  ## Build sdist and wheel into dist/ and check both
	$(BIN)/python -m pip install -q build hatchling twine
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m pytest tests/test_package.py

format: setup-dev  ## Apply the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(VENV)/.installed  ## Install the package and its database into .venv
	@$(BIN)/python -m fiftyone_genseg.database

setup-dev: setup $(VENV)/.installed-dev  ## Also install what the tests need, chromium included

# torch and torchvision are pinned as a pair: PyPI's CPU-only torch has no torchvision that fits.
$(VENV)/.installed: pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -q torch==2.14.1 torchvision==0.29.1
	$(BIN)/python -m pip install -q -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install -q -e ".[dev]"
	@command -v chromium >/dev/null || { \
		echo "installing chromium, which the browser test drives"; \
		run=; [ "$$(id -u)" = 0 ] || run=sudo; \
		$$run apt-get update -qq && $$run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; }
	@touch $@

clean:  ## Remove the virtual environment and caches
	rm -rf $(VENV) $(LOWEST) $(SPACE) .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
