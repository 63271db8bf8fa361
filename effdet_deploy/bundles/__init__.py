"""A folder that another system loads: an exported model with what that system wants beside it.

Each module of :data:`BUNDLES` has a function ``bundle(model, folder, options) -> Bundle``. A folder
appears whole or not at all, and what is wrong with the model is said before anything is written.
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
"""Who loads the folder → the module that makes it."""


def bundle(system: str, model: Path, folder: Path, options: BundleOptions | None = None) -> Bundle:
    """Make a folder of an exported model that ``system`` loads.

    Args:
        system: a key of :data:`BUNDLES`.
        model: an ONNX file or an engine, with its sidecar.
        folder: of Triton the model repository, which may hold other models; else a new folder.
        options: see :class:`BundleOptions`.

    Raises:
        UsageError: the folder has something in it, or an option does not fit the system.
        ModelFileError: the model is damaged, or is not one that the system can use.
        DataError: the labels are missing, or are not as many as the model's classes.
    """
    if system not in BUNDLES:
        raise UnknownNameError("bundle", system, BUNDLES)
    made: Bundle = importlib.import_module(BUNDLES[system]).bundle(
        model, folder, options or BundleOptions()
    )
    return made
