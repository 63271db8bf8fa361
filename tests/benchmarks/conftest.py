"""Makes the scripts of benchmarks/ importable, as they are when one of them runs."""

from __future__ import annotations

import sys
from pathlib import Path

# A script imports the files beside it by their bare names.
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
