# Two commands do all the set-up: `make up` (a running cluster) and `make test` (every test).
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
.PHONY: help up down test torture check audit docs protos install install-test lab lab-down lab-test

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

torture: install-test ## What it must survive, in full and with figures (some hours)
	@deploy/torture.sh

check: install-test ## Lint and type-check only
	@deploy/check.sh

audit: install-test ## Look up known vulnerabilities of what is installed
	@deploy/audit.sh

docs: install-test ## Make a site of the documentation in site/
	@.venv/bin/mkdocs build --quiet

protos: install-test ## Generate the Python of the contracts anew
	@$(PYTHON) -m protos.generate

# Where the engine has no registry or refuses `privileged`: docs/operate.md
LAB_FILES ?= -f docker-compose.yml
# `make lab` finds out whether it is docker-compose or docker compose.
COMPOSE = $$(deploy/compose/check.sh) --project-name cutaway $(LAB_FILES)
export BASE

lab: ## Build and start the cluster of containers, and wait until it is healthy
	@deploy/compose/check.sh >/dev/null
	@docker build -q -f deploy/Dockerfile -t cutaway:lab $(if $(BASE),--build-arg BASE=$(BASE)) . >/dev/null
	@deploy/compose/start.sh $(COMPOSE)

lab-down: ## Stop the cluster of containers; its volumes stay
	@$(COMPOSE) down

lab-test: lab ## The story of the cluster of containers: update, roll back, drain, kill a master, cut a node off, heal
	@LAB_COMPOSE="$(COMPOSE)" .venv/bin/python -m pytest -q tests/compose
