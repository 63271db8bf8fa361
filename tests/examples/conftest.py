"""Makes the modules of examples/digits importable, as they are when a script there runs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "digits"))
