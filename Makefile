# Two commands do all the set-up: `make up` (a running cluster) and `make test` (every test).
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
.PHONY: help up down test check protos install install-test lab torture

help: ## Show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

install: ## Install what a cluster needs: a virtual environment in .venv, system packages
	@deploy/install.sh

install-test: ## Install what the tests need besides
	@deploy/install.sh --test

up: install ## Bring a cluster up and run the example on it
	@.venv/bin/cutaway up --demo

down: ## Stop the cluster; leaves nothing behind but its state in .cutaway/
	@[ ! -x .venv/bin/cutaway ] || .venv/bin/cutaway down

test: install-test ## Run every test
	@deploy/test.sh

check: install-test ## Lint and type-check only
	@deploy/check.sh

protos: install-test ## Generate the Python of the contracts anew
	@$(PYTHON) -m protos.generate

