"""``bundle deepstream``: a folder for nvinfer, NVIDIA DeepStream's inference plugin.

The keys of the configuration are in "Gst-nvinfer" of DeepStream's developer guide. DeepStream pads
scaled frames with black; a model for DeepStream (``--target deepstream``) fills the padding with
the fill color and clips the boxes.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from effdet_deploy.artifact.spec import INPUT_NAME
from effdet_deploy.bundles.folder import files_in, new_folder
from effdet_deploy.bundles.options import Bundle
from effdet_deploy.bundles.source import read_source
from effdet_deploy.detection.thresholds import shown_thresholds, thresholds_by_class
from effdet_deploy.errors import ModelFileError, UsageError
from effdet_deploy.files import sidecar_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.bundles.options import BundleOptions
    from effdet_deploy.bundles.source import Source

PARSER = Path(__file__).parent / "files" / "nvdsinfer_effdet.cpp"
MAKEFILE = Path(__file__).parent / "files" / "Makefile"
CONFIGURATION = "config_infer_primary.txt"
_LABELS = "labels.txt"
_MODES = {"fp32": 0, "int8": 1, "fp16": 2}
_COLORS = {"rgb": 0, "bgr": 1}
_OUR_PARSER = ("NvDsInferParseEffdet", "libnvdsinfer_effdet.so")
_YOLO_PARSER = (
    "NvDsInferParseYolo",
    "nvdsinfer_custom_impl_Yolo/libnvdsinfer_custom_impl_Yolo.so",
)


def bundle(model: Path, folder: Path, options: BundleOptions) -> Bundle:
    """Write the files that nvinfer needs; see :func:`effdet_deploy.bundles.bundle`."""
    source = read_source(model, options)
    _require_frames(source)
    batch = _batch(source, options)
    thresholds = _thresholds(source.spec, options)
    if options.single_output and source.content != "onnx":
        raise UsageError(
            "--single-output changes the graph, but an engine is already compiled.",
            "Bundle the ONNX file, and build the engine from the ONNX file in the bundle.",
        )
    with new_folder(folder) as staged:
        file = staged / f"{source.name}.{'onnx' if source.content == 'onnx' else 'engine'}"
        if options.single_output:
            from effdet_deploy.bundles.single_output import write_single_output

            write_single_output(source, file)
        else:
            source.copy_to(file)
            # The JSON file beside the model tells a build on the target machine what was verified.
            if sidecar_path(source.path).is_file():
                shutil.copyfile(sidecar_path(source.path), sidecar_path(file))
            shutil.copyfile(PARSER, staged / PARSER.name)
            makefile = MAKEFILE.read_text(encoding="utf-8")
            corners = f"BOXES = {source.spec.output.box_format}"
            (staged / MAKEFILE.name).write_text(
                makefile.replace("BOXES = xyxy", corners), encoding="utf-8"
            )
        text = configuration(source, batch, thresholds, single=options.single_output)
        (staged / CONFIGURATION).write_text(text, encoding="utf-8")
        (staged / _LABELS).write_text(source.labels, encoding="utf-8")
    return Bundle(folder, files_in(folder), _commands(source, folder, options), _notes(source))


def configuration(
    source: Source, batch: int, thresholds: Sequence[float], *, single: bool = False
) -> str:
    """Return the text of nvinfer's configuration file.

    Args:
        source: the model.
        batch: the most frames in a batch of nvinfer.
        thresholds: scores by class; objects with lower scores are dropped.
        single: whether the graph has the single output for DeepStream-Yolo's parser.
    """
    spec = source.spec
    taken = spec.input
    function, library = _YOLO_PARSER if single else _OUR_PARSER
    rows, columns = taken.frame_size or (0, 0)
    # nvinfer would build an FP16 or INT8 file with flags of its own and change its precision.
    builds = source.content == "onnx" and spec.precision.kind == "fp32"
    properties = {
        "gpu-id": 0,
        **({"onnx-file": f"{source.name}.onnx"} if builds else {}),
        "model-engine-file": f"{source.name}.engine",
        "labelfile-path": _LABELS,
        "batch-size": batch,
        "network-mode": _MODES[spec.precision.kind],
        "network-type": 0,
        "process-mode": 1,
        "gie-unique-id": 1,
        "interval": 0,
        "net-scale-factor": "1.0",
        "model-color-format": _COLORS[taken.channel_order],
        "infer-dims": f"3;{taken.height};{taken.width}",
        "maintain-aspect-ratio": int(taken.resize != "stretch"),
        "symmetric-padding": int(taken.resize == "center"),
        "scaling-filter": 1,
        "num-detected-classes": spec.num_classes,
        "output-blob-names": "detections" if single else ";".join(spec.output.names),
        "parse-bbox-func-name": function,
        "custom-lib-path": library,
        "cluster-mode": 4,
    }
    common = Counter(thresholds).most_common(1)[0][0]
    lines = [
        f"# {source.name}: {spec.variant} for frames of {columns}x{rows}, the size of nvstreammux.",
        "[property]",
        *(f"{key}={value}" for key, value in properties.items()),
        *_attributes("all", common),
        *(
            line
            for index, each in enumerate(thresholds)
            if each != common
            for line in _attributes(str(index), each, spec.classes[index].name)
        ),
    ]
    return "\n".join(lines) + "\n"


def _attributes(section: str, threshold: float, name: str = "") -> list[str]:
    title = [f"# {name}"] if name else []
    return ["", *title, f"[class-attrs-{section}]", f"pre-cluster-threshold={threshold:.6g}"]


def _commands(source: Source, folder: Path, options: BundleOptions) -> tuple[str, ...]:
    name, (rows, columns) = source.name, source.spec.input.frame_size or (0, 0)
    onnx, engine = folder / f"{name}.onnx", folder / f"{name}.engine"
    used = folder / CONFIGURATION
    build = f"effdet-deploy build {onnx} {engine}"
    if options.single_output:
        build = f"trtexec --onnx={onnx} --saveEngine={engine} --stronglyTyped{_shapes(source.spec)}"
    return (
        *([build] if source.content == "onnx" else []),
        *([] if options.single_output else [f"make -C {folder}"]),
        f"nvstreammux width={columns} height={rows} … ! nvinfer config-file-path={used}",
    )


def _shapes(spec: DetectorSpec) -> str:
    batch = spec.batch
    if batch.is_static:
        return ""
    sizes = {"min": batch.minimum, "opt": batch.optimum, "max": batch.maximum}
    return "".join(
        f" --{which}Shapes={INPUT_NAME}:{'x'.join(map(str, spec.input.shape(size)))}"
        for which, size in sizes.items()
    )


def _require_frames(source: Source) -> None:
    taken, batch = source.spec.input, source.spec.batch
    if taken.frame_size is None or taken.kind != "float255":
        raise ModelFileError(
            f"'{source.path}' was not exported for DeepStream, which pads frames with black and "
            "gives float pictures.",
            "Export it with --target deepstream --frame-size 1080x1920 (the size of nvstreammux).",
        )
    if taken.channels != 3:
        raise ModelFileError(
            f"'{source.path}' takes {taken.channels} channels, but nvinfer gives three.",
            "Bundle a model of RGB or BGR pictures.",
        )
    if batch.maximum > 1 and batch.minimum > 1:
        raise ModelFileError(
            f"'{source.path}' takes a batch of {batch}, but nvinfer also runs batches that are not "
            "full.",
            f"Export it with --batch 1..{batch.maximum}.",
        )


def _batch(source: Source, options: BundleOptions) -> int:
    batch = source.spec.batch
    asked = batch.maximum if options.batch is None else options.batch
    if not batch.minimum <= asked <= batch.maximum:
        raise UsageError(
            f"--batch {asked} was asked for, but '{source.path}' takes a batch of {batch}.",
            f"Choose a --batch that it takes, or export it with --batch 1..{max(asked, 1)}.",
        )
    return asked


def _thresholds(spec: DetectorSpec, options: BundleOptions) -> list[float]:
    """Return the thresholds of all classes, as ``effdet-deploy detect`` would use them."""
    floor = spec.output.score_threshold
    shown = shown_thresholds(options.score_threshold, floor)
    names = [each.name for each in spec.classes]
    return [float(each) for each in thresholds_by_class(shown, names, floor)]


def _notes(source: Source) -> tuple[str, ...]:
    rows, columns = source.spec.input.frame_size or (0, 0)
    notes = [
        f"the model is for frames of {columns}x{rows}: nvstreammux must give frames of that size"
    ]
    if source.content == "onnx":
        notes.append("build the engine with the TensorRT that DeepStream uses, on its GPU")
    return tuple(notes)
