PYTHON ?= python3
# Extra words for the command that a target runs: make test ARGS="-k calculus", make verify ARGS=...
ARGS ?=

PIP := .venv/bin/python -m pip -qq --disable-pip-version-check
STAMP := .venv/.stamp

.DEFAULT_GOAL := help
.PHONY: help venv test check-fast catalogue atlas batch verified models tournament tournament-desk shown verify readme docs bench gpu fuzz fuzz-measured check format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

venv: $(STAMP)  ## set up .venv, where it is missing or outdated (the other targets do this too)

# The stamp is removed first and written last: an interrupted set-up starts again from nothing, while
# a change of the two files below mends a finished .venv in place. torch goes in first and alone, so
# that no other package's range brings in another build of it. Nothing is compiled ahead: most of what
# torch brings is never imported, and the rest is compiled by its first import.
$(STAMP): constraints.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	  echo "found:   no command '$(PYTHON)'"; \
	  echo "needed:  Python 3.11 or newer"; \
	  echo "do this: install it, or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; } >&2
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "found:   $$($(PYTHON) --version 2>&1), as '$(PYTHON)'"; \
	  echo "needed:  Python 3.11 or newer"; \
	  echo "do this: install it, or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; } >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "found:   $$($(PYTHON) --version 2>&1), without the modules venv and ensurepip"; \
	  echo "needed:  both, to make .venv"; \
	  echo "do this: install them (Debian, Ubuntu: apt-get install python3-venv), or name another" \
	    "Python: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; } >&2
	@if [ -f $@ ]; then \
	  echo "Updating .venv, older than constraints.txt or pyproject.toml ..."; rm $@; \
	else \
	  echo "Making .venv ..."; $(PYTHON) -m venv --clear .venv; \
	fi
	@echo "Installing torch ..."
	@$(PIP) install -c constraints.txt torch
	@echo "Installing scaling and the rest ..."
	@$(PIP) install -c constraints.txt -e '.[empirical,dev]'
	@touch $@

# Two test processes share the machine, so each keeps its linear algebra to one thread. A run prints
# its time beside its budget of seconds, for two cores; see tests/conftest.py.
test check-fast: export OMP_NUM_THREADS = 1
test: export BUDGET = 720
test: venv  ## run all tests: 12 minutes at most on two cores
	.venv/bin/python -m pytest $(ARGS)

# Laws of the algebra, published tables, theory against numbers, and what is printed.
FAST := scale piecewise language operators traits calculus golden solve names imports surface readme bridge
LITE := not gpt and (not grows_as_the_calculus or kfac or muon or shampoo or soap or sgd)
check-fast: export BUDGET = 120
check-fast: venv  ## run the fast tests: 2 minutes at most on two cores
	.venv/bin/python -m pytest -m "not slow" -k "$(LITE)" $(FAST:%=tests/test_%.py) $(ARGS)

catalogue: export OMP_NUM_THREADS = 1
catalogue: export WHOLE_CATALOGUE = 1
catalogue: venv  ## run the sweeps of the tests over the whole catalogue, not a tour of it (an hour)
	.venv/bin/python -m pytest $(ARGS)

models: venv  ## install models of transformers and timm, and test the answers on them
	@$(PIP) install -c constraints.txt -e '.[models]'
	.venv/bin/python -m pytest tests/test_published_models.py $(ARGS)

# Optimizers of libraries that are not installed keep the record that they have.
atlas: export OMP_NUM_THREADS = 1
atlas: venv  ## measure optimizers of libraries beside the theory, into docs/atlas.md (resumable)
	@$(PIP) install -c constraints.txt -e '.[libraries]'
	.venv/bin/python -m empirical.black_box.atlas $(ARGS)

batch: export OMP_NUM_THREADS = 1
batch: venv  ## measure powers of the batch of every rule, into docs/batch.md (resumable, hours)
	.venv/bin/python benchmarks/batch_table.py $(ARGS)

verified: export OMP_NUM_THREADS = 1
verified: venv  ## verify every rule at its usual sizes, into docs/verified.md (resumable, hours)
	.venv/bin/python benchmarks/verified_table.py $(ARGS)

# Taken up where it was cut off: every run is in results/tune. docs/tuning.md shows these commands.
tournament: venv  ## let strategies tune small and train large, into docs/tuning.md (ten minutes)
	@$(PIP) install --no-deps -c constraints.txt pytorch_optimizer
	.venv/bin/scaling tune sgd --model examples/digits.py --axis width=32 --at width=512 \
	  --strategy all --budget 20runs --steps 40 --seeds 4 --space lr=2^-8:2^4 \
	  --out results/tune/digits
	.venv/bin/scaling tune adamw --model examples/transformer.py --axis width=8 --at width=128 \
	  --strategy all --budget 20runs --steps 30 --seeds 4 \
	  --space lr=2^-10:2^-2,eps=2^-30:2^-6 --out results/tune/damping
	cp results/tune/digits/tuning.png docs/tuning.png
	cp results/tune/damping/tuning.png docs/tuning_damping.png
	.venv/bin/python docs/fill.py docs/tuning.md --only=results/tune/digits/tuning.md
	.venv/bin/python docs/fill.py docs/tuning.md --only=results/tune/damping/tuning.md

tournament-desk: venv  ## the same with more steps, seeds and width (an hour)
	@$(PIP) install --no-deps -c constraints.txt pytorch_optimizer
	.venv/bin/scaling tune sgd --model examples/digits.py --axis width=64 --at width=1024 \
	  --strategy all --budget 40runs --steps 100 --seeds 5 --space lr=2^-8:2^4 \
	  --out results/tune/desk
	.venv/bin/scaling tune adamw --model examples/transformer.py --axis width=8 --at width=128 \
	  --strategy all --budget 20runs --steps 100 --seeds 5 \
	  --space lr=2^-10:2^-2,eps=2^-30:2^-6 --out results/tune/desk-damping
	cp results/tune/desk/tuning.png docs/tuning_desk.png
	cp results/tune/desk-damping/tuning.png docs/tuning_desk_damping.png
	.venv/bin/python docs/fill.py docs/tuning.md --only=results/tune/desk/tuning.md
	.venv/bin/python docs/fill.py docs/tuning.md --only=results/tune/desk-damping/tuning.md

# A command that runs for longer than SECONDS is stopped, and said to.
shown: export OMP_NUM_THREADS = 1
shown: SECONDS ?= 120
shown: venv  ## run commands that README and pages show at their own sizes; tests run them small (hours)
	SHOWN=$(SECONDS) .venv/bin/python -m pytest -rs -n 0 tests/test_shown.py $(ARGS)

verify: venv  ## derive and measure the paper's claims, into results/verify
	.venv/bin/scaling verify --out results/verify $(ARGS)

readme: verify  ## verify, then put its tables and figures into README.md and docs
	cp results/verify/kfac_wide.png docs/kfac.png
	cp results/verify/shampoo_wide.png docs/shampoo.png
	.venv/bin/python docs/fill.py docs/measuring.md
	.venv/bin/python docs/fill.py --printed

docs: venv  ## build the documentation site into site/; warnings are errors, links are checked
	.venv/bin/mkdocs build --strict $(ARGS)

# What it compares with is installed beside the exact versions of .venv, without touching them.
bench: venv  ## time and weigh everything, beside other libraries, into benchmarks/RESULTS.md (an hour)
	@$(PIP) install --no-deps -r benchmarks/requirements.txt
	.venv/bin/python docs/fill.py benchmarks/RESULTS.md

# Ten minutes of one GPU. Another run goes on where this one was cut off: results/gpu keeps it.
gpu: venv  ## measure on a CUDA device into benchmarks/gpu.md and RESULTS.md (10 minutes)
	benchmarks/gpu.sh $(ARGS)
	.venv/bin/python docs/fill.py --only=benchmarks/gpu.md benchmarks/RESULTS.md

fuzz: export OMP_NUM_THREADS = 1
fuzz: N ?= 1000
fuzz: SEED ?= 0
fuzz: venv  ## hold N random pairs of rule and setting (or PAIRS="3/111 1/80") against tests/simulator.py
	cd tests && ../.venv/bin/python random_questions.py $(if $(PAIRS),--pairs $(PAIRS),\
		$(N) $(SEED) --log ../results/fuzz/$(SEED).jsonl)

fuzz-measured: export OMP_NUM_THREADS = 1
fuzz-measured: N ?= 1000
fuzz-measured: venv  ## compare theory and our own measurement on N random rules, down to a minimal one
	cd tests && ../.venv/bin/python fuzzing.py $(N)

check: venv  ## check format, lint and types, then run all tests
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	@$(MAKE) --no-print-directory test

format: venv  ## format the code and mend what the linter can
	.venv/bin/ruff format
	.venv/bin/ruff check --fix

clean:  ## remove environments, builds and caches; keep results
	rm -rf .venv site build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
