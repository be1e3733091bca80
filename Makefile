# The one runner that is always there. `make demo` and `make test` are the README's two commands.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml CMakeLists.txt $(shell find src -type f ! -name '*.pyc')
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test clients lint checked asan fuzz mutants bench bench-smoke coverage clean

demo: $(VENV)/.installed
	$(BIN)/hlconn demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -q

# Clients that are not ours, each in an environment of its own: with them, `make test` signs random actions in the
# official SDK too and compares, and the SDK and ccxt trade on the venue in a box.
clients: $(BIN)/python
	$(BIN)/python tools/client_venvs.py sdk ccxt

$(BIN)/python:
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "hlconn needs Python 3.11 to 3.13, this is %d.%d: say make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python $(SOURCES)
	$(PIP) install -q .
	touch $@

$(VENV)/.dev: $(BIN)/python $(SOURCES)
	$(PIP) install -q '.[dev]'
	touch $@ $(VENV)/.installed

# cython-lint calls pycodestyle as a program: it has to be on the path.
lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/cython-lint src/hlconn/_core
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest --allowlist tools/stubtest-allow.txt \
		hlconn._core.codec hlconn._core.rows hlconn._core.classify hlconn._core.histogram hlconn._core.book hlconn._core.feed hlconn._core.listener \
		hlconn._core.action hlconn._core.sign hlconn._core.secp hlconn._core.oneshot

# The same tests on a build with bounds checks, overflow checks and assertions; without those that run nothing that is
# compiled (the venue in a box, the state machines of the session, the limiter, documents and patches), run another process, which
# does not see this build, or show over sockets for minutes what others show without: CI has twenty.
NOT_CHECKED := $(addprefix --ignore tests/,sim cli examples session/test_link.py session/test_pool.py \
	session/test_simulation.py session/test_random_sockets.py session/test_redundancy_sockets.py session/test_queries.py \
	trading/test_random_sockets.py test_documents.py test_mutants.py test_key_search.py test_limits.py test_info_types.py \
	test_fallback.py test_messages.py test_subscriptions.py)

checked: $(VENV)/.dev
	$(PIP) install -q --no-deps --no-build-isolation --upgrade --target build/checked/site \
		--config-settings=build-dir=build/checked/cmake --config-settings=cmake.define.HLCONN_CHECKED=ON .
	HLCONN_EXPECT_CHECKED=ON PYTHONPATH=build/checked/site $(BIN)/python -m pytest -q $(NOT_CHECKED)

asan: $(VENV)/.dev
	PYTHON=$(BIN)/python tools/asan.sh

fuzz: $(VENV)/.dev
	PYTHON=$(BIN)/python tools/fuzz.sh

mutants: $(VENV)/.dev
	$(BIN)/python tools/mutants.py

bench: $(VENV)/.dev
	$(BIN)/python -m pytest benches -q --benchmark-warmup=on --benchmark-columns=median,min,rounds --benchmark-sort=name
	$(BIN)/python benches/endurance.py
	$(BIN)/python benches/venue_soak.py

# Each bench once: that it works and that its answers are right, nothing about time.
bench-smoke: $(VENV)/.dev
	$(BIN)/python -m pytest benches -q --benchmark-disable

clean:
	rm -rf build .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis
