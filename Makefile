# Two targets do everything from nothing but python3: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
PINS := $(wildcard constraints/python$(VERSION).txt)
STAMP := .venv/.installed

.PHONY: demo test check rooms notebooks clean

demo: $(STAMP)
	$(BIN)/jaxnas run drnas --preset default --seeds 4 --out runs/demo-$$(date +%Y%m%d-%H%M%S)

test: $(STAMP) check
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not paper and not gpu and not llm"
	# The contract once more, compiled as users compile; all other tests take XLA's quicker emitters.
	XLA_FLAGS= $(BIN)/python -m pytest -n 2 -m "not slow" tests/test_contract.py

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/ty check
	$(BIN)/lint-imports

# Deletes each room in turn, in a copy, and runs what is left.
rooms: $(STAMP)
	$(BIN)/python tests/rooms.py

notebooks: $(STAMP)
	$(BIN)/python -m pytest -m notebook tests/test_notebooks.py

$(STAMP): pyproject.toml $(PINS)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(PINS),-c $(PINS)) -e '.[dev,llm,sandbox,local]'
	# QDax's own requirements bring 52 packages of which none is imported here.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps qdax==0.5.0
	touch $(STAMP)

clean:
	rm -rf .venv .cache .pytest_cache .ruff_cache
