"""The pictures and labels of an export, found and checked once before the work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from effdet_deploy.artifact.labels import Labels, read_labels
from effdet_deploy.detection.pictures import Pictures
from effdet_deploy.errors import DataError
from effdet_deploy.evaluation.accuracy import require_pycocotools
from effdet_deploy.evaluation.predictions import joined_to, notes_on
from effdet_deploy.evaluation.sets import read_pictures, read_set
from effdet_deploy.evaluation.soundness import doubts_about
from effdet_deploy.precision.int8.calibration import MIN_IMAGES, calibration_pictures
from effdet_deploy.precision.precisionfile import require_precision_file

if TYPE_CHECKING:
    from effdet_deploy.artifact.spec import DetectorSpec, InputSpec
    from effdet_deploy.evaluation.cocoset import CocoSet
    from effdet_deploy.exporters.options import ExportOptions
    from effdet_deploy.progress import Progress


@dataclass(frozen=True, eq=False)
class Material:
    """Files that are read before the work.

    Attributes:
        labels: the names of the classes; None takes those of the weights.
        verification: the pictures for the comparison; generated ones if empty.
        ranges: the pictures on which FP16 and INT8 measure ranges; generated ones if empty.
        evaluation: the set on which an mAP budget is measured; None without a budget.
        least: the smallest number of readable pictures that a reduced precision needs.
    """

    labels: Labels | None = None
    verification: Pictures = Pictures()  # noqa: RUF009 - frozen
    ranges: Pictures = Pictures()  # noqa: RUF009 - frozen
    evaluation: CocoSet | None = None
    least: int = 1

    def decoded(self, spec: InputSpec, progress: Progress) -> Material:
        """Return a copy in which every picture is decoded once and letterboxed for ``spec``.

        Raises:
            DataError: too few pictures can be read.
        """
        if self.verification:
            progress("reading the pictures")
        ranges = _decode_enough(self.ranges, spec, self.least)
        is_same = self.verification is self.ranges
        shown = ranges if is_same else _decode_enough(self.verification, spec, 1)
        return replace(self, verification=shown, ranges=ranges)

    def notes_for(self, spec: DetectorSpec) -> tuple[str, ...]:
        """Return notes on pictures that were left out and on annotations that look wrong.

        Raises:
            DataError: the model's classes and the set's categories cannot be matched.
        """
        said = [
            f"{len(each.unreadable)} of {len(each) + len(each.unreadable)} pictures cannot be read "
            f"and were left out; the first: {each.unreadable[0]}"
            for each in dict.fromkeys((self.ranges, self.verification))
            if each.unreadable
        ]
        if self.evaluation is not None:
            said += notes_on(self.evaluation, [spec])
            if lacking := joined_to(spec, self.evaluation).lacking:
                names = self.evaluation.named(lacking)
                said.append(f"The model has no class for {names}: the budget leaves them out.")
            said += [f"The mAP is not meaningful: {each}" for each in doubts_about(self.evaluation)]
        return tuple(said)


def _decode_enough(pictures: Pictures, spec: InputSpec, least: int) -> Pictures:
    found = pictures.decoded(spec)
    if found.unreadable and len(found) < least:
        raise DataError(
            f"At least {least} pictures are needed, but only {len(found)} of {len(pictures)} can "
            f"be read; the first unreadable one: {found.unreadable[0]}",
            "Replace the unreadable pictures.",
        )
    return found


def read_material(options: ExportOptions) -> Material:
    """Read the files that ``options`` name, so that errors in them show before any work.

    Raises:
        DataError: too few pictures, unusable labels or annotations, or an unusable precision file.
        ImageError: there are no pictures.
        MissingPackageError: an mAP budget needs pycocotools, which is not installed.
    """
    least = MIN_IMAGES if options.precision == "int8" else 1
    ranges = verification = read_pictures(options.verify_images)
    if options.calibration is not None:
        find = calibration_pictures if options.precision == "int8" else read_pictures
        ranges = find(options.calibration)
    evaluation = None
    if options.eval_data is not None:
        require_pycocotools()
        evaluation = read_set(options.eval_data, options.eval_images, None, options.class_map)
    if options.precision_file is not None:
        require_precision_file(options.precision_file)
    labels = None if options.labels is None else read_labels(options.labels)
    return Material(labels, verification or ranges, ranges, evaluation, least)
