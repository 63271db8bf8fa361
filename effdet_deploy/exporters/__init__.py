"""From a checkpoint to an artifact: one module per kind of output file, behind one registry.

A module of :data:`EXPORTERS` has a function
``export(source, output, options, material, progress) -> Artifact``. It is imported only when
chosen and after all inputs have been checked, because importing torch takes seconds.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effdet_deploy.errors import MissingPackageError, UnknownNameError
from effdet_deploy.exporters.delivery import Artifact
from effdet_deploy.exporters.options import ExportOptions
from effdet_deploy.files import require_no_folder_at_sidecar, require_writable_target
from effdet_deploy.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

__all__ = ["EXPORTERS", "Artifact", "ExportOptions", "Progress", "export"]

EXPORTERS = {
    ".onnx": "effdet_deploy.exporters.onnx",
    ".torchscript": "effdet_deploy.exporters.torchscript",
    ".engine": "effdet_deploy.exporters.tensorrt.export",
    ".plan": "effdet_deploy.exporters.tensorrt.export",
}
"""The suffix of the output, and the module that writes such files."""


@contextlib.contextmanager
def _collecting_rarely() -> Iterator[None]:
    """Make Python's garbage collector run less often.

    Imports and building a graph create millions of lasting objects, and the collector would visit
    them again and again, which takes a tenth of an export's time.
    """
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@_collecting_rarely()
def export(
    variant_or_model: str | nn.Module | None,
    output: str | Path,
    options: ExportOptions | None = None,
    progress: Progress = silent,
) -> Artifact:
    """Export a detector, verify it against eager PyTorch, and write it with its sidecar.

    Args:
        variant_or_model: a variant such as ``d2``; or a model in memory (ours, or an effdet model
            or bench, alone or inside another module), with which the artifact is then compared; or
            None to take the variant from the weights' metadata.
        output: the file to write; its suffix decides what is made. The sidecar is ``OUTPUT.json``.
        options: see :class:`ExportOptions`.
        progress: called with a few words whenever the next stage begins.

    Raises:
        UsageError: the suffix, an option or a combination is not possible; or a model in
            memory is not what its configuration describes.
        VerificationError: the artifact differs from PyTorch; it is kept as ``OUTPUT.failed``.
        MissingPackageError: the extra ``[export]`` is not installed.
        DataError: labels or annotations are unusable.
    """
    target, chosen = Path(output), options or ExportOptions()
    if target.suffix not in EXPORTERS:
        raise UnknownNameError("output suffix", target.suffix, EXPORTERS)
    chosen.require_fits(target.suffix)
    require_writable_target(target)
    require_no_folder_at_sidecar(target)
    _imported("effdet_deploy.exporters.verifying").require_verifiable(chosen)
    material = _imported("effdet_deploy.exporters.material").read_material(chosen)
    # A missing package is reported before the work begins.
    _imported("effdet_deploy.pytorch.weights.loading")
    if target.suffix != ".torchscript":
        _imported("effdet_deploy.pytorch.tracing")
        if importlib.util.find_spec("onnxsim") is None:
            raise MissingPackageError("onnxsim", "exporting", "export")
    exporter = _imported(EXPORTERS[target.suffix])
    artifact: Artifact = exporter.export(variant_or_model, target, chosen, material, progress)
    return artifact


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = (error.name or "torch").partition(".")[0]
        if package == "effdet_deploy":
            raise
        raise MissingPackageError(package, "exporting", "export") from error
