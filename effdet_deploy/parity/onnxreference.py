"""An ONNX file of ours as a reference: what an engine that was built from it is compared with."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.artifact.modelfile import read_spec
from effdet_deploy.artifact.spec import HEAD_OUTPUTS
from effdet_deploy.onnxgraph.graph_layers import with_heads
from effdet_deploy.runtimes import load_runtime
from effdet_deploy.runtimes.adapter import run_images

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Heads = Mapping[str, NDArray[Any]]


class OnnxReference:
    """The raw heads of an ONNX file, in ONNX Runtime on the CPU, image by image.

    Args:
        path: the file; it may end in a plugin of TensorRT, which nothing else could run.
    """

    def __init__(self, path: Path) -> None:
        with contextlib.ExitStack() as stack:
            copy = stack.enter_context(with_heads(path, read_spec(path, "onnx")))
            self._runtime = load_runtime(copy, backend="onnxruntime", device="cpu")
            stack.callback(self._runtime.close)
            self._opened = stack.pop_all()
        self._size = self._runtime.spec.batch.minimum

    def heads(self, batch: NDArray[Any]) -> Heads:
        """Return ``class_logits`` ``[N,A,C]`` and ``box_regression`` ``[N,A,4]``, float32."""
        runs = [
            run_images(self._runtime, np.repeat(image[None], self._size, axis=0)) for image in batch
        ]
        return {name: np.concatenate([each[name][:1] for each in runs]) for name in HEAD_OUTPUTS}

    def heads64(self, batch: NDArray[Any]) -> Heads:
        """Return the same: the file itself says in which precision it computes."""
        return self.heads(batch)

    def close(self) -> None:
        """Release the engine and its file."""
        self._opened.close()
