# Each target works on a fresh clone: it makes .venv and installs what it needs, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The demo's processes, one thread each; more cores than this help only grids that are larger than the demo.
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)

.PHONY: demo test lint bench format clean help

help:
	@echo "make demo    draw the mini dataset, preprocess it, train and evaluate the demo grid, print its table"
	@echo "make test    run all tests"
	@echo "make lint    ruff and mypy"
	@echo "make bench   time preprocessing of FOLDER beside DeepfakeBench's algorithm"
	@echo "make format  let ruff format the code"
	@echo "make clean   remove .venv (data/ and runs/ stay)"

# A stamp of its own: .venv/bin/python is a link to the system's Python, which nobody should touch.
$(VENV)/.created:
	$(PYTHON) bootstrap.py $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created setup.py
	$(BIN)/python -m pip install --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --disable-pip-version-check -e ".[test]"
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/dfgrid demo --workers $(WORKERS)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Preprocessing of a folder of videos, beside DeepfakeBench's algorithm in the same run.
FOLDER ?= data/mini-a
bench: $(VENV)/.installed
	$(BIN)/python -m benchmark.speed.preprocessing $(FOLDER) --workers $(WORKERS)

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info
