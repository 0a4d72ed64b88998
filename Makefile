# make run | test | check | bench | bench-scheduling | bench-stragglers | bench-large | bench-live | bench-replay | bench-kernels | bench-gpu |
#      bench-learning | bench-stacking | regimes | docs | wheel | clean
#   PYTHON    the interpreter the environment is made from (3.11 or newer)
#   VENV      where the environment lies
#   PIP_ARGS  more options of pip install, such as an index of your own
#   ARGS      more options of `distseq train`, for `make run`
#   TRACES    a folder of recorded traces, for `make bench-scheduling`
PYTHON   ?= python3
VENV     ?= .venv
PIP_ARGS ?=
ARGS     ?=

BIN       := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST    := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

export RAY_USAGE_STATS_ENABLED = 0

.PHONY: run test check bench bench-scheduling bench-stragglers bench-large bench-live bench-replay bench-kernels bench-gpu bench-learning bench-stacking regimes docs wheel clean

run: $(INSTALLED)
	$(BIN)/distseq train examples/main.toml $(ARGS)

# One thread each: the tests' own processes would otherwise fight for the cores. Those that only compute run on all of them, beside
# one at a time of those that start Ray or pools (tests/computing.py); those that compare real seconds run alone.
test: $(INSTALLED)
	$(PYTEST) -m "not alone" --numprocesses logical --maxprocesses 8
	$(PYTEST) -m alone

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict -p distseq

bench: bench-engine bench-reading

bench-scheduling: ARGS := $(ARGS) $(if $(TRACES),--traces $(TRACES))

# Every file of tests/bench that is a program: bench-engine runs tests/bench/engine.py, bench-kernels-gpu kernels_gpu.py.
bench-%: $(INSTALLED)
	$(BIN)/python tests/bench/$(subst -,_,$*).py $(ARGS)

bench-gpu: bench-kernels-gpu

regimes: bench-regimes

sizes: $(INSTALLED)
	$(BIN)/python tests/project/sizes.py

# The site, into build/docs; anything that Sphinx warns of is an error. Pages are made from the code, so always all of them.
docs: $(INSTALLED)
	$(BIN)/python -m pip install $(PIP_ARGS) -q -c constraints.txt -e ".[docs]"
	$(BIN)/python -m sphinx -W --keep-going -E -a -q docs build/docs

# An old build/lib would ship modules that are gone.
wheel: $(INSTALLED)
	rm -rf build/lib dist/distseq-*.whl
	$(BIN)/python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist .

# The wheel is an archive that Python imports from; with a __main__ it runs too, and its metadata tell the doctor what it needs.
zip: wheel
	cp dist/distseq-*.whl dist/distseq.zip
	$(BIN)/python -c "from zipfile import ZipFile; ZipFile('dist/distseq.zip', 'a').write('distseq/__main__.py', '__main__.py')"

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e ".[test]"
	touch $@
