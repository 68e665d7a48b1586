# make demo    a simulated robot's scans, labelled over ROS 2 and compared with the truth, in out/demo
# make test    linters, types and tests
# make bench   every engine against the plain network and bare matrix products, in out/bench (about 25 minutes)
# make gallery pictures of labelled scans for the README, in docs/
# make test-oldest  the tests that need neither simulator nor ROS, with the oldest versions that setup.py names
# make setup   only .venv with everything in it
# make pins    renew requirements.txt from setup.py

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EXTRAS := dev,las,mapping,occupancy,onnxruntime,openvino,ray,ros,simulation,teacher,tensorboard,transformers
TORCH := torch==2.13.0
# Without what they depend on: an old rosbags (see setup.py), and TensorRT itself.
ALONE := ouster-sdk==1.0.1 tensorrt-stubs==10.13.0.35.1
PIP := -m pip --disable-pip-version-check --quiet

# Python 3.11 is what the pins were made with; any from 3.10 on will do. PYTHON=... chooses another.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.10; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)
VERSION = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
# The pinned numpy and scipy are not made for 3.10, which takes the newest that are.
WANTED = $(if $(filter 3.10,$(VERSION)),$(TORCH) setuptools '.[$(EXTRAS)]',-r requirements.txt)

.PHONY: setup demo gallery bench test test-oldest lint format pins clean

setup: $(INSTALLED)

$(INSTALLED): requirements.txt setup.py setup.cfg pyproject.toml
	@test -n "$(VERSION)" || { echo "make: no Python 3.10 or newer: install python3.11, or set PYTHON=..." >&2; exit 1; }
	@test "$(VERSION)" = 3.11 || echo "make: using Python $(VERSION); the pins were made with 3.11"
	@echo "make: installing into $(VENV), some minutes with little to see"
	@$(PYTHON) -m venv $(VENV) || { echo "make: on Debian, apt install python$(VERSION)-venv" >&2; exit 1; }
	$(BIN)/python $(PIP) install $(WANTED)
	$(BIN)/python $(PIP) install --no-deps $(ALONE)
	$(BIN)/python $(PIP) install --no-deps --no-build-isolation -e .
	$(BIN)/cmp-seg export  # compiles the kernels, and compares them with plain PyTorch on this processor
	@touch $@
	@echo "make: done; . $(VENV)/bin/activate, or make demo"

demo: setup
	$(BIN)/cmp-seg demo --out out/demo

gallery: setup
	$(BIN)/python benchmarks/gallery.py $(GALLERY)

bench: setup
	$(BIN)/cmp-seg bench --out out/bench $(BENCH)

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

OLDEST := $(shell sed -n '/install_requires/,/\]/s/.*"\(.*\)>=\(.*\)".*/\1==\2/p' setup.py)
OLDEST_TESTS := bundle checkpoint cli_label datasets datasets_bag engine_cpu field_bags fuzzed_inputs geometry_cameras \
	geometry_plausibility label_space losses messages_point_cloud2 outputs preprocess_search segmenter \
	shipped_bundles waffleiron_network waffleiron_preprocess

test-oldest:
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python $(PIP) install --only-binary :all: $(OLDEST) hypothesis pytest
	$(VENV)-oldest/bin/python -m pytest $(OLDEST_TESTS:%=test/test_%.py)

format: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# What pip installed; the ROS wheels bring more names that are not on PyPI.
LIST := from importlib.metadata import distributions as all; \
	print(*sorted({f"{d.name}=={d.version}" for d in all() if d.read_text("INSTALLER")}, key=str.lower), sep="\n")

pins:
	$(PYTHON) -m venv --clear $(VENV)-pins
	$(VENV)-pins/bin/python $(PIP) install $(TORCH) setuptools -e '.[$(EXTRAS)]'
	{ grep '^#' requirements.txt; $(VENV)-pins/bin/python -c '$(LIST)' | grep -v '^pip=\|^cmp_seg_ros='; } \
		| sed 's/+cpu//' > $(VENV)-pins/requirements.txt
	mv $(VENV)-pins/requirements.txt requirements.txt
	rm -r $(VENV)-pins

clean:
	rm -rf $(VENV) $(VENV)-oldest build install log out .mypy_cache .pytest_cache .ruff_cache .hypothesis
