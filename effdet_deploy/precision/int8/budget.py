"""Measuring mAP for a budget: --max-map-drop limits how much mAP an INT8 file loses."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from effdet_deploy.artifact.spec import METADATA_KEY
from effdet_deploy.detection.detector import Detector
from effdet_deploy.evaluation.accuracy import measure
from effdet_deploy.evaluation.predictions import joined_to, predict
from effdet_deploy.files import sha256_file
from effdet_deploy.precision.int8.sensitivity import Journal

if TYPE_CHECKING:
    from onnx import ModelProto

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.evaluation.cocoset import CocoSet
    from effdet_deploy.precision.int8.quantizer import Quantizer


class BudgetedAccuracy:
    """Measures graphs on an evaluation set in ONNX Runtime, with exact INT8 arithmetic.

    Args:
        quantizer: the quantizer of the measured graphs. Its key and the dataset determine the file
            of the journal, which holds the losses that a search has measured so far.
        dataset: the pictures with their annotations.
        spec: the spec of the artifact.

    Raises:
        DataError: the artifact's classes and the set's categories cannot be matched.
    """

    def __init__(self, quantizer: Quantizer, dataset: CocoSet, spec: DetectorSpec) -> None:
        self._dataset = dataset
        self._spec = spec
        self._classes = joined_to(spec, dataset)
        digest = hashlib.sha256(quantizer.key.encode())
        digest.update(json.dumps(dataset.document, sort_keys=True).encode())
        digest.update(repr(self._classes.category_of).encode())
        # The spec is part of the key: labels name the categories, and thresholds decide which boxes
        # count.
        digest.update(spec.to_json().encode())
        for path in dataset.paths.values():
            digest.update(sha256_file(path).encode())
        self.journal = Journal(quantizer.cache.with_name("budget") / f"{digest.hexdigest()}.json")

    def measure(self, model: ModelProto) -> float:
        """Return the mAP of ``model`` as a fraction, over the categories that the model has."""
        onnx.helper.set_model_props(model, {METADATA_KEY: self._spec.to_json()})
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "candidate.onnx"
            onnx.save(model, path)
            with Detector.load(path, backend="onnxruntime", device="cpu") as detector:
                found = predict(detector, self._dataset, classes=self._classes)
                accuracy = measure(found, self._dataset)
        over_common = accuracy.ap_without(self._classes.lacking)
        return accuracy.ap if over_common is None else over_common
