"""The folder for what this package can make or download again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CACHE_VARIABLE = "EFFDET_DEPLOY_CACHE"


def cache_directory() -> Path:
    """Return the folder of the cache: ``EFFDET_DEPLOY_CACHE``, or the platform's usual place."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "effdet-deploy"
