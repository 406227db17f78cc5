# Every command that a developer needs. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SERVERS := .cache/servers
LOCKS := scripts/locks
AUDIT := .cache/audit
# Each package in just the version, and with just the content, that the lock names.
LOCKED := --quiet --disable-pip-version-check --no-deps --require-hashes --requirement
ITSELF := --quiet --disable-pip-version-check --no-deps --editable .
OTHER ?= /usr/bin/python3
OTHER_VENV := .cache/other$(subst /,-,$(OTHER))
# Many tests wait for sockets and programs: more of them than cores keep the cores busy.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(2 * len(os.sched_getaffinity(0)))' 2>/dev/null || echo 4)

QUICK := tests/config tests/proxy tests/test_architecture.py tests/test_architecture_time.py -m "not slow and not consul and not soak"
# Every branch of what decides is covered by its own tests, not by accident of what stands above it.
CORE_COVERAGE := --cov=gateway.core --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=100

.DEFAULT_GOAL := help
.PHONY: help run test soak check check-deep quick other bench sim fmt docs lock audit clean

help:  ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.run  ## Start the demo: sample services, the gateway in front, and what to try
	@$(BIN)/gateway demo

test: $(VENV)/.dev $(SERVERS)/consul $(SERVERS)/helm  ## Run the tests, in parallel, against a real Consul too
	$(BIN)/python scripts/run_tests.py -q -m "not soak" -n $(WORKERS) --dist worksteal

soak: $(VENV)/.dev $(SERVERS)/consul  ## Run the long stories: killed and frozen programs, crowds, what takes how long
	$(BIN)/python scripts/run_tests.py -q -m soak -n 1
	$(BIN)/python scripts/run_tests.py -q -m "hypothesis and not soak" --hypothesis-profile=soak -n $(WORKERS) --dist worksteal

check: $(VENV)/.dev  ## Format, lint, types, import rules, the core with its coverage, and the quick tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/run_tests.py -q tests/core -n $(WORKERS) $(CORE_COVERAGE)
	$(BIN)/python scripts/run_tests.py -q $(QUICK)

check-deep: $(VENV)/.dev  ## Fuzz what reads bytes from outside, for a minute
	@$(BIN)/pip install --quiet --disable-pip-version-check --group deep
	$(BIN)/python -m fuzz 60

quick: $(VENV)/.dev  ## Run the tests of the core and the engine (a few seconds)
	$(BIN)/python scripts/run_tests.py -q tests/core $(QUICK)

other: $(OTHER_VENV)/.dev  ## Run the tests of the core and the edge on another Python: OTHER=/usr/bin/python3
	@$(OTHER_VENV)/bin/python --version
	$(OTHER_VENV)/bin/pytest -q tests/core tests/edge -m "not soak" -n $(WORKERS)

bench: $(VENV)/.dev  ## Measure the gateway and its peers side by side (docs/benchmarks.md says how)
	@$(BIN)/python -m benchmarks

sim: $(VENV)/.dev  ## Play crashes, outages and deploys in simulated time (docs/resilience.md shows them)
	@$(BIN)/python -m benchmarks.sim

fmt: $(VENV)/.dev  ## Format the code, and fix what the linter can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.dev  ## Write the generated tables of the documentation anew
	$(BIN)/python scripts/gen_docs.py

lock: $(VENV)/.dev  ## Write the locks anew: the newest versions that pyproject.toml allows
	@$(BIN)/pip install --quiet --disable-pip-version-check --group lock
	$(BIN)/python scripts/lock.py $(LOCKS)

audit: $(VENV)/.dev $(AUDIT)/.audit  ## Ask for known faults of the locked versions
	@$(BIN)/python scripts/audit.py $(AUDIT)/bin/pip-audit $(LOCKS)/run.txt $(LOCKS)/dev.txt

clean:  ## Remove what the other commands made
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage build *.egg-info

# Installed once, and again when the dependencies change.
$(VENV)/.run: pyproject.toml $(LOCKS)/run.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it with: make PYTHON=python3.12 …")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) …"
	@$(BIN)/pip install $(LOCKED) $(LOCKS)/run.txt
	@$(BIN)/pip install $(ITSELF)
	@touch $@

$(VENV)/.dev: pyproject.toml $(LOCKS)/dev.txt $(VENV)/.run
	@$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/pip install $(LOCKED) $(LOCKS)/dev.txt
	@touch $@

# Debian's Python comes without pip; ours installs for it.
$(OTHER_VENV)/.dev: pyproject.toml $(VENV)/.dev
	@$(OTHER) -m venv --without-pip $(OTHER_VENV)
	@$(BIN)/pip --python $(OTHER_VENV)/bin/python install $(LOCKED) $(LOCKS)/dev.txt
	@$(BIN)/pip --python $(OTHER_VENV)/bin/python install $(ITSELF)
	@touch $@

# It needs other packages than we do, so it gets an environment of its own.
$(AUDIT)/.audit: pyproject.toml $(VENV)/.dev
	@$(PYTHON) -m venv --without-pip $(AUDIT)
	@$(BIN)/pip --python $(AUDIT)/bin/python install --quiet --disable-pip-version-check --group audit
	@touch $@

# Where it cannot be had, the tests that need it skip, loudly; with CI set they fail.
$(SERVERS)/consul:
	@echo "fetching a real Consul for the tests …"
	@command -v consul >/dev/null || scripts/get-servers $(SERVERS) || echo "no Consul to be had: its tests will be skipped"

$(SERVERS)/helm: $(VENV)/.dev
	@echo "fetching a real Helm for the tests …"
	@$(BIN)/python tests/packaging/get_helm.py $(SERVERS) || echo "no Helm to be had: its tests will be skipped"
