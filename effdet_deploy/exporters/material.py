"""What an export is given beside its options: pictures and labels, found and checked once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from effdet_deploy.artifact.labels import Labels, read_labels
from effdet_deploy.detection.pictures import Pictures
from effdet_deploy.evaluation.accuracy import require_pycocotools
from effdet_deploy.evaluation.cocoset import find_pictures, read_coco
from effdet_deploy.evaluation.predictions import joined_to
from effdet_deploy.evaluation.soundness import doubts_about
from effdet_deploy.precision.int8.calibration import calibration_pictures
from effdet_deploy.precision.precisionfile import require_precision_file

if TYPE_CHECKING:
    from effdet_deploy.artifact.spec import DetectorSpec, InputSpec
    from effdet_deploy.evaluation.cocoset import CocoSet
    from effdet_deploy.exporters.options import ExportOptions


@dataclass(frozen=True, eq=False)
class Material:
    """What is read before the work.

    Attributes:
        labels: what the classes are called; None leaves that to the weights.
        verification: what the artifact is compared on; none are made ones.
        ranges: what a reduced precision takes its ranges from; none are made ones.
        evaluation: what a mAP budget is measured on; None without a budget.
    """

    labels: Labels | None = None
    verification: Pictures = Pictures()  # noqa: RUF009 - frozen
    ranges: Pictures = Pictures()  # noqa: RUF009 - frozen
    evaluation: CocoSet | None = None

    def decoded(self, spec: InputSpec) -> Material:
        """Return it with every picture read, once, and letterboxed for ``spec``.

        Raises:
            ImageError: one cannot be read.
        """
        ranges = self.ranges.decoded(spec)
        is_same = self.verification is self.ranges
        shown = ranges if is_same else self.verification.decoded(spec)
        return replace(self, verification=shown, ranges=ranges)

    def notes_for(self, spec: DetectorSpec) -> tuple[str, ...]:
        """Say what the evaluation set of a model makes doubtful, before any work is done for it.

        Raises:
            DataError: the model's classes and the set's categories cannot be joined.
        """
        if self.evaluation is None:
            return ()
        joined = joined_to(spec, self.evaluation).note
        doubts = (f"The mAP means nothing: {each}" for each in doubts_about(self.evaluation))
        return (*self.evaluation.remarks, *filter(None, [joined]), *doubts)


def read_material(options: ExportOptions) -> Material:
    """Read what ``options`` name, so that what is wrong with it is said before any work.

    Raises:
        DataError: too few pictures, unusable labels or annotations, or an unusable precision file.
        ImageError: there is no picture.
        MissingPackageError: pycocotools is not installed, which a budget is measured with.
    """
    ranges = verification = find_pictures(options.verify_images)
    if options.calibration is not None:
        find = calibration_pictures if options.precision == "int8" else find_pictures
        ranges = find(options.calibration)
    evaluation = None
    if options.eval_data is not None:
        require_pycocotools()
        evaluation = read_coco(options.eval_data, options.eval_images, None, options.class_map)
    if options.precision_file is not None:
        require_precision_file(options.precision_file)
    labels = None if options.labels is None else read_labels(options.labels)
    return Material(labels, verification or ranges, ranges, evaluation)
