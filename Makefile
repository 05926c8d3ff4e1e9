# Two commands do everything: `make book` and `make test`. Each target sets up .venv by itself.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
MODELS ?=
DATASETS ?=
PROTOCOL ?= miniature
SPLIT ?= paper
DATA ?=
PUBLISH ?=
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
TESTS ?= -m "not slow and not nightly"
WORKERS ?= 2
# pip leaves bytecode to the first import: where it may not be written, every process would compile torch anew
export PYTHONDONTWRITEBYTECODE :=
# without docstrings (2), transformers and altair cannot be imported
export PYTHONOPTIMIZE :=

# from the environment, so that the shell takes no quote or blank in them for its own
export PROTOCOL SPLIT DATA JOBS
export MLPROBE_PUBLISH := $(PUBLISH)
RUN = --models $(MODELS) --datasets $(DATASETS) --protocol "$$PROTOCOL" --split "$$SPLIT" --data "$$DATA" --jobs="$$JOBS"

.PHONY: book plan verify test nightly lab notebooks laboratory clean

book: .venv/installed
	@$(BIN)/python -m mlprobe_utils book $(RUN)

# what `make book` would make, and nothing is made
plan: .venv/installed
	@$(BIN)/python -m mlprobe_utils book --dry-run $(RUN)

# as `book`, after all files were compared with their hashes
verify: .venv/installed
	@$(BIN)/python -m mlprobe_utils book --verify $(RUN)

# file by file, in the order that conftest.py gives them: by the number of tests, the long ones would be the last
test: .venv/installed-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)

nightly: .venv/installed-tests
	@$(MAKE) test TESTS="-m nightly"

# from the root, so that cards are in reach
lab: notebooks
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks

notebooks: .venv/installed
	@$(BIN)/python -m mlprobe_utils notebooks

laboratory: .venv/installed
	@$(BIN)/python -m mlprobe_utils book --laboratory $(RUN)

.PHONY: mutants
# which test notices which of the faults in tests/mutants.yml: hours
mutants: .venv/installed-tests
	$(BIN)/python tests/helpers/mutation.py --slow --jobs $(WORKERS)

clean:
	rm -rf outputs book/_build notebooks/*.ipynb .pytest_cache .ruff_cache .hypothesis

.venv/installed: pyproject.toml
	@test -x $(BIN)/pip || "$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --editable .
	@touch $@

.venv/installed-tests: .venv/installed
	$(BIN)/python -m pip install --quiet --no-compile --editable ".[test]"
	@touch $@
