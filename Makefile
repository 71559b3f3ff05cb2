# Every target sets up what it needs: only Python (3.11 or later) and make must be there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test test-pythons proof pictures lint bench bench-check contract-doc lock clean
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

# The project itself is installed last and alone, so that the lock stays the only source of versions.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	sh tests/install.sh $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: $(READY) ## a live registry moved under load, nothing lost
	$(BIN)/registry-backend demo $(ARGS)

$(VENV)/.clients: tests/clients/install.sh tests/clients/npm.txt tests/clients/python_sdk_1.txt $(READY)
	sh tests/clients/install.sh $(VENV)
	touch $@

test: $(READY) ## run all tests; as root: as a user of their own, but for what needs root
	sh tests/packages.sh
	VENV=$(VENV) sh tests/run.sh $(ARGS)

test-pythons: ## run all tests on every Python that pyproject.toml names; a missing one is counted
	sh tests/pythons.sh $(ARGS)

proof: $(READY) $(VENV)/.clients ## the long runs: every store, phase and transport; every race as often as promised
	sh tests/packages.sh
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --no-index examples/registry-backend-lmdb
	PROOF=1 $(BIN)/python -m pytest -n 2 --dist worksteal --timeout 1800 tests/orchestrator tests/dashboard/test_schema.py tests/admin/test_demo.py tests/postgresql/test_failover.py tests/postgresql/test_ha.py tests/postgresql/test_mutants.py $(ARGS)

pictures: $(READY) ## write the pictures of the docs: of the commands, and by the browser tests
	sh tests/packages.sh
	$(BIN)/python -m tests.docs.terminal
	PICTURES=docs/pictures $(BIN)/python -m pytest -n 2 tests/dashboard/test_browser.py -k every_page

lint: $(READY) ## ruff, mypy, import arrows, dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports
	$(BIN)/deptry .

.venv-peers: benchmarks/peers.txt $(READY)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $@
	$(BIN)/uv pip install --quiet --python $@/bin/python -r benchmarks/peers.txt
	touch $@

bench: $(READY) .venv-peers ## time everything beside a raw side; writes docs/benchmarks.md. ARGS=sqlite: one group
	$(BIN)/python -m benchmarks $(ARGS)

bench-check: $(READY) ## a short run, against the recorded ratios
	$(BIN)/python -m benchmarks check

contract-doc: $(READY) ## try every mutant; writes docs/contract.md
	$(BIN)/python -m contract_tests.mutation.report docs

lock: $(READY) ## write requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --all-extras pyproject.toml -o requirements.lock

clean: ## remove what the other targets made
	rm -rf .venv .venv-* .pytest_cache .mypy_cache .ruff_cache .hypothesis
