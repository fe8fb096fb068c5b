# Everything runs in $(VENV), which is made here: only python3, make and a C++ compiler are assumed (without a compiler the
# package still installs, with the Numba backend). `make help` lists the targets.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
# Processes that share the tests. Most tests use one core; those that use more ask for few.
TEST_WORKERS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SHARED_OUT := --numprocesses $(TEST_WORKERS) --dist worksteal
# The tests meet the installed package and nothing else.
unexport PYTHONPATH
export PYTHONNOUSERSITE := 1

# What the wheel is made of; the folders too, so that a deleted file counts as a change.
WHEEL_INPUTS := pyproject.toml CMakeLists.txt README.md LICENSE tools/long_description.py $(shell find python csrc \
	\( -name __pycache__ -o -name '_native*.so' \) -prune -o \( -type f -o -type d \) -print)
CXX_FILES := $(shell find csrc tests/emulator -name "*.hpp" -o -name "*.cpp" -o -name "*.cu" -o -name "*.cuh")

.DEFAULT_GOAL := help
.PHONY: help demo test test-all bench lint sanitize docs clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

# Without a compiler the demo runs on the Numba backend; what checks the package wants all of it.
test test-all bench lint sanitize: export MFAKIT_REQUIRE_NATIVE ?= 1

demo: $(VENV)/.demo ## the main result on shipped models: no data, no arguments
	$(BIN)/mfakit reproduce bayes

# The packaging tests look into the wheel that was installed.
test: $(VENV)/.test ## the tests, but for the slow ones, on the installed package
	MFAKIT_WHEEL="$$(echo $(VENV)/wheel/*.whl)" $(BIN)/python -m pytest -m "not slow" $(SHARED_OUT) $(PYTEST_ARGS)

# Slow tests compare times and fill memory: one after another.
test-all: test ## all tests
	MFAKIT_WHEEL="$$(echo $(VENV)/wheel/*.whl)" $(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

bench: $(VENV)/.test ## the benchmarks, into benchmarks/results
	$(BIN)/python -m benchmarks

lint: $(VENV)/.lint ## ruff, mypy, clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(if $(CXX_FILES),$(BIN)/clang-format --dry-run -Werror $(CXX_FILES))

# libstdc++ is loaded first too: the sanitizer looks for its exception functions before Python loads the extension. Below
# the sanitizer NVRTC does not find its own libraries, and nothing of ours runs in its compiler.
sanitize: $(VENV)/.test ## the tests with the address and undefined-behaviour sanitizers
	rm -rf build/sanitize-site
	$(PIP) install --quiet --no-deps --target build/sanitize-site \
		--config-settings=cmake.define.MFAKIT_SANITIZE=ON --config-settings=cmake.build-type=RelWithDebInfo \
		--config-settings=install.strip=false .
	MFAKIT_SANITIZE=1 PYTHONPATH=build/sanitize-site ASAN_OPTIONS=detect_leaks=0 \
		LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libstdc++.so)" \
		$(BIN)/python -m pytest -m "not slow" $(SHARED_OUT) --ignore=tests/test_packaging.py \
		--ignore=tests/backends/test_nvrtc.py $(PYTEST_ARGS)

# Built offline from what is installed; warnings are errors, examples run, and links are checked.
docs: $(VENV)/.docs ## the site, into docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html
	$(BIN)/python docs/check_links.py docs/_build/html

clean: ## remove the environment and what was built
	rm -rf docs/_build docs/generated docs/gallery $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis python/mfakit/_native*.so

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "mfakit needs Python 3.10 or newer: say which with make PYTHON=python3.x"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make environments (no ensurepip): install its venv package, such as python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.wheel: $(WHEEL_INPUTS) | $(VENV)/.made
	rm -rf $(VENV)/wheel
	$(PIP) wheel --no-deps --wheel-dir $(VENV)/wheel .
	@touch $@

# The wheel by itself first, or pip would keep an installed one of the same version; then what it needs.
define install
$(PIP) install --quiet --force-reinstall --no-deps $(VENV)/wheel/*.whl
$(PIP) install -c constraints.txt "$$(echo $(VENV)/wheel/*.whl)[$(EXTRAS)]"
@touch $@
endef

$(VENV)/.demo: EXTRAS := plots
$(VENV)/.demo: $(VENV)/.wheel constraints.txt
	$(install)

$(VENV)/.test: EXTRAS := test,plots,torch
$(VENV)/.test: $(VENV)/.wheel constraints.txt
	$(install)

$(VENV)/.docs: EXTRAS := docs
$(VENV)/.docs: $(VENV)/.wheel constraints.txt
	$(install)

$(VENV)/.lint: $(VENV)/.test
	$(PIP) install -c constraints.txt ruff mypy clang-format
	@touch $@
