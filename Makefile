# Two commands matter: `make demo` exports a detector and runs it, `make test` runs every check.
# Both set up .venv by themselves, with uv and pinned versions, for Python 3.11 to 3.13.

PYTHON ?= $(shell for v in 3.11 3.12 3.13; do command -v python$$v && break; done || echo python3)
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
DIGITS := examples/digits/digits_d0.safetensors
OUT ?= build/gpu
# Where this variable is set, every start of Python would compile torch anew, which takes ten seconds.
unexport PYTHONDONTWRITEBYTECODE
# One thread per worker: two workers with two threads would only wait for each other on two cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: demo test test-all native docs dist gpu-kit gpu lint bindings format setup clean

demo: setup
	@mkdir -p demo
	$(BIN)/effdet-export --weights $(DIGITS) demo/digits.onnx
	$(BIN)/python examples/digits/scenes.py --split test --seed 3 --count 4 demo/scenes
	$(BIN)/effdet-deploy detect demo/digits.onnx demo/scenes/images --output demo/detections
	@echo "The annotated pictures are in demo/detections."

test: lint bindings
	$(PYTEST)

test-all: lint bindings
	$(PYTEST) -m "slow or not slow"

# Installs the Debian packages that libeffdet needs, builds it, and runs all of its tests.
native: setup
	scripts/native.sh

# Builds the documentation site in build/docs/site.
docs: setup
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e ".[docs]"
	$(BIN)/python scripts/docs.py

# Builds wheel, sdist and list of materials in dist/, checks them, and tries the wheel in an empty
# environment.
dist: setup
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e ".[release]"
	$(BIN)/python scripts/distribution.py

# Collects in gpu-kit/ the files and small wheels that `make gpu` needs on a machine without
# network.
gpu-kit: setup
	OMP_NUM_THREADS=2 $(BIN)/python benchmarks/gpu_kit.py gpu-kit

# Runs tests and timings on a GPU within eight minutes, or a dry run without a GPU; writes
# OUT/gpu.json.
gpu:
	scripts/gpu.sh $(OUT)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Fetches NVIDIA's Python bindings of both major versions, for tests/tensorrt_api.
bindings: setup
	$(BIN)/python scripts/fetch_trt_bindings.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(VENV)/.complete

$(VENV)/.complete: pyproject.toml constraints.txt Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) build demo dist gpu-kit native/build
