"""The things that are timed: a variant's weights, our graph in every form, and effdet's network."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import shutil
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import effdet
import torch
from PIL import Image
from store import code_digest, finished

from effdet_deploy import ExportOptions, export
from effdet_deploy.artifact.modelfile import read_spec
from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.benchmark.samples import SEED
from effdet_deploy.detection.letterbox import to_input
from effdet_deploy.progress import silent
from effdet_deploy.pytorch.network import create_model, resolve_name
from effdet_deploy.pytorch.network.random_weights import randomize
from effdet_deploy.synthetic import structured_pictures

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from effdet_deploy.artifact.spec import NmsKind, Target
    from effdet_deploy.pytorch.network import EfficientDet

WHOLE, NETWORK = PARTS = ("end to end", "network")
"""The first is from pictures to rows of boxes, the second from normalized pixels to raw heads."""
CALIBRATION_SEED = 7
CANDIDATES, ROWS = 1000, 100
"""How many boxes enter NMS and how many leave it, unless a program's name says another number."""
LARGEST_BATCH = 8
"""One export serves all batches up to this size; a larger batch has an export of its own."""


@dataclass(frozen=True)
class Weights:
    """Two networks with the same weights, and the pictures that our graphs take.

    ``compiled`` keeps what torch.compile made in minutes, so that the next table can use it.
    """

    ours: EfficientDet
    theirs: nn.Module
    pictures: NDArray[np.uint8]
    compiled: dict[str, nn.Module] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One variant at one size, batch and thread count; its files are made in ``directory``.

    An export serves every batch and thread count. A later run finds it by its name.
    """

    variant: str
    image_size: int | None
    batch: int
    threads: int
    directory: Path

    @property
    def stem(self) -> str:
        """The beginning of the names of the case's files."""
        return f"{self.variant}_{self.image_size or 'own'}"

    @property
    def checkpoint(self) -> Path:
        """The path of the weights, in a form that effdet reads as well."""
        return self.directory / f"{self.stem}.pth"

    @functools.cached_property
    def weights(self) -> Weights:
        """Both networks with random weights from a seed, scaled so that they detect something."""
        ours = create_model(self.variant, image_size=self.image_size)
        if self.checkpoint.exists():
            ours.load_state_dict(torch.load(self.checkpoint, weights_only=True))
        else:
            randomize(ours)
            with finished(self.checkpoint) as partly:
                torch.save(ours.state_dict(), partly)
        size = ours.config.image_size
        theirs = effdet.create_model(
            resolve_name(self.variant), pretrained_backbone=False, image_size=size
        ).eval()
        theirs.load_state_dict(ours.state_dict(), strict=True)
        return Weights(ours.eval(), theirs, structured_pictures(self.batch, *size, SEED))

    def naive_onnx(self) -> Path:
        """Export effdet as its users do: one call gives raw heads with one fixed batch size."""
        path = self.directory / f"{self.stem}_naive_b{self.batch}.onnx"
        if not path.exists():
            example = torch.randn(self.batch, 3, *self.weights.pictures.shape[1:3])
            with (
                warnings.catch_warnings(),
                contextlib.redirect_stdout(io.StringIO()),
                finished(path) as partly,
            ):
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    self.weights.theirs, (example,), partly, dynamo=True, external_data=False
                )
        return path

    def our_file(
        self,
        part: str,
        suffix: str = ".onnx",
        nms: NmsKind = "static",
        candidates: int = CANDIDATES,
        rows: int = ROWS,
    ) -> Path:
        """Export our whole graph, or the network alone, for a range of batch sizes.

        The export is not verified here, to save time; the tests verify exports.
        """
        largest = max(self.batch, LARGEST_BATCH)
        beyond = "" if largest == LARGEST_BATCH else f"_to_{largest}"
        own_nms = "" if nms == "static" else f"_nms_{nms}"
        usual = (rows, candidates) == (ROWS, CANDIDATES)
        entering = "" if usual else f"_{rows}_of_{candidates}"
        stem = f"{self.stem}_ours_{part.replace(' ', '_')}"
        name = f"{stem}{beyond}{own_nms}{entering}_{code_digest()}{suffix}"
        path = self.directory / name
        if not path.exists():
            options = ExportOptions(
                batch=BatchSpec(1, 1, largest),
                verify=False,
                nms=nms,
                candidates=candidates,
                max_detections=rows,
            )
            if part == NETWORK:
                options = dataclasses.replace(options, input_kind="normalized", nms="none")
            export(self.weights.ours, path, options)
        return path

    def our_input(self, part: str) -> NDArray[Any]:
        """Return the pictures as our file for ``part`` takes them."""
        return to_input(self.weights.pictures, read_spec(self.our_file(part), "onnx").input)

    def int8_file(self, part: str, target: Target, nms: NmsKind = "static") -> Path:
        """Quantize our FP32 file to INT8 for a runtime, calibrated on pictures that are not timed.

        It is not verified: random weights cannot show what INT8 costs in accuracy.
        """
        # These imports need the ONNX tools, which a machine that only times PyTorch may lack.
        from effdet_deploy.exporters.lowering import lower_precision
        from effdet_deploy.exporters.material import read_material

        source = self.our_file(part, nms=nms)
        path = source.with_name(f"{source.stem}_int8_{target}.onnx")
        if not path.exists():
            staging = self.directory / f"{path.stem}.lowering"
            staging.mkdir(exist_ok=True)
            staged = Path(shutil.copyfile(source, staging / path.name))
            spec = read_spec(source, "onnx")
            calibration = self._calibration()
            options = ExportOptions(precision="int8", target=target, calibration=calibration)
            spec = dataclasses.replace(spec, precision=options.precision_spec)
            lower_precision(staged, spec, options, read_material(options), silent)
            staged.replace(path)
        return path

    def _calibration(self) -> Path:
        """Write pictures like those that are timed, but with another seed."""
        from effdet_deploy.precision.int8.calibration import MIN_IMAGES

        height, width = self.weights.ours.config.image_size
        made = self.directory / f"calibration_{height}x{width}"
        if not made.exists():
            with finished(made) as partly:
                partly.mkdir(exist_ok=True)
                pictures = structured_pictures(MIN_IMAGES, height, width, CALIBRATION_SEED)
                for index, picture in enumerate(pictures):
                    Image.fromarray(picture).save(partly / f"{index}.png")
        return made
