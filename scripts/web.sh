#!/usr/bin/env bash
# The detector in a browser: `scripts/web.sh` serves examples/web, `scripts/web.sh test` tests it.
# npm fetches onnxruntime-web from the registry that it is configured for.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-$PWD/.venv/bin/python}

(cd examples/web && npm install --silent --no-audit --no-fund --no-package-lock --ignore-scripts)
case ${1:-} in
  test) exec "$python" -m pytest tests/examples/test_web.py -m browser ;;
  *) exec "$python" examples/web/serve.py "$@" ;;
esac
