"""The pipeline compiled into a TorchScript archive by ``torch.jit.script``."""

from __future__ import annotations

import io
import warnings
import zipfile
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn


def script_archive(pipeline: nn.Module, metadata: dict[str, str]) -> bytes:
    """Compile ``pipeline`` and return the archive, with ``metadata`` as extra files inside."""
    archive, kept = io.BytesIO(), io.BytesIO()
    with warnings.catch_warnings():
        # torch 2.15 calls TorchScript deprecated, but C++ users still load it.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.script(pipeline.eval())
        # The archive is written to memory first: on a full disk, torch's writer ends the process.
        torch.jit.save(script, archive, _extra_files=metadata)
    with zipfile.ZipFile(archive) as found, zipfile.ZipFile(kept, "w") as written:
        for each in found.infolist():
            # torch adds these for tracebacks, with paths and lines of this machine's source files.
            if not each.filename.endswith(".debug_pkl"):
                written.writestr(each, found.read(each))
    return kept.getvalue()
