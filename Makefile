# Everything sets itself up: the first run of any target makes the virtual environment and, where it may,
# installs what is missing on a Debian machine. See deploy/local/setup.sh.

BIN := .venv/bin

# Tests start hundreds of programs, each of which would compile all its modules anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup setup-demo setup-contract-tools demo test test-long check bench clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

setup: ## Install everything that the other targets need
	@deploy/local/setup.sh mosquitto mosquitto_sub chromium openssl

setup-demo:
	@deploy/local/setup.sh mosquitto mosquitto_sub

# The linters of the OpenAPI and AsyncAPI documents, and generators of clients.
setup-contract-tools: setup
	@deploy/local/setup.sh node npm
	@tests/contract/tools/install.sh

demo: setup-demo ## Run the whole line on this machine until Ctrl-C (ONCE=1: run once, check, end)
	@$(BIN)/python -m deploy.local.demo $(if $(filter-out 0,$(ONCE)),--once)

test: setup-contract-tools ## Run all tests, on a real Mosquitto and a real mongod (ARGS= goes to pytest, JOBS= at a time: 3)
	@$(BIN)/python -m pytest -n $(or $(JOBS),3) --dist worksteal $(ARGS)

test-long: setup-contract-tools ## Run the long forms too: each kill by itself, whole days, hundreds of examples a property
	@$(BIN)/python -m pytest -n $(or $(JOBS),2) --dist worksteal -m "" --hypothesis-profile=long $(ARGS)

check: setup ## Lint, formatting, types and the rules of the house
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m tests.check_house

bench: setup-demo ## Measure, and print the results as a table (ARGS= goes to the benchmarks)
	@$(BIN)/python -m benchmarks $(ARGS)

clean: ## Remove all that these targets made, the virtual environment too
	@rm -rf .venv .wfm .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
