"""What an export is given beside its options: pictures and labels, found and checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from effdet_deploy.artifact.labels import Labels, read_labels
from effdet_deploy.detection.images import load_image
from effdet_deploy.detection.pictures import Pictures
from effdet_deploy.evaluation.accuracy import require_pycocotools
from effdet_deploy.evaluation.cocoset import find_pictures, read_coco
from effdet_deploy.precision.int8.calibration import calibration_pictures
from effdet_deploy.precision.precisionfile import require_precision_file

if TYPE_CHECKING:
    from effdet_deploy.exporters.options import ExportOptions


@dataclass(frozen=True, eq=False)
class Material:
    """What is read before the work.

    Attributes:
        labels: what the classes are called; None leaves that to the weights.
        verification: what the artifact is compared on; none are made ones.
        ranges: what a reduced precision takes its ranges from; none are made ones.
    """

    labels: Labels | None = None
    verification: Pictures = Pictures()  # noqa: RUF009 - frozen
    ranges: Pictures = Pictures()  # noqa: RUF009 - frozen


def read_material(options: ExportOptions) -> Material:
    """Read what ``options`` name, so that what is wrong with it is said before any work.

    Raises:
        DataError: too few pictures, unusable labels or annotations, or an unusable precision file.
        ImageError: there is no picture, or one to calibrate on cannot be read.
        MissingPackageError: pycocotools is not installed, which a budget is measured with.
    """
    verification = find_pictures(options.verify_images or options.calibration)
    ranges = find_pictures(options.calibration or options.verify_images)
    if options.eval_data is not None:
        require_pycocotools()
        read_coco(options.eval_data, options.eval_images)
    if options.precision_file is not None:
        require_precision_file(options.precision_file)
    if options.precision == "int8" and options.calibration is not None:
        ranges = calibration_pictures(options.calibration)
        for source in ranges.sources:
            load_image(source)
    labels = None if options.labels is None else read_labels(options.labels)
    return Material(labels, verification, ranges)
