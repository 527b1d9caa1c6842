# What there is to type. A fresh Debian 12 needs nothing before: each target looks for its packages first,
# installs them when it runs as root, and otherwise says which command would.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# Where the demo keeps its keys, people and recordings, and the port of its front door.
DIR = demo
PORT = 8443

# Parts of `make bench`, separated by commas; empty is all of them.
ONLY =

# Anything here makes `make bench-cut` the quick one.
QUICK =

PYTHON := .venv/bin/python

.PHONY: help demo test test-quick test-scenarios bench bench-quick bench-cut bench-connector wheel lint format install clean

help:
	@echo "make demo [DIR=demo] [PORT=8443]   everything at once on loopback; Ctrl-C stops it"
	@echo "make test                          all tests (test-quick and test-scenarios one by one)"
	@echo "make bench [ONLY=part,part]        what it costs, beside nginx, Envoy and others (bench-quick: 50 s)"
	@echo "make bench-cut [QUICK=1]           how long until what is over is over on all nodes (quick: 50 s)"
	@echo "make bench-connector               what reaching an application through a connector costs (50 s)"
	@echo "make wheel                         a wheel with the hot path compiled, in dist"
	@echo "make lint                          formatting, rules, types, floors"
	@echo "make format                        put the formatting right"
	@echo "make install                       a virtual environment in .venv with everything for development"
	@echo "make clean                         remove environments, caches and the demo in ./demo"

demo:
	@scripts/packages demo
	@scripts/venv demo
	@exec $(PYTHON) -m ztproxy demo --dir "$(DIR)" --port "$(PORT)"

test:
	@scripts/packages test
	@scripts/venv dev
	@scripts/venv apps
	@scripts/chart-tools >/dev/null || echo "No chart tools to be had here: their tests skip."
	@scripts/test all

test-quick:
	@scripts/packages test
	@scripts/venv dev
	@scripts/test quick

test-scenarios:
	@scripts/packages test
	@scripts/venv dev
	@scripts/venv apps
	@scripts/test scenarios

bench:
	@scripts/packages bench
	@scripts/venv dev
	@scripts/venv bench
	@scripts/compile || echo "ztproxy is measured as plain Python."
	@$(PYTHON) -m bench.run --only "$(ONLY)"

wheel:
	@scripts/packages compile
	@scripts/venv dev
	@scripts/compile
	@ls dist/*.whl

bench-quick:
	@scripts/packages bench
	@scripts/venv dev
	@scripts/venv bench
	@scripts/compile || echo "ztproxy is measured as plain Python."
	@$(PYTHON) -m bench.quick

bench-cut:
	@scripts/packages cut
	@scripts/venv dev
	@$(if $(QUICK),true,scripts/compile) || echo "ztproxy is measured as plain Python."
	@$(PYTHON) -m bench.cut $(if $(QUICK),--quick)

bench-connector:
	@scripts/packages bench
	@scripts/venv dev
	@scripts/venv bench
	@scripts/compile || echo "ztproxy is measured as plain Python."
	@$(PYTHON) -m bench.connector

lint:
	@scripts/packages lint
	@scripts/venv dev
	@scripts/lint

format:
	@scripts/packages lint
	@scripts/venv dev
	@$(PYTHON) -m ruff format .
	@$(PYTHON) -m ruff check --fix .

install:
	@scripts/packages lint
	@scripts/venv dev

clean:
	@rm -rf .venv .venv-apps .venv-bench .venv-autobahn .cache build dist demo
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
