# `make` alone lists what there is to make.

.DEFAULT_GOAL := help
.PHONY: help goldens checkpoints test test-replay-only lint format real story floors audit naming alarms nightly constraints clean

PYTHON ?= python3
BIN := .venv/bin
REPLAY_BIN := .venv-replay/bin
SOURCES := harness qwen_flax goldens tests benchmarks

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

goldens: .venv/installed ## Make the environment, record the built-in suites, replay them once
	@set -e; for suite in goldens/suites/*.toml; do $(BIN)/goldens record $$suite; done
	$(BIN)/goldens replay goldens/*.h5

checkpoints: .venv/installed ## Write the built-in checkpoints again, byte for byte the same
	$(BIN)/python goldens/checkpoints/make.py

test: lint .venv/installed test-replay-only ## Linters, all tests, and the replay without PyTorch
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadscope

test-replay-only: .venv-replay/installed ## Replay the golden files where PyTorch is not installed
	$(REPLAY_BIN)/python -m pytest -q -m replay_only tests/replay_only
	$(REPLAY_BIN)/goldens replay goldens/*.h5

lint: .venv/installed ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed ## Format the code, and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

real: .venv/installed ## Record and replay a real checkpoint, and let it write: make real MODEL=DIR_OR_HUB_ID
	@test -n "$(MODEL)" || { echo "say which checkpoint: make real MODEL=DIR_OR_HUB_ID" >&2; exit 2; }
	@mkdir -p real
	$(BIN)/goldens record --checkpoint "$(MODEL)" -o real/real.h5 --dtype float32 --dtype bfloat16
	$(BIN)/goldens replay real/real.h5 --checkpoint "$(MODEL)" --by-kind
	$(BIN)/python benchmarks/generation.py "$(MODEL)"

story: .venv/installed ## Write docs/phase-3a1.md again, from a recording and replays
	$(BIN)/python docs/make_phase_3a1.py

floors: .venv/installed ## Errors of reference and port beside floors and tolerances, built-in and wide layers
	$(BIN)/python benchmarks/floors.py goldens/*.h5 --wide 896 --wide 3584

audit: .venv/installed ## Which of 600 mistakes the built-in golden files would catch, and why not the others
	$(BIN)/goldens audit goldens/*.h5 --require 99

naming: .venv/installed ## How well mistakes are named: the table of confusion and its figures
	$(BIN)/python benchmarks/diagnosis.py

alarms: .venv/installed ## How near correct ports come to their tolerance, on prompts from 200 seeds and on wide layers
	$(BIN)/python benchmarks/false_alarms.py --seeds 200
	$(BIN)/python benchmarks/false_alarms.py --wide 896 --wide 3584 --seeds 9

nightly: real floors audit naming alarms ## What takes long: a real checkpoint and slow tests: make nightly MODEL=DIR_OR_HUB_ID
	$(BIN)/python benchmarks/floors.py real/real.h5 --checkpoint "$(MODEL)"
	$(BIN)/python benchmarks/diagnosis.py --seconds real/real.h5 --checkpoint "$(MODEL)"
	MODEL="$(MODEL)" $(BIN)/python -m pytest -q -m slow

constraints: .venv/installed ## Pin what is installed now in constraints.txt
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//'; } > constraints.new
	@mv constraints.new constraints.txt

clean: ## Remove environments, caches and what recording left behind
	rm -rf .venv .venv-replay .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
	rm -f goldens/*.h5.new goldens/*.partial
	find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

.venv-replay/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-replay
	$(REPLAY_BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e . pytest
	@touch $@
