# Two commands: make book, make test. Each target is one line; what it does lives in `robustlib`.
PYTHON ?= python3
PROFILE ?= quick
PORT ?= 8000
BIN = .venv/bin
export OMP_NUM_THREADS ?= 1

.PHONY: book test lint env reproduce assignments serve clean

book: env  ## run every notebook (quick), build the book, compare with the papers
	$(BIN)/robustlib reproduce --profile quick
	$(BIN)/robustlib book --profile quick
	$(BIN)/robustlib check --profile quick

test: env lint  ## the whole test suite
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: env  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

env: .venv/.installed  ## the pinned environment, in .venv

.venv/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "robustlib needs Python 3.11 or newer, not %s; set PYTHON=python3.11" % sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -r requirements.lock
	$(BIN)/python -m pip install --no-deps -e .
	$(BIN)/python -m ipykernel install --sys-prefix --name python3
	touch $@

reproduce: env  ## run every notebook and compare; PROFILE=reference for the book's real scale
	$(BIN)/robustlib reproduce --profile $(PROFILE)
	$(BIN)/robustlib check --profile $(PROFILE)

assignments: env  ## students' notebooks, autograders and solutions, in _build/assignments
	$(BIN)/robustlib course release

serve: env  ## show the book on localhost; PORT=8000
	$(BIN)/robustlib serve --port $(PORT)

clean:  ## delete what was made; the environment stays
	rm -rf _build
