"""Bundles: a folder with an exported model and the files that another system needs to load it.

A module of :data:`BUNDLES` has a function ``bundle(model, folder, options) -> Bundle``. Problems
with the model are reported before anything is written, and a folder appears whole or not at all.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from effdet_deploy.bundles.options import Bundle, BundleOptions
from effdet_deploy.errors import UnknownNameError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BUNDLES", "Bundle", "BundleOptions", "bundle"]

BUNDLES = {
    "deepstream": "effdet_deploy.bundles.deepstream",
    "triton": "effdet_deploy.bundles.triton",
}
"""The systems that load a folder, and the modules that make the folder."""


def bundle(system: str, model: Path, folder: Path, options: BundleOptions | None = None) -> Bundle:
    """Make a folder with an exported model that ``system`` loads.

    Args:
        system: a key of :data:`BUNDLES`.
        model: an ONNX file or an engine, with its sidecar (the JSON file beside it).
        folder: for Triton the model repository, which may hold other models; otherwise a new
            folder.
        options: see :class:`BundleOptions`.

    Raises:
        UsageError: the folder is not empty, or an option does not fit the system.
        ModelFileError: the model is damaged, or is not one that the system can use.
        DataError: the labels are missing, or their number is not that of the model's classes.
    """
    if system not in BUNDLES:
        raise UnknownNameError("bundle", system, BUNDLES)
    made: Bundle = importlib.import_module(BUNDLES[system]).bundle(
        model, folder, options or BundleOptions()
    )
    return made
