#!/usr/bin/env bash
# What a CUDA GPU shows of this project, written to FOLDER/gpu.json: scripts/gpu.sh FOLDER
# Needs PyTorch with CUDA and the folder gpu-kit that `make gpu-kit` fills; no network, no setup.
# EFFDET_PYTHON names another Python than .venv's, or where there is no .venv, than python3.
set -euo pipefail
cd "$(dirname "$0")/.."
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "${EFFDET_PYTHON:-$python}" benchmarks/gpu.py "$@"
