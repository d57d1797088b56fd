# TwinCar's commands. `make help` lists them. Everything is installed into .venv; nothing else on the machine changes,
# but for `make test`, which installs Debian's Chromium where no browser is found and it may.

PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help app test lint audit bare floors benchmark docs clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

app: .venv/app  ## open the page (TWINCAR_MODEL=user/repo takes the model from the Hub)
	$(BIN)/python app.py

test: .venv/dev lint  ## run every test
	@test -n "$$CHROMIUM" || command -v chromium >/dev/null || \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } || \
		{ echo "The page is tested in Chromium: install Debian's package chromium, or name a browser with CHROMIUM=path, and run make test again."; exit 1; }
	$(BIN)/python -m pytest

lint: .venv/dev  ## check style, imports and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

audit: .venv/dev  ## ask for known vulnerabilities in what is installed; fails where an update would mend one
	$(BIN)/python .ci/audit.py

bare: .venv/bin/python  ## start the page in an empty environment with requirements.txt alone, and ask it
	$(BIN)/python .ci/bare.py

floors: .venv/bin/python  ## run the tests but those of export with the oldest versions that are allowed
	$(BIN)/python -m pip install --quiet 'uv>=0.5'
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-floors
	VIRTUAL_ENV=.venv-floors $(BIN)/uv pip install --quiet --resolution lowest-direct -e '.[train,test]'
	.venv-floors/bin/python -m pytest --ignore tests/test_export.py

benchmark: .venv/dev  ## measure how fast it is, into reports/benchmarks.md (DATA=data, QUICK=--quick)
	$(BIN)/python -m benchmarks --data $(or $(DATA),data) $(QUICK)

docs: .venv/docs  ## build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:  ## remove the environment and what tools left
	rm -rf .venv .venv-floors build dist *.egg-info .pytest_cache .ruff_cache .hypothesis site

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "TwinCar needs Python 3.11 or newer: make app PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/app: requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet -r requirements.txt
	@touch $@

.venv/dev: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

.venv/docs: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	@touch $@
