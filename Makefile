# `make` alone lists what there is to make.

.DEFAULT_GOAL := help
.PHONY: help goldens checkpoints test test-replay-only test-lowest test-newest test-tunix lint format replay-stored \
	real record-real replay-real write-real story floors audit naming alarms fuzz real-floors real-naming real-half real-story \
	robust worse nightly docs pictures constraints clean

PYTHON ?= python3
BIN := .venv/bin
REPLAY_BIN := .venv-replay/bin
LOWEST_BIN := .venv-lowest/bin
NEWEST_BIN := .venv-newest/bin
TUNIX_BIN := .venv-tunix/bin
SOURCES := harness qwen_flax goldens tests benchmarks
MODEL ?=
DAY := $(or $(SEED),$(shell date -u +%Y%m%d))
REPORTS = $(foreach suffix,html json md xml,--report reports/$(1).$(suffix)) --history reports/history.jsonl

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

test-lowest: .venv-lowest/installed ## All tests with the lowest versions that are promised, on Python 3.11
	$(LOWEST_BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadscope --ignore tests/browser
	$(LOWEST_BIN)/goldens replay goldens/*.h5

test-newest: .venv-newest/installed ## All tests with the newest versions there are
	$(NEWEST_BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadscope --ignore tests/browser
	$(NEWEST_BIN)/goldens replay goldens/*.h5

test-tunix: .venv-tunix/installed ## Replay google-tunix's Qwen2 and Qwen3, as they are installed
	$(TUNIX_BIN)/python -m pytest -q tests/test_tunix.py

replay-stored: .venv-replay/installed ## Replay the golden files in git without PyTorch, with reports and history
	@mkdir -p reports
	$(REPLAY_BIN)/goldens replay goldens/*.h5 $(call REPORTS,stored)

lint: .venv/installed ## ruff, mypy, and the workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --offline --quiet .github/workflows

format: .venv/installed ## Format the code, and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

real: record-real replay-real write-real ## Record and replay a real checkpoint, and let it write: make real MODEL=DIR_OR_HUB_ID

record-real: .venv/installed
	@test -n "$(MODEL)" || { echo "say which checkpoint: make $@ MODEL=DIR_OR_HUB_ID" >&2; exit 2; }
	@mkdir -p real
	$(BIN)/goldens record --checkpoint "$(MODEL)" -o real/real.h5 --dtype float32 --dtype bfloat16

replay-real: .venv/installed
	@mkdir -p reports
	$(BIN)/goldens replay real/real.h5 --checkpoint "$(MODEL)" --by-kind $(call REPORTS,real)

write-real: .venv/installed
	$(BIN)/python benchmarks/generation.py "$(MODEL)"

real-half: .venv/installed
	$(BIN)/python benchmarks/half_precision.py "$(MODEL)"

story: .venv/installed ## Write docs/phase-3a1.md again, from a recording and replays
	$(BIN)/python docs/make_phase_3a1.py

floors: .venv/installed ## Errors of reference and port beside floors and tolerances, built-in and wide layers
	$(BIN)/python benchmarks/floors.py goldens/*.h5 --wide 896 --wide 3584

audit: .venv/installed ## Which of 600 mistakes the built-in golden files would catch, and why not the others
	$(BIN)/goldens audit goldens/*.h5 --require 99 $(if $(SHARD),--shard $(SHARD))

naming: .venv/installed ## How well mistakes are named: the table of confusion and its figures
	$(BIN)/python benchmarks/diagnosis.py $(if $(SHARD),--shard $(SHARD))

alarms: .venv/installed ## How near correct ports come to their tolerance, on prompts from 200 seeds and on wide layers
	$(BIN)/python benchmarks/false_alarms.py --seeds $(or $(SEEDS),200)
	$(BIN)/python benchmarks/false_alarms.py --wide 896 --wide 3584 --seeds 9

fuzz: .venv/installed ## Look for an input on which the port is wrong: make fuzz MODEL=DIR_OR_HUB_ID SEED=N
	$(BIN)/goldens fuzz --checkpoint "$(MODEL)" --seed $(DAY)

real-floors: .venv/installed
	$(BIN)/python benchmarks/floors.py real/real.h5 --checkpoint "$(MODEL)"

real-naming: .venv/installed
	$(BIN)/python benchmarks/diagnosis.py --seconds real/real.h5 --checkpoint "$(MODEL)"

robust: .venv/installed ## Damage golden files, kill recordings, and let many at one: minutes
	$(BIN)/python -m tests.robust.damaged --files $(or $(FILES),10000) --seed $(DAY)
	$(BIN)/python -m tests.robust.interrupted --kills 200 --commands 20 --seed $(DAY)
	$(BIN)/python -m tests.robust.together --rounds 40
	HDF5_USE_FILE_LOCKING=FALSE $(BIN)/python -m tests.robust.together --rounds 40

real-story: .venv/installed
	MODEL="$(MODEL)" $(BIN)/python -m pytest -q -m slow -n auto --maxprocesses 4 --dist loadscope

worse: .venv/installed ## Whether anything came nearer to its limit since the last replay with reports
	$(BIN)/goldens history reports/history.jsonl

nightly: .venv/installed .venv-replay/installed ## All that takes long, whichever parts fail: make nightly MODEL=DIR_OR_HUB_ID SEED=N
	@test -n "$(MODEL)" || { echo "say which checkpoint: make $@ MODEL=DIR_OR_HUB_ID" >&2; exit 2; }
	@MODEL="$(MODEL)" SEED=$(DAY) .ci/nightly

docs: .venv/installed ## Write docs/commands.md and docs/misuse.md again, from what commands declare and tests hold
	$(BIN)/python docs/make_commands.py
	$(BIN)/python docs/make_misuse.py

pictures: .venv/installed ## Show a report in Chromium, and write docs/images again
	$(BIN)/python docs/make_pictures.py

constraints: .venv/installed ## Pin what is installed now in constraints.txt
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//'; } > constraints.new
	@mv constraints.new constraints.txt

clean: ## Remove environments, caches and what recording left behind
	rm -rf .venv .venv-replay .venv-lowest .venv-newest .venv-tunix .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
	rm -f goldens/*.h5.new goldens/*.partial goldens/.*.lock
	find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

.venv-replay/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-replay
	$(REPLAY_BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e . pytest
	@touch $@

.venv-lowest/installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	$(LOWEST_BIN)/python -m pip install -q --disable-pip-version-check -c constraints-lowest.txt -e '.[record,remote]' \
		hypothesis pytest pytest-xdist
	@touch $@

.venv-tunix/installed: pyproject.toml constraints.txt examples/tunix/requirements.txt
	$(PYTHON) -m venv .venv-tunix
	$(TUNIX_BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e . pytest
	$(TUNIX_BIN)/python -m pip install -q --disable-pip-version-check --no-deps -r examples/tunix/requirements.txt
	@touch $@

# The second line goes past the ranges of pyproject.toml, which pip says and does.
.venv-newest/installed: pyproject.toml
	$(PYTHON) -m venv .venv-newest
	$(NEWEST_BIN)/python -m pip install -q --disable-pip-version-check -e '.[record,remote]' hypothesis pytest pytest-xdist
	$(NEWEST_BIN)/python -m pip install -q --disable-pip-version-check --upgrade transformers jax flax
	@touch $@
