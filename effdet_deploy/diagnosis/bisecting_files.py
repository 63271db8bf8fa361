"""Bisecting files: an ONNX file in a reduced precision against the FP32 file it was made from."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from effdet_deploy.artifact.modelfile import SUFFIXES, read_spec
from effdet_deploy.artifact.spec import HEAD_OUTPUTS, INPUT_NAME
from effdet_deploy.diagnosis.bisecting import MOST_MEASUREMENTS, Bisection, Kind, bisect
from effdet_deploy.diagnosis.sides import require_onnx
from effdet_deploy.errors import UnknownNameError, UsageError
from effdet_deploy.evaluation.pictures import own_pictures
from effdet_deploy.parity.metrics import TensorErrors, tensor_errors
from effdet_deploy.progress import silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.evaluation.pictures import Pictures
    from effdet_deploy.progress import Progress

KINDS: tuple[Kind, ...] = get_args(Kind)
PICTURES = 2
"""The heads are measured on the first pictures: a layer that loses does so on any."""


def parse_kind(name: str) -> Kind:
    """Return the precision that ``name`` names; raises UnknownNameError for any other name."""
    found = next((kind for kind in KINDS if kind == name), None)
    if found is None:
        raise UnknownNameError("precision to bisect", name, KINDS)
    return found


def require_bisectable(candidates: Sequence[Path], reference: str, kind: Kind) -> None:
    """Check what is to be bisected, before anything is loaded.

    Raises:
        UsageError: a candidate is no ONNX file of that precision, or the reference none in FP32.
        MissingPackageError: the ``onnx`` package is not installed.
    """
    for path, wanted in (*((each, kind) for each in candidates), (Path(reference), "fp32")):
        if SUFFIXES.get(path.suffix.lower()) != "onnx":
            raise UsageError(
                f"--bisect works on ONNX files, and '{path.name}' is none.",
                "Name the ONNX files: in the reduced precision, and the FP32 one it was made from.",
            )
        found = read_spec(path, "onnx").precision.kind
        if found != wanted:
            raise UsageError(
                f"--bisect {kind} compares {kind.upper()} files with one in FP32; "
                f"'{path.name}' should be {wanted.upper()} and is {found.upper()}.",
                "Name a candidate in that precision, and as reference what it was made from.",
            )
    require_onnx("bisecting")


def bisect_file(
    candidate: Path,
    reference: Path,
    kind: Kind,
    pictures: Pictures | None = None,
    progress: Progress = silent,
    bound: int = MOST_MEASUREMENTS,
) -> Bisection:
    """Find the layers whose precision explains what an ONNX file loses against its FP32 form.

    Args:
        candidate: the file in the reduced precision.
        reference: the FP32 file that it was made from.
        kind: the reduced precision.
        pictures: what to measure on; default structured pictures of our own.
        progress: told what is being measured.
        bound: on the number of measurements.

    Raises:
        UsageError: the two files are not of one network.
    """
    import onnx

    from effdet_deploy.diagnosis.grafting import HalfGrafting, Int8Grafting
    from effdet_deploy.precision.ranges import graph_inputs

    spec = read_spec(reference, "onnx")
    _require_same_input(candidate, spec)
    images = (pictures or own_pictures(spec.input)).letterboxed(spec.input, PICTURES)
    known, reduced = onnx.load(reference), onnx.load(candidate)
    grafting = (Int8Grafting if kind == "int8" else HalfGrafting)(known, reduced)
    heads = HeadsMeter(known, list(graph_inputs(images, spec)))
    return bisect(grafting, heads.snr_db, kind, progress, bound)


def _require_same_input(candidate: Path, reference: DetectorSpec) -> None:
    spec = read_spec(candidate, "onnx")
    if (spec.input, spec.batch) != (reference.input, reference.batch):
        raise UsageError(
            f"--bisect compares files of one network; '{candidate.name}' takes another input or "
            "batch than its reference.",
            "Name the FP32 file that the candidate was made from.",
        )


class HeadsMeter:
    """Measures the raw heads of graphs against those of a reference, in ONNX Runtime.

    Args:
        reference: the FP32 graph.
        batches: graph inputs.
    """

    def __init__(self, reference: ModelProto, batches: Sequence[NDArray[Any]]) -> None:
        from effdet_deploy.diagnosis.grafting import head_values, with_heads

        self._batches = batches
        self._exact = self._heads(with_heads(copy.deepcopy(reference), head_values(reference)))

    def snr_db(self, model: ModelProto) -> float:
        """Return the worse head's signal-to-noise ratio; -inf where a value is not finite.

        Args:
            model: gives the heads as :meth:`.Grafting.with_exact` does.
        """
        mine = self._heads(model)
        worst = math.inf
        for head in range(len(HEAD_OUTPUTS)):
            errors = TensorErrors()
            for known, found in zip(self._exact, mine, strict=True):
                errors += tensor_errors(known[head], found[head])
            worst = min(worst, errors.snr_db)
        return worst

    def _heads(self, model: ModelProto) -> list[list[NDArray[np.float32]]]:
        from effdet_deploy.precision.ranges import open_session

        session = open_session(model)
        return [session.run(None, {INPUT_NAME: batch}) for batch in self._batches]
