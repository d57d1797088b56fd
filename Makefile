# Commands for development; `make help` lists them. Everything is installed into .venv, except that `make test` installs
# Debian's Chromium if no browser is found. On Windows, run them in Git Bash.

ifeq ($(OS),Windows_NT)
PYTHON ?= python
BIN := .venv/Scripts
PY := $(BIN)/python.exe
else
PYTHON ?= python3
BIN := .venv/bin
PY := $(BIN)/python
endif

PARALLEL ?= -n 3 --dist loadscope  # test processes; on two cores three, since tests wait for browsers and servers

.DEFAULT_GOAL := help
.PHONY: help app check test test-slow lint audit bare floors hub benchmark docs clean chromium

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

app: .venv/app  ## open the page (TWINCAR_MODEL=user/repo takes the model from the Hub)
	$(PY) app.py

check: .venv/dev lint chromium  ## lint, and run the quick tests of what changed
	$(PY) .ci/changed_tests.py

test: .venv/dev lint chromium  ## lint, and run every test that is not marked slow
	$(PY) -m pytest -m "not slow" $(PARALLEL)

test-slow: .venv/dev chromium  ## run the tests that are marked slow
	$(PY) -m pytest -m slow -n 2 --dist loadscope

lint: .venv/dev  ## check style, imports and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(BIN)/lint-imports
	$(PY) -m mypy

audit: .venv/dev  ## check the installed packages for known vulnerabilities; fails if an update fixes one
	$(PY) .ci/audit.py

bare: $(PY)  ## start the page in a new environment with requirements.txt only, and send it a photo
	$(PY) .ci/bare.py

floors: $(PY)  ## run the tests, except those of export, with the oldest allowed versions
	$(PY) -m pip install --quiet 'uv>=0.5'
	$(PY) -m uv venv --quiet --clear --python $(PY) .venv-floors
	$(PY) -m uv pip install --quiet --python .venv-floors --resolution lowest-direct -e '.[train,test]'
	$(subst .venv,.venv-floors,$(PY)) -m pytest -m "not slow" $(PARALLEL) --ignore tests/modeling/publishing/test_export.py

hub: .venv/dev  ## run the tests of the Hub with the oldest allowed huggingface_hub
	$(PY) -m pip install --quiet --no-deps --upgrade --target .venv-hub "$(shell sed -n 's/^\(huggingface_hub\)>=/\1==/p' requirements.txt)"
	PYTHONPATH=$(CURDIR)/.venv-hub $(PY) -m pytest -m "not slow" tests/modeling/hub tests/modeling/publishing/test_push_pull.py \
		tests/modeling/publishing/test_space.py tests/data/test_parquet.py

benchmark: .venv/dev  ## measure the speed and write reports/benchmarks.md (DATA=data, PHOTOS=folder, QUICK=--quick)
	$(PY) -m benchmarks --data $(or $(DATA),data) $(if $(PHOTOS),--photos $(PHOTOS)) $(QUICK)

docs: .venv/docs  ## build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

clean:  ## remove the environment and what tools left
	rm -rf .venv .venv-floors .venv-hub build dist *.egg-info .*_cache .hypothesis site

# The page is tested in a real browser: Chromium or Chrome.
chromium:
	@test -n "$$CHROMIUM" || command -v chromium >/dev/null || \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } || \
		{ echo "The tests of the page need Chromium: install Debian's package chromium, or give the path of a Chromium or Chrome, as in: make test CHROMIUM=path"; exit 1; }

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "TwinCar needs Python 3.11 or newer: make app PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --upgrade pip

.venv/app: requirements.txt | $(PY)
	$(PY) -m pip install --quiet -r requirements.txt
	@touch $@

# An environment made by `uv sync` has no pip.
.venv/dev: pyproject.toml requirements.txt | $(PY)
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip >/dev/null
	$(PY) -m pip install --quiet -e '.[dev]'
	@touch $@

.venv/docs: pyproject.toml requirements.txt | $(PY)
	$(PY) -m pip install --quiet -e '.[docs]'
	@touch $@
