#!/usr/bin/env bash
# Run this project's GPU tests and timings and write them to FOLDER/gpu.json: scripts/gpu.sh FOLDER
# Needs PyTorch with CUDA and the folder gpu-kit that `make gpu-kit` fills; no network, no setup.
# Uses the Python that EFFDET_PYTHON names; otherwise .venv's, or python3 if there is no .venv.
set -euo pipefail
cd "$(dirname "$0")/.."
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "${EFFDET_PYTHON:-$python}" benchmarks/gpu.py "$@"
