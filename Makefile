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
WORKERS_PER_GPU ?=
OUT    ?= build/gpu
MINUTES ?= 10
SET    ?=
FROM   ?=
ARMS   ?=

# A misspelt variable would be ignored: those of the command line are held against what targets and the harness know.
KNOWN  := NAME BUDGET DEVICE WORKERS WORKERS_PER_GPU EXECUTOR STORAGE SET ARMS FROM PORT DATASET KILLS ONLY BASE OUT MINUTES RUN RUNS PYTHON VENV CC CXX \
  SHELL HARNESS_HOME HARNESS_DATA HARNESS_KERNELS HARNESS_ARTIFACTS HARNESS_GRACE_S HARNESS_SLURM_CLUSTER MLFLOW_TRACKING_URI \
  MLFLOW_TRACKING_USERNAME MLFLOW_TRACKING_PASSWORD
UNKNOWN := $(filter-out $(KNOWN),$(foreach v,$(.VARIABLES),$(if $(filter command line,$(origin $v)),$v)))
NEAREST = $(shell $(PYTHON) -c 'import difflib, sys; print(*difflib.get_close_matches(sys.argv[1], sys.argv[2:], 1))' '$1' $(KNOWN))
$(foreach v,$(UNKNOWN),$(error unknown variable $v=$($v)$(patsubst %,; did you mean %=?,$(call NEAREST,$v))))

# A value as one word of the shell, whatever is in it.
quoted = '$(subst ','\'',$1)'
WHERE = $(if $(STORAGE),--storage $(call quoted,$(STORAGE)))
STUDY = $(call quoted,$(NAME)) --budget $(call quoted,$(BUDGET))
CHANGES = $(foreach s,$(SET),--set $(call quoted,$s)) $(if $(ARMS),--arms $(call quoted,$(ARMS)))
TYPED = $(call quoted,make study NAME=$(NAME) BUDGET=$(BUDGET)$(if $(SET), SET="$(SET)")$(if $(ARMS), ARMS="$(ARMS)"))
# What only some need is installed when it is asked for: EXECUTOR=ray, EXECUTOR=slurm, STORAGE=postgresql+psycopg://...
EXTRAS = $(filter ray slurm,$(EXECUTOR)) $(if $(findstring postgres,$(STORAGE)$(MLFLOW_TRACKING_URI)),postgres)
EXTRA_FILES = $(patsubst %,$(VENV)/.extra-%,$(EXTRAS))
TESTED = $(VENV)/.extra-ray,slurm,postgres

.DEFAULT_GOAL := help
.PHONY: help install study report plan verify replay doctor list ui test test-fast coverage chaos plant bench bench-ladder bench-study bench-compare bench-gpu check data lock clean

help: ## what can be made
	@echo "make study NAME=loss_ablation [BUDGET=smoke|default|full] [DEVICE=auto|cpu|cuda] [WORKERS=n] [WORKERS_PER_GPU=n]"
	@echo "           [EXECUTOR=local|processes|ray|slurm] [STORAGE=postgresql+psycopg://user@host/database]"
	@echo "           [SET=\"latent=10 budget.epochs=3\"] [ARMS=bce,mse]"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-13s %s\n", $$1, $$2}'

# What the locks name is taken if its file has one of their digests, and nothing is resolved or built apart from it; torch's builds
# differ by machine, so its two packages come without (deploy/lock.py). `pip check` says what is missing or does not fit.
PIP = $(BIN)/python -m pip install --quiet --progress-bar on
LOCKED = $(PIP) --require-hashes --no-deps
comma := ,

$(READY): pyproject.toml requirements.lock requirements-torch.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "Python 3.11 to 3.13 is needed, this is %d.%d; try: make PYTHON=python3.11 ..." % v)'
	@echo "setting up $(VENV) (once, a few minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(LOCKED) --requirement requirements.lock
	@$(PIP) --constraint requirements-torch.lock torch
	@$(PIP) --no-deps --constraint requirements-torch.lock torchvision
	@$(PIP) --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip check
	@touch $@

$(VENV)/.extra-%: $(READY)
	@echo "adding what '$*' needs"
	@$(LOCKED) $(patsubst %,--requirement requirements-%.lock,$(subst $(comma), ,$*))
	@$(BIN)/python -m pip check
	@touch $@

install: $(READY) ## the environment in .venv, at the locked versions

study: $(READY) $(EXTRA_FILES) ## run a study and report: NAME=, BUDGET=, SET=, ARMS=, DEVICE=, WORKERS=, EXECUTOR=, STORAGE=
	@HARNESS_COMMAND=$(TYPED) $(BIN)/harness study $(STUDY) $(CHANGES) --device $(call quoted,$(DEVICE)) --executor $(call quoted,$(EXECUTOR)) $(if $(WORKERS),--workers $(call quoted,$(WORKERS))) $(if $(WORKERS_PER_GPU),--workers-per-gpu $(call quoted,$(WORKERS_PER_GPU))) $(WHERE)

report: $(READY) $(EXTRA_FILES) ## show a study's report again: NAME=, BUDGET=, SET=, ARMS=
	@HARNESS_COMMAND=$(TYPED) $(BIN)/harness report $(STUDY) $(CHANGES) $(WHERE)

plan: $(READY) $(EXTRA_FILES) ## what a study claims, since when, and what it can see: NAME=, BUDGET=, SET=, ARMS=, FROM=another
	@$(BIN)/harness plan $(STUDY) $(CHANGES) $(if $(FROM),--from $(call quoted,$(FROM))) $(WHERE)

verify: $(READY) $(EXTRA_FILES) ## is everything on record as it was kept? NAME= a study or the id of a run, BUDGET=
	@$(BIN)/harness verify $(STUDY) $(WHERE)

replay: $(READY) ## train a run on record again and compare: RUN= its id, or NAME= a study, BUDGET=, RUNS=3
	@$(BIN)/harness replay $(call quoted,$(or $(RUN),$(NAME))) --budget $(call quoted,$(BUDGET)) $(if $(RUNS),--runs $(call quoted,$(RUNS)))

doctor: $(READY) ## what is wrong with finished runs: NAME=, BUDGET=, SET=, ARMS=, or all of them
	@$(BIN)/harness doctor $(if $(NAME),$(STUDY) $(CHANGES))

list: $(READY) ## all studies with their questions
	@$(BIN)/harness list

ui: $(READY) ## browse all runs in MLflow: PORT=5000
	@$(BIN)/harness ui --port $(call quoted,$(PORT))

data: $(READY) ## fetch, check and show a data set: DATASET=mnist, npz:faces.npz, images:folder/, SET="dataset_args.resize=32"
	@$(BIN)/harness data $(call quoted,$(DATASET)) $(foreach s,$(SET),--set $(call quoted,$s))

check: $(READY) ## lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# The tests of one room, ONLY=queue, are the folder tests/queue or the file tests/test_queue.py.
ROOM = $(if $(ONLY),$(or $(wildcard tests/$(ONLY) tests/test_$(ONLY).py),$(error no tests of '$(ONLY)'; there are: \
  $(sort $(notdir $(filter-out %helpers %.py,$(wildcard tests/*))) $(patsubst tests/test_%.py,%,$(wildcard tests/test_*.py))))))
# Once here: where PYTHONDONTWRITEBYTECODE is set, each of the hundreds of processes that tests start would do it for itself.
COMPILE = $(BIN)/python -m compileall -q harness studies
PYTEST = $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=12

test: $(TESTED) check data ## lint, format, types and all tests: ONLY=queue, one room
	@$(COMPILE)
	@$(PYTEST) $(ROOM)

test-fast: $(TESTED) data ## all that is not slow: ONLY=queue, one room
	@$(COMPILE)
	@$(PYTEST) -m 'not slow' $(ROOM)

coverage: $(TESTED) data ## line coverage of all tests that are not slow
	@$(PYTEST) -m 'not slow' --cov

chaos: $(READY) data ## kill drivers at random moments, then check the books: KILLS=200, some minutes
	@$(BIN)/python tests/helpers/chaos.py --kills $(call quoted,$(KILLS))

plant: $(READY) data ## plant known faults, one at a time, and show which test notices each: ONLY=kl, some minutes
	@$(BIN)/python tests/planted/plant.py $(if $(ONLY),$(call quoted,$(ONLY)))

bench: $(READY) data ## step times: pytest --benchmark-only
	@$(BIN)/python -m pytest tests/bench --benchmark-only

bench-ladder: $(READY) data ## every way of taking the step, side by side, into docs/performance.md
	@$(BIN)/harness bench ladder

# BUDGET is given on the command line here or not at all: the long form takes half an hour on 2 cores.
bench-study: $(READY) data ## a study from a cold start to its report, beside the usual loop: BUDGET=long|default, NAME=
	@$(BIN)/harness bench study $(call quoted,$(NAME)) $(if $(findstring command,$(origin BUDGET)),--budget $(call quoted,$(BUDGET)))

bench-compare: $(READY) data ## has the step become slower? BASE=a revision
	@$(BIN)/harness bench compare $(call quoted,$(BASE))

bench-gpu: $(READY) data ## what a GPU must show, in ten minutes: OUT=folder of the results, ONLY=steps, MINUTES=10
	@$(BIN)/harness bench gpu --out $(call quoted,$(OUT)) --minutes $(call quoted,$(MINUTES)) $(if $(ONLY),--only $(call quoted,$(ONLY)))

lock: $(TESTED) ## write the versions of .venv and their digests into requirements*.lock
	@$(PIP) uv
	@$(BIN)/python deploy/lock.py

clean: ## remove the environment and caches; runs and data stay
	@rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
