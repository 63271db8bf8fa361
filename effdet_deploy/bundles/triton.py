"""``bundle triton``: a model in a repository for NVIDIA's Triton Inference Server.

The layout is Triton's (docs/user_guide/model_repository.md in triton-inference-server/server),
the configuration is its ModelConfig (model_config.proto in triton-inference-server/common).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from effdet_deploy.artifact.tensors import spec_tensors
from effdet_deploy.bundles.folder import files_in, new_folder
from effdet_deploy.bundles.options import Bundle, refuse_others
from effdet_deploy.bundles.source import read_source
from effdet_deploy.errors import ModelFileError

if TYPE_CHECKING:
    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.artifact.tensors import TensorInfo
    from effdet_deploy.bundles.options import BundleOptions
    from effdet_deploy.bundles.source import Source

CLIENT = Path(__file__).parent / "files" / "client.py"
SPEC_PARAMETER = "effdet.spec"
"""The parameter of the configuration in which a client finds the model's spec."""
_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32", "int32": "TYPE_INT32"}
_BACKENDS = {
    "tensorrt": ('platform: "tensorrt_plan"', "model.plan"),
    "openvino": ('backend: "openvino"\ndefault_model_filename: "model.onnx"', "model.onnx"),
    "onnxruntime": ('platform: "onnxruntime_onnx"', "model.onnx"),
}
"""By runtime: its lines in the configuration, and the name that the model's file must have."""


def bundle(model: Path, repository: Path, options: BundleOptions) -> Bundle:
    """Add ``model`` to a model repository; see :func:`effdet_deploy.bundles.bundle`."""
    refuse_others(options, "triton", ("batch", "score_threshold", "single_output"))
    source = read_source(model, options)
    _require_pictures(source)
    runtime = "openvino" if source.spec.precision.target == "openvino" else "onnxruntime"
    if source.content == "tensorrt":
        runtime = "tensorrt"
    _, file = _BACKENDS[runtime]
    folder = repository / source.name
    with new_folder(folder) as staged:
        (staged / "1").mkdir()
        source.copy_to(staged / "1" / file)
        (staged / "config.pbtxt").write_text(configuration(source, runtime), encoding="utf-8")
        (staged / "labels.txt").write_text(source.labels, encoding="utf-8")
        shutil.copyfile(CLIENT, staged / CLIENT.name)
    commands = (
        f"tritonserver --model-repository {repository}",
        f"python {folder / CLIENT.name} localhost:8000 {source.name} PICTURE.jpg",
    )
    return Bundle(folder, files_in(folder), commands, _notes(source, runtime))


def configuration(source: Source, runtime: str) -> str:
    """Return the text of ``config.pbtxt`` for a model that ``runtime`` runs."""
    spec = source.spec
    inputs, outputs = spec_tensors(spec)
    batches = not spec.batch.is_static
    sizes = {spec.batch.minimum, spec.batch.optimum, spec.batch.maximum}
    warmed = sorted(sizes) if batches else [1]
    # Where Triton makes batches itself, dimensions leave out the batch.
    parts = [
        f'name: "{source.name}"',
        _BACKENDS[runtime][0],
        f"max_batch_size: {spec.batch.maximum if batches else 0}",
        *(f"input [ {{ {_tensor(each, batches)} }} ]" for each in inputs),
        *(f"output [ {{ {_tensor(each, batches)} }} ]" for each in outputs),
        f"instance_group [ {{ count: 1 kind: {_instance_kind(spec, runtime)} }} ]",
        # Add max_queue_delay_microseconds to make requests wait for others.
        *(["dynamic_batching { }"] if batches else []),
        # The first run of a model at a batch size takes many times as long as the next ones.
        *(_warm_up(inputs, size, batches) for size in warmed),
        f'parameters {{ key: "{SPEC_PARAMETER}" value {{ string_value: {_quoted_spec(spec)} }} }}',
    ]
    return "\n".join(parts) + "\n"


def _tensor(info: TensorInfo, batches: bool) -> str:
    return f'name: "{info.name}" data_type: {_TYPES[info.dtype.name]} dims: {_dims(info, batches)}'


def _dims(info: TensorInfo, batches: bool) -> list[int | None]:
    return list(info.shape[1:] if batches else info.shape)


def _warm_up(inputs: tuple[TensorInfo, ...], size: int, batches: bool) -> str:
    black = " ".join(
        f'inputs {{ key: "{each.name}" value {{ data_type: {_TYPES[each.dtype.name]} '
        f"dims: {_dims(each, batches)} zero_data: true }} }}"
        for each in inputs
    )
    return f'model_warmup [ {{ name: "batch of {size}" batch_size: {size} {black} }} ]'


def _instance_kind(spec: DetectorSpec, runtime: str) -> str:
    if runtime == "tensorrt":
        return "KIND_GPU"
    return "KIND_AUTO" if spec.precision.target in (None, "tensorrt") else "KIND_CPU"


def _quoted_spec(spec: DetectorSpec) -> str:
    text = json.dumps(json.loads(spec.to_json()), sort_keys=True, ensure_ascii=True)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _require_pictures(source: Source) -> None:
    batch = source.spec.batch
    if source.spec.input.frame_size is not None:
        raise ModelFileError(
            f"'{source.path}' was exported for DeepStream, which scales frames itself.",
            "Export it again without --target deepstream.",
        )
    if not batch.is_static and batch.minimum > 1:
        raise ModelFileError(
            f"'{source.path}' takes batches of {batch.minimum} to {batch.maximum}, but Triton "
            "sends single pictures as well.",
            f"Export it again with --batch 1..{batch.maximum}, or with one fixed size.",
        )


def _notes(source: Source, runtime: str) -> tuple[str, ...]:
    precision, notes = source.spec.precision, []
    if source.spec.batch.is_static:
        notes.append(
            f"the batch size is fixed at {source.spec.batch}, so Triton joins no requests: an "
            "export with --batch 1..8 lets Triton join them"
        )
    if source.spec.input.interpolation == "linear":
        notes.append(
            "the model was trained on pictures that OpenCV scaled, but the client scales with "
            "Pillow"
        )
    if runtime == "onnxruntime" and precision.target == "tensorrt":
        notes.append(
            "the file is laid out for TensorRT, but ONNX Runtime computes it in float: build an "
            "engine with effdet-deploy build and bundle the engine"
        )
    if precision.instruction is not None:
        notes.append(
            f"the results are right only on processors with {precision.instruction.upper()}, but "
            "Triton does "
            "not check that"
        )
    return tuple(notes)
