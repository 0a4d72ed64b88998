# make run | test | test-long | fuzz | check | sizes | same-bytes | bench | bench-NAME | regimes | docs | schema | wheel | zip | clean
#   PYTHON    the interpreter the environment is made from (3.11 or newer)
#   VENV      where the environment lies
#   PIP_ARGS  more options of pip install, such as an index of your own
#   ARGS      more options of `distseq train`, for `make run`, or of a benchmark
#   COUNT     mutants of each kind of file, for `make fuzz`
#   TRACES    a folder of recorded traces, for `make bench-scheduling`
#   OLD       the commit that `make same-bytes` compares with
PYTHON   ?= python3
VENV     ?= .venv
PIP_ARGS ?=
ARGS     ?=

BIN       := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST    := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

export RAY_USAGE_STATS_ENABLED = 0

.PHONY: run test test-long fuzz same-bytes check sizes bench bench-gpu regimes docs schema wheel zip clean

run: $(INSTALLED)
	$(BIN)/distseq train examples/main.toml $(ARGS)

# One thread each: the tests' own processes would otherwise fight for the cores. How tests are spread over processes is said in
# tests/computing.py; those that compare real seconds run alone.
test: $(INSTALLED)
	$(PYTEST) -m "not alone and not long" --durations 10
	$(PYTEST) -m "alone and not long" --numprocesses 0 --durations 10

# What `make test` leaves out: whole enumerations, soaks, the rest of thinned matrices, and all examples of each property.
test-long: $(INSTALLED)
	$(PYTEST) -m "(long or hypothesis) and not alone" --hypothesis-profile thorough --durations 10 --timeout 1800
	$(PYTEST) -m "long and alone" --numprocesses 0 --durations 10

# Mutants of files and messages, some thousand of each kind, with their counts. `make fuzz ARGS=parquet`: of one kind.
fuzz: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz $(or $(COUNT),10000) $(ARGS)

# Whether this checkout computes, to the byte, what an older commit did.
same-bytes: $(INSTALLED)
	$(BIN)/python tests/project/same_bytes.py $(or $(OLD),$(error OLD=COMMIT says what to compare with))

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict -p distseq

bench: bench-engine bench-reading

bench-scheduling: override ARGS += $(if $(TRACES),--traces $(TRACES))

# Every file of tests/bench that is a program: bench-engine runs tests/bench/engine.py, bench-kernels-gpu kernels_gpu.py.
bench-%: $(INSTALLED)
	$(BIN)/python tests/bench/$(subst -,_,$*).py $(ARGS)

bench-gpu: bench-kernels-gpu

regimes: bench-regimes

sizes: $(INSTALLED)
	$(BIN)/python -m tests.project.sizes

# The site, into build/docs: what Sphinx warns of is an error. Pages that are made from the code have no sources whose times
# would tell that they are old, so all are made each time.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -E -a -q docs build/docs

# What editors check config files with
schema: $(INSTALLED)
	$(BIN)/python -m distseq.config.json_schema > distseq/config/schema.json

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

$(VENV)/.docs: $(INSTALLED)
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e ".[test,docs]"
	touch $@
