# Two commands matter: `make demo` does the main job, `make test` passes every check.
# Both set up .venv by themselves: uv, pinned versions, Python 3.11 to 3.13.

PYTHON ?= $(shell for v in 3.11 3.12 3.13; do command -v python$$v && break; done || echo python3)
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
DIGITS := examples/digits/digits_d0.safetensors
OUT ?= build/gpu
# One thread a worker: two workers that each take two cores only wait for each other.
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

# libeffdet: what it needs from Debian's packages, the library in C++, and every test of it.
native: setup
	scripts/native.sh

# The documentation site, in build/docs/site.
docs: setup
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e ".[docs]"
	$(BIN)/python scripts/docs.py

# Wheel, sdist and list of materials in dist/, checked, and the wheel tried in an empty environment.
dist: setup
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e ".[release]"
	$(BIN)/python scripts/distribution.py

# What `make gpu` needs where there is a GPU and no network: files and small wheels, in gpu-kit/.
gpu-kit: setup
	OMP_NUM_THREADS=2 $(BIN)/python benchmarks/gpu_kit.py gpu-kit

# Tests and timings on a GPU within eight minutes, or a dry run without one; OUT/gpu.json has them.
gpu:
	scripts/gpu.sh $(OUT)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# NVIDIA's Python bindings of both major versions, for tests/tensorrt_api.
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
