# Every target does all the set-up it needs; the second time that takes no time.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
BUDGET ?= default
DEVICE ?= auto
PORT   ?= 5000
DATASET ?= mnist
EXECUTOR ?= processes
STORAGE ?=
KILLS  ?= 200
ONLY   ?=
SECONDS ?= 60
WORKERS_PER_GPU ?=
OUT    ?= build/gpu
MINUTES ?= 10
SET    ?=
FROM   ?=
ARMS   ?=
UPGRADE ?=

$(if $(wildcard harness/cli),,$(error this Makefile is for the folder that it lies in: make -C $(dir $(lastword $(MAKEFILE_LIST))) $(MAKECMDGOALS)))

# A misspelt variable would be ignored: those of the command line are held against what targets and the harness know.
ASKED  := NAME ANEW BUDGET DEVICE WORKERS WORKERS_PER_GPU EXECUTOR STORAGE SET ARMS FROM PORT DATASET KILLS ONLY BASE OUT MINUTES \
  RUN RUNS UPGRADE SECONDS A B SCORES QUIET
KNOWN  := $(ASKED) PYTHON VENV CC CXX SHELL HARNESS_HOME HARNESS_DATA HARNESS_KERNELS HARNESS_ARTIFACTS HARNESS_GRACE_S RAY_ADDRESS \
  HARNESS_SLURM_CLUSTER MLFLOW_TRACKING_URI MLFLOW_TRACKING_USERNAME MLFLOW_TRACKING_PASSWORD
UNKNOWN := $(filter-out $(KNOWN),$(foreach v,$(.VARIABLES),$(if $(filter command line,$(origin $v)),$v)))

comma := ,
# A value as one word of the shell, whatever is in it.
quoted = '$(subst ','\'',$1)'
NEAREST = $(shell $(PYTHON) -c 'import difflib, sys; print(*difflib.get_close_matches(sys.argv[1], sys.argv[2:], 1))' $(call quoted,$1) $(KNOWN))
$(foreach v,$(UNKNOWN),$(error unknown variable $v=$(value $v)$(patsubst %,; did you mean %=?,$(call NEAREST,$v))))

# What make itself would take for more than a value: it would run $(shell ...), and read a second line as a command.
CALL  := $$(
BRACE := $${
define LINE


endef
$(foreach v,$(ASKED),$(if $(strip $(findstring $(CALL),$(value $v))$(findstring $(BRACE),$(value $v))$(if $(findstring $(LINE),$(value $v)),line)),\
  $(error $v: a value is one line, without a dollar sign before a bracket)))

WHERE = $(if $(STORAGE),--storage $(call quoted,$(STORAGE)))
STUDY = $(call quoted,$(NAME)) --budget $(call quoted,$(BUDGET))
# Where no budget means all of them, and no folder a name of the harness's own: what was said on the command line, if anything was.
SAID = $(if $(findstring command,$(origin BUDGET)),--budget $(call quoted,$(BUDGET)))
INTO = $(if $(findstring command,$(origin OUT)),--out $(call quoted,$(OUT)))
CHANGES = $(foreach s,$(SET),--set $(call quoted,$s)) $(if $(ARMS),--arms $(call quoted,$(ARMS)))
# Where it runs, as far as the command says: to go on with a study that was stopped takes the same.
PLACED = $(strip $(foreach v,DEVICE EXECUTOR WORKERS WORKERS_PER_GPU STORAGE,$(if $(findstring command,$(origin $v)),$v=$($v))))
TYPED = $(call quoted,make study NAME=$(NAME) BUDGET=$(BUDGET)$(if $(SET), SET="$(SET)")$(if $(ARMS), ARMS="$(ARMS)")$(if $(PLACED), $(PLACED)))
# What only some need is installed when it is asked for: EXECUTOR=ray, EXECUTOR=slurm, STORAGE=postgresql+psycopg://...
EXTRAS = $(filter ray slurm,$(EXECUTOR)) $(if $(findstring postgres,$(STORAGE)$(MLFLOW_TRACKING_URI)),postgres)
EXTRA_FILES = $(patsubst %,$(VENV)/.extra-%,$(EXTRAS))
DEV    = $(VENV)/.extra-dev
TESTED = $(DEV) $(VENV)/.extra-ray,slurm,postgres

.DEFAULT_GOAL := help
.PHONY: docs help install study report runs compare freeze plan verify replay doctor list ui test test-fast coverage reliability chaos fuzz plant bench bench-ladder bench-study bench-compare bench-history bench-gpu check data lock audit dist clean

help: ## what can be made
	@echo "make study NAME=loss_ablation [BUDGET=smoke|default|full] [DEVICE=auto|cpu|cuda] [WORKERS=n] [WORKERS_PER_GPU=n]"
	@echo "           [EXECUTOR=local|processes|ray|slurm] [STORAGE=postgresql+psycopg://user@host/database]"
	@echo "           [SET=\"latent=10 budget.epochs=3\"] [ARMS=bce,mse]"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-13s %s\n", $$1, $$2}'

# Packages come by the digests in locks/, none but the named ones is resolved. torch is the one without: its builds differ by machine;
# what its CUDA build brings has digests again. The project itself is built by what is installed by then.
PIP = $(BIN)/python -m pip install --quiet --quiet --no-compile
# uv, where it is there, installs what has digests, faster. It does not read pip's settings: where these name an index or
# files of their own, and for torch, whose build the user chooses by them, it is pip.
UV = $(if $(shell command -v uv),$(if $(shell $(PYTHON) -m pip config list | grep -E 'index-url|find-links|no-index'),,uv))
HASHED = $(if $(UV),VIRTUAL_ENV=$(VENV) uv pip install --quiet,$(PIP)) --require-hashes --no-deps
# pip would compile one file after another, on one core. Packages' own tests are left out.
COMPILE_ALL = $(BIN)/python -m compileall -q -j 0 -x '/tests?/' $(VENV)/lib >/dev/null 2>&1 || true
BRINGS_CUDA = $(BIN)/python -c 'import importlib.metadata as m, re, sys; sys.exit(not any(re.match("nvidia|cuda", r) for r in m.requires("torch")))'

$(READY): pyproject.toml $(wildcard locks/*.txt)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "Python 3.11 to 3.13 is needed, this is %d.%d; try: make PYTHON=python3.11 ..." % v)'
	@echo "setting up $(VENV), once, which takes some minutes: installing $$(grep -c '==' locks/harness.txt) packages"
	@$(PYTHON) -m venv $(VENV)
	@$(HASHED) --requirement locks/harness.txt
	@echo "installing torch, the largest of them"
	@$(PIP) --no-deps --requirement locks/torch.txt
	@if $(BRINGS_CUDA); then echo "installing the CUDA libraries that this torch takes"; $(HASHED) --requirement locks/cuda.txt; fi
	@PYTHONWARNINGS=ignore $(PIP) --no-build-isolation --no-deps --editable .
	@$(BIN)/python -m pip check >$(VENV)/.check || { cat $(VENV)/.check; false; } >&2 || { echo "what is installed does not fit together, as told above: rm -r $(VENV), then again" >&2; exit 1; }
	@echo "compiling them"
	@$(COMPILE_ALL)
	@touch $@

$(VENV)/.extra-%: $(READY)
	@echo "adding what '$*' needs"
	@$(HASHED) $(foreach extra,$(subst $(comma), ,$*),--requirement locks/$(extra).txt)
	@$(COMPILE_ALL)
	@touch $@

install: $(DEV) ## the environment in .venv, at the locked versions, with what tests and checks take

study: $(READY) $(EXTRA_FILES) ## run a study and report: NAME=, BUDGET=, SET=, ARMS=, DEVICE=, WORKERS=, EXECUTOR=, STORAGE=, ANEW=1, QUIET=1
	@HARNESS_COMMAND=$(TYPED) $(BIN)/harness study $(STUDY) $(CHANGES) --device $(call quoted,$(DEVICE)) --executor $(call quoted,$(EXECUTOR)) $(if $(ANEW),--anew) $(if $(QUIET),--quiet) $(if $(WORKERS),--workers $(call quoted,$(WORKERS))) $(if $(WORKERS_PER_GPU),--workers-per-gpu $(call quoted,$(WORKERS_PER_GPU))) $(WHERE)

report: $(READY) $(EXTRA_FILES) ## show a study's report again: NAME=, BUDGET=, SET=, ARMS=, QUIET=1
	@HARNESS_COMMAND=$(TYPED) $(BIN)/harness report $(STUDY) $(CHANGES) $(if $(QUIET),--quiet) $(WHERE)

runs: $(READY) ## the runs on record: of all studies, or NAME= one with its trials, BUDGET=
	@$(BIN)/harness runs $(if $(NAME),$(call quoted,$(NAME))) $(SAID)

compare: $(READY) ## two studies, budgets or folders side by side: A=loss_ablation@smoke B=loss_ablation, OUT=folder
	@$(BIN)/harness compare $(call quoted,$(A)) $(call quoted,$(B)) $(INTO)

freeze: $(READY) $(EXTRA_FILES) ## a study's record as one folder that opens without a server: NAME=, BUDGET=, SET=, ARMS=, OUT=folder
	@$(BIN)/harness freeze $(STUDY) $(CHANGES) $(INTO) $(WHERE)

plan: $(READY) $(EXTRA_FILES) ## what a study claims, since when, and what it can see: NAME=, BUDGET=, SET=, ARMS=, FROM=another
	@$(BIN)/harness plan $(STUDY) $(CHANGES) $(if $(FROM),--from $(call quoted,$(FROM))) $(WHERE)

verify: $(READY) $(EXTRA_FILES) ## is everything on record as it was kept? NAME= a study or the id of a run, BUDGET=
	@$(BIN)/harness verify $(STUDY) $(WHERE)

replay: $(READY) ## train a run on record again and compare: RUN= its id, or NAME= a study, BUDGET=, RUNS=3
	@$(BIN)/harness replay $(call quoted,$(or $(RUN),$(NAME))) --budget $(call quoted,$(BUDGET)) $(if $(RUNS),--runs $(call quoted,$(RUNS)))

doctor: $(READY) ## what is wrong with finished runs: NAME=, BUDGET=, SET=, ARMS=, or all of them
	@$(BIN)/harness doctor $(if $(NAME),$(STUDY) $(CHANGES))

list: $(READY) ## all studies with their questions and what they cost here; BUDGET=, or SCORES=1: scores to rank by
	@$(BIN)/harness list $(SAID) $(if $(SCORES),--scores)

ui: $(READY) ## browse all runs in MLflow: PORT=5000
	@$(BIN)/harness ui --port $(call quoted,$(PORT))

data: $(READY) ## fetch, check and show a data set: DATASET=mnist, npz:faces.npz, images:folder/, SET="dataset_args.resize=32"
	@$(BIN)/harness data $(call quoted,$(DATASET)) $(foreach s,$(SET),--set $(call quoted,$s))

check: $(DEV) ## lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# The tests of one room, ONLY=queue, are the folder tests/queue or the file tests/test_queue.py.
ROOM = $(if $(ONLY),$(or $(wildcard tests/$(ONLY) tests/test_$(ONLY).py),$(error no tests of '$(ONLY)'; there are: \
  $(sort $(notdir $(filter-out %helpers %.py,$(wildcard tests/*))) $(patsubst tests/test_%.py,%,$(wildcard tests/test_*.py))))))
# Once here: where PYTHONDONTWRITEBYTECODE is set, each of the hundreds of processes that tests start would do it for itself.
COMPILE = $(BIN)/python -m compileall -q harness studies
PYTEST = $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=12

test: $(TESTED) check data ## lint, format, types and all tests: ONLY=queue, one room
	@$(COMPILE)
	@$(PYTEST) $(ROOM)

test-fast: $(TESTED) data ## all that is not slow: ONLY=queue, one room
	@$(COMPILE)
	@$(PYTEST) -m 'not slow' $(ROOM)

coverage: $(TESTED) data ## line coverage of all tests that are not slow
	@$(PYTEST) -m 'not slow' --cov

reliability: $(TESTED) data ## the tests of every promise of docs/reliability.md, and what passed, written into its tables; some minutes
	@$(BIN)/python tests/helpers/reliability.py

chaos: $(READY) data ## kill drivers at random moments, then check the books: KILLS=200, some minutes
	@$(BIN)/python tests/helpers/chaos.py --kills $(call quoted,$(KILLS))

fuzz: $(DEV) data ## try what people may write, and show what breaks: SECONDS=60, ONLY=study, targets with it in their name
	@$(BIN)/python tests/helpers/fuzz.py --seconds $(call quoted,$(SECONDS)) $(if $(ONLY),--only $(call quoted,$(ONLY)))

plant: $(DEV) data ## plant known faults, one at a time, and show which test notices each: ONLY=kl, some minutes
	@$(BIN)/python tests/planted/plant.py $(if $(ONLY),$(call quoted,$(ONLY)))

bench: $(DEV) data ## step times: pytest --benchmark-only
	@$(BIN)/python -m pytest tests/bench --benchmark-only

bench-ladder: $(READY) data ## every way of taking the step, side by side, into docs/performance.md
	@$(BIN)/harness bench ladder

# BUDGET is given on the command line here or not at all: the long form takes half an hour on 2 cores.
bench-study: $(READY) data ## a study from a cold start to its report, beside the usual loop: BUDGET=long|default, NAME=
	@$(BIN)/harness bench study $(call quoted,$(NAME)) $(if $(findstring command,$(origin BUDGET)),--budget $(call quoted,$(BUDGET)))

# On MNIST's images, which are fetched if they are not there; what is to be said of them is not what was asked.
bench-compare: $(READY) ## has the step become slower? BASE=a revision
	@$(BIN)/harness data mnist >/dev/null
	@$(BIN)/harness bench compare $(call quoted,$(BASE))

bench-history: $(READY) ## times of benchmarks over commits, as a page
	@$(BIN)/harness bench history

bench-gpu: $(READY) data ## what a GPU must show, in ten minutes: OUT=folder of the results, ONLY=steps, MINUTES=10
	@$(BIN)/harness bench gpu --out $(call quoted,$(OUT)) --minutes $(call quoted,$(MINUTES)) $(if $(ONLY),--only $(call quoted,$(ONLY)))

lock: $(READY) ## write locks/ anew for what pyproject.toml asks for, at the same versions: UPGRADE=mlflow, another of this one
	@$(HASHED) --requirement locks/audit.txt
	@$(BIN)/python locks/lock.py $(foreach package,$(UPGRADE),--upgrade $(call quoted,$(package)))

audit: $(TESTED) ## are there known vulnerabilities in what is locked, and is its licence on the list?
	@$(HASHED) --requirement locks/audit.txt
	@$(BIN)/python locks/audit.py

# The wheel is built from the sdist, so that the sdist is whole, and comes into an environment with nothing else, as at a user's.
dist: $(READY) ## sdist and wheel into dist/, tried in a fresh environment and an empty folder
	@$(HASHED) --requirement locks/audit.txt
	@rm -rf dist
	@$(BIN)/python -m uv build --quiet --no-build-isolation --python $(BIN)/python --out-dir dist .
	@! ls dist/*-any.whl 2>/dev/null || { echo "has no native libraries: a release is built where CMake and a C++ compiler are" >&2; false; }
	@set -e; fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; $(PYTHON) -m venv "$$fresh"; \
	  "$$fresh/bin/python" -m pip install --quiet dist/*.whl; \
	  HARNESS_RELEASED="$$fresh" $(BIN)/python -m pytest -q tests/test_install.py -k installed_harness
	@ls -l dist

docs: $(VENV)/.extra-docs ## these pages as a site, in build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "written: build/site/index.html"

# Renamed first: an environment that was deleted by half would pass for a whole one. Many at a time: a disk lets each file wait.
CLEANED = $(wildcard $(VENV) $(VENV).deleted build *.egg-info .pytest_cache .mypy_cache .ruff_cache)
clean: ## remove the environment and caches; runs and data stay
	@echo "deleting: $(or $(CLEANED),nothing: all is clean)"
	@echo "mlruns/ and data/ stay; the next target that needs $(VENV) sets it up again, which takes some minutes"
	@if [ -e $(VENV) ]; then mv $(VENV) $(VENV).deleted; fi
	@find $(patsubst $(VENV),$(VENV).deleted,$(CLEANED)) /dev/null -type f -print0 | xargs -0 -P 16 -n 500 rm -f
	@rm -rf $(CLEANED) $(VENV).deleted
