"""The model of a bundle, which is read and checked before anything is written."""

from __future__ import annotations

import dataclasses
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effdet_deploy.artifact.labels import read_labels
from effdet_deploy.artifact.modelfile import (
    check_external_files,
    read_sidecar,
    read_spec,
    recognize,
    require_engine_of,
)
from effdet_deploy.errors import DataError, ModelFileError, UsageError
from effdet_deploy.files import sha256_file

if TYPE_CHECKING:
    from pathlib import Path

    from effdet_deploy.artifact.modelfile import Content
    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.bundles.options import BundleOptions

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Source:
    """A complete model that gives detections.

    Attributes:
        path: the model file.
        name: its name in the bundle.
        content: ``onnx`` or ``tensorrt``.
        spec: its spec, with the class names of the bundle.
    """

    path: Path
    name: str
    content: Content
    spec: DetectorSpec

    @property
    def labels(self) -> str:
        """The class names, one per line, in the order of the model's outputs."""
        return "".join(f"{each.name}\n" for each in self.spec.classes)

    def copy_to(self, target: Path) -> None:
        """Copy the model to ``target``, and its data files beside it with their own names."""
        shutil.copyfile(self.path, target)
        for each in self.spec.external_files:
            shutil.copyfile(self.path.with_name(each.name), target.with_name(each.name))


def read_source(model: Path, options: BundleOptions) -> Source:
    """Read ``model`` and its labels.

    Raises:
        ModelFileError: the file is not an ONNX file or engine, is damaged, or gives no detections.
        DataError: the labels are missing, or a class name is not a single line.
        UsageError: the name is not valid for a folder.
    """
    content = recognize(model)
    if content == "torchscript":
        raise ModelFileError(
            f"'{model}' is TorchScript, but a bundle needs an ONNX file or an engine.",
            "Export the model again as .onnx or .engine.",
        )
    spec = read_spec(model, content)
    if content == "onnx":
        check_external_files(model, spec)
    else:
        _require_engine(model, spec)
    if spec.output.nms == "none":
        raise ModelFileError(
            f"'{model}' gives raw heads, but a bundle needs a model that gives detections.",
            "Export it again with --nms static.",
        )
    if spec.output.nms == "plugin" and content == "onnx":
        raise ModelFileError(
            f"'{model}' ends in TensorRT's NMS plugin, which only TensorRT has.",
            f"Build an engine with effdet-deploy build {model.name} {model.stem}.engine, "
            "and bundle it.",
        )
    name = model.stem if options.name is None else options.name
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"A model in a bundle cannot be called '{name}'.",
            "Pass --name with letters, digits, '_', '-' and '.'.",
        )
    if options.labels is not None:
        labels = read_labels(options.labels)
        classes, _ = labels.classes(spec.num_classes, options.labels_by)
        if labels.ids is None:
            # A list of names has no category ids, so the model's own stay.
            classes = tuple(
                dataclasses.replace(each, category_id=known.category_id)
                for each, known in zip(classes, spec.classes, strict=True)
            )
        spec = dataclasses.replace(spec, classes=classes)
    _require_lines(spec)
    return Source(model, name, content, spec)


def _require_engine(engine: Path, spec: DetectorSpec) -> None:
    """Check that TensorRT can run an engine, and that its JSON file describes this engine."""
    require_engine_of(read_sidecar(engine), engine, sha256_file(engine))
    if spec.engine is not None and spec.engine.backend == "tensorrt-rtx":
        raise ModelFileError(
            f"'{engine}' was built by TensorRT-RTX, whose engines TensorRT does not load.",
            "Build it with --backend tensorrt.",
        )
    if spec.engine is not None and spec.engine.is_stripped:
        raise ModelFileError(
            f"'{engine}' was built with --strip-plan and holds no weights.",
            "Build it without --strip-plan.",
        )


def _require_lines(spec: DetectorSpec) -> None:
    """Check that every class name is a single line; in DeepStream ``;`` ends a line too."""
    for each in spec.classes:
        if not each.name.strip() or any(sign in each.name for sign in "\n\r;"):
            raise DataError(
                f"The class name {each.name!r} cannot be a line of a label file.",
                "Pass other names with --labels.",
            )
