# Each target does the whole set-up that it needs: see scripts/setup.
# PYTHON=python3.13 chooses the interpreter, VENV=folder the environment.

VENV ?= .venv
export VENV

.PHONY: demo test hard hard-gc hard-malloc hard-refs hard-sanitize hard-tsan conformance matrix build wheel docs lint analyze coverage format bench clean

demo: ## install what is missing, build, run the tour of real programs on both loops
	scripts/demo

test: ## install what is missing, build, run all tests; ARGS=... goes to pytest
	scripts/test $(ARGS)

hard: ## the long forms of tests/hard, an hour and more; ARGS=... goes to pytest
	scripts/setup test
	FASTLOOP_HARD=$${FASTLOOP_HARD:-1} $(VENV)/bin/python -m pytest tests/hard $(ARGS)

hard-gc: ## all tests with a collection at every other allocation; ARGS=... goes to pytest
	scripts/setup test
	FASTLOOP_GC=1 $(VENV)/bin/python -m pytest -n logical --timeout 600 $(ARGS)

hard-malloc: ## all tests on Python's checking allocator; ARGS=... goes to pytest
	scripts/setup test
	PYTHONMALLOC=debug PYTHONDEVMODE= $(VENV)/bin/python -m pytest -n logical $(ARGS)

hard-refs: ## each test again and again: references and blocks must not grow; ARGS=... as above
	scripts/refleaks $(ARGS)

hard-tsan: ## the rooms of threads under ThreadSanitizer, without a GIL; ARGS=... goes to pytest
	scripts/tsan $(ARGS)

hard-sanitize: ## all tests under ASan, UBSan and LSan, in a copy; ARGS=... goes to pytest
	scripts/sanitize $(ARGS)

conformance: ## run CPython's own asyncio tests on fastloop; ARGS=... names modules
	scripts/setup test
	$(VENV)/bin/python tests/conformance/run.py $(ARGS)

matrix: ## run all tests on every interpreter that is supported; ARGS=... see scripts/matrix
	scripts/matrix $(ARGS)

build: ## build in place, warnings as errors
	FASTLOOP_WERROR=1 scripts/setup

wheel: ## sdist, and a tried wheel with libuv inside for every interpreter, in dist/
	scripts/matrix --setup="--no-build wheel" --collect dist $(ARGS) python scripts/wheel

docs: ## build the site from docs/ into site/, warnings as errors
	scripts/setup --no-build docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet

lint: ## ruff, mypy, stubtest, clang-format
	scripts/lint

analyze: ## static analysis of csrc/: gcc -fanalyzer, clang-tidy, cppcheck
	scripts/analyze

coverage: ## all tests with every line counted, in a copy; ARGS=... goes to pytest
	scripts/coverage $(ARGS)

format: ## put C and Python sources into shape
	scripts/format

bench: ## measure against other loops; ROWS=... names rows, ARGS=... goes to the runner
	scripts/bench $(ROWS) $(ARGS)

clean: ## remove what the build made, but not the environment
	rm -rf build dist site *.egg-info fastloop/_core.*.so
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
