"""Joining the four outputs into one ``[N,D,6]``: x1, y1, x2, y2, score, class, as in YOLO.

Unused rows are zero, so any threshold above zero drops them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from effdet_deploy.artifact.spec import DETECTION_OUTPUTS, INPUT_NAME, METADATA_KEY
from effdet_deploy.detection.letterbox import to_input
from effdet_deploy.errors import VerificationError, require_package
from effdet_deploy.runtimes import load_runtime
from effdet_deploy.synthetic import structured_pictures

if TYPE_CHECKING:
    from pathlib import Path

    from effdet_deploy.bundles.source import Source

OUTPUT = "detections"
_SEED = 18


def write_single_output(source: Source, target: Path) -> None:
    """Write the model to ``target`` with one output, and check that its results do not change.

    The file has no spec, since no other part of this package runs it.

    Raises:
        MissingPackageError: the package ``onnx`` is not installed.
        VerificationError: the rows of the file differ from the model's.
    """
    require_package("onnx", "joining the outputs of a model", "export")
    import onnx

    from effdet_deploy.onnxgraph.joining import join_detections

    model = onnx.load(source.path)
    join_detections(model, source.spec, OUTPUT)
    kept = [each for each in model.metadata_props if each.key != METADATA_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    target.write_bytes(model.SerializeToString(deterministic=True))
    _require_same(source, target)


def _require_same(source: Source, joined: Path) -> None:
    import onnxruntime

    spec = source.spec
    size = (spec.batch.maximum, spec.input.height, spec.input.width)
    images = to_input(structured_pictures(*size, _SEED), spec.input)
    runtime = load_runtime(source.path, "onnxruntime", "cpu", allow_saturation=True)
    try:
        known = runtime.run({INPUT_NAME: images})
    finally:
        runtime.close()
    session = onnxruntime.InferenceSession(joined, providers=["CPUExecutionProvider"])
    (found,) = session.run([OUTPUT], {INPUT_NAME: images})
    _, boxes, scores, classes = (known[name] for name in DETECTION_OUTPUTS)
    if spec.output.box_format == "yxyx":
        boxes = boxes[..., [1, 0, 3, 2]]
    expected = np.concatenate([boxes, scores[..., None], classes[..., None]], axis=2)
    if not np.array_equal(found, expected.astype(np.float32)):
        raise VerificationError(
            f"The single output differs from the outputs of '{source.path}'.",
            "Report this to effdet-deploy.",
        )
