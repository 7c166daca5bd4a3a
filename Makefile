# One command each; what takes more than a line is a Python program.

PYTHON ?= python3
VENV ?= .venv
BENCH_VENV ?= .venv-bench
UV ?= uv
JOBS ?= auto

BIN = $(VENV)/bin
READY = $(VENV)/.ready
BENCH_READY = $(BENCH_VENV)/.ready
INSTALL = python -m pip install --quiet --disable-pip-version-check
LOCK = $(UV) pip compile --quiet --no-emit-index-url --generate-hashes --universal --python-version 3.11

# The rooms that know no socket and no clock: every branch of them is tested.
PURE = gateway/model.py,gateway/decision.py,gateway/wire/*,gateway/tokens/*,gateway/policy/*,gateway/identity/*,gateway/revocation/*

# The tests start the command many times; it should not be compiled each time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test lint check bench profile e2e fuzz soak cov image lock
.DEFAULT_GOAL := help

help:  ## list the targets
	@$(PYTHON) -c "import re; [print(f'{name:8}{text}') for name, text in re.findall(r'^(\w+):[^#\n]*## (.+)', open('Makefile').read(), re.M)]"

run: $(READY)  ## start the demo: gateway, backend, tokens and calls to try
	$(BIN)/python examples/demo.py

test: $(READY)  ## run all tests, a process for each core; JOBS=0 ARGS="tests/wire -k target" narrows
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test  ## format, lint, types, tests

bench: $(READY) $(BENCH_READY)  ## measure, beside the peers; GROUPS=peers,growth ROUNDS=5 SECONDS=5
	$(BIN)/python -m bench.run $(GROUPS)

profile: $(READY) $(BENCH_READY)  ## a flame graph of the gateway under load
	$(BIN)/python -m bench.flame

e2e: $(READY)  ## the end-to-end tests in their long form
	GATEWAY_E2E=full $(BIN)/python -m pytest tests/e2e $(ARGS)

fuzz: $(READY)  ## fuzz the parsers, led by coverage; SECONDS=600
	$(BIN)/python -m tests.fuzz

soak: $(READY)  ## slow clients, attacks, troubles behind and inside: half an hour
	GATEWAY_SOAK=full $(BIN)/python -m pytest tests/soak -o faulthandler_timeout=1800 $(ARGS)

cov: $(READY)  ## coverage with branches; the pure rooms must be whole
	$(BIN)/coverage run -m pytest --hypothesis-profile=patient --ignore=tests/e2e --ignore=tests/soak $(ARGS)
	$(BIN)/coverage report
	$(BIN)/coverage report --include="$(PURE)" --fail-under=100

image:  ## build the container image
	docker build --tag auth-gateway .

lock:  ## resolve the dependencies again, within pyproject.toml
	$(LOCK) pyproject.toml -o requirements.lock
	$(LOCK) --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock
	$(LOCK) --extra bench -c requirements.lock pyproject.toml -o requirements-bench.lock
	$(LOCK) --extra fuzz -c requirements.lock pyproject.toml -o requirements-fuzz.lock
	$(LOCK) --group build -c requirements-dev.lock -o requirements-build.lock
	$(LOCK) --group pip -o requirements-pip.lock

# A stamp: the second run starts at once, and a changed lock file installs again. With
# one version of pip, whatever the Python brings: a new one reads the index in a third of
# the time. Bytecode is compiled when it is first needed, and most of it never is.
$(READY): requirements-dev.lock requirements-pip.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(INSTALL) --require-hashes -r requirements-pip.lock
	$(BIN)/$(INSTALL) --no-compile --require-hashes -r requirements-dev.lock
	$(BIN)/$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

# Peers of the bench, apart from the product's own environment.
$(BENCH_READY): requirements-bench.lock | $(READY)
	$(PYTHON) -m venv --without-pip $(BENCH_VENV)
	PIP_PYTHON=$(BENCH_VENV)/bin/python $(BIN)/$(INSTALL) --no-compile --require-hashes -r requirements-bench.lock
	@touch $@
