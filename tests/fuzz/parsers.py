"""For every parser of files: valid files to damage, and a function that reads and uses a file.

Whoever adds a parser to the package adds a line to :data:`PARSERS`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import itertools
import json
import shutil
import struct
import tempfile
import types
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import h5py
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from PIL import Image
from safetensors.torch import save as save_safetensors

from effdet_deploy.artifact.anchors import anchor_count
from effdet_deploy.artifact.description import describe
from effdet_deploy.artifact.int8weights import read_int8_weights
from effdet_deploy.artifact.labels import read_labels
from effdet_deploy.artifact.modelfile import check_external_files, warn_if_changed
from effdet_deploy.artifact.spec import METADATA_KEY, DetectorSpec
from effdet_deploy.artifact.tensors import spec_tensors
from effdet_deploy.batch import plan
from effdet_deploy.batch.sources import Listing, list_pictures, read_pictures
from effdet_deploy.bundles.options import BundleOptions
from effdet_deploy.bundles.source import read_source
from effdet_deploy.detection.images import load_image, size_of
from effdet_deploy.detection.largetiff import LargeTiff
from effdet_deploy.detection.thresholds import read_thresholds, thresholds_by_class
from effdet_deploy.errors import EffdetDeployError, EffdetDeployWarning, WeightsError
from effdet_deploy.evaluation.classmap import join_classes
from effdet_deploy.evaluation.cocoset import find_pictures, read_coco
from effdet_deploy.evaluation.sets import read_set
from effdet_deploy.evaluation.soundness import doubts_about
from effdet_deploy.exporters.tensorrt import timing_cache
from effdet_deploy.files import read_json_object, sha256_bytes
from effdet_deploy.precision.int8 import calibration
from effdet_deploy.precision.int8.layout import LAYOUTS
from effdet_deploy.precision.int8.sensitivity import Journal
from effdet_deploy.precision.precisionfile import read_precision_file, require_precision_file
from effdet_deploy.preflight.check import check_model
from effdet_deploy.pytorch.network import get_config
from effdet_deploy.pytorch.weights import loading
from effdet_deploy.pytorch.weights.origins import automl, tensorbundle, tf_object_detection
from tests.evaluation.sets import write_set
from tests.fuzz.mutations import Sample, whole
from tests.onnx_models import NAMES, detector_spec, tiny_model
from tests.precision.tiny_network import network_spec, tiny_network
from tests.pytorch.weights.origins.forms import _table, write_tensorbundle
from tests.pytorch.weights.origins.test_settings import CONFIG_YAML, PIPELINE_CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fuzz.mutations import Parts


@dataclass(frozen=True)
class Parser:
    """A parser of the package.

    Attributes:
        file: the name of the file that it reads.
        samples: makes valid files of the kind that it reads.
        read: reads the file at a path; the caller judges the error that it raises, if any.
    """

    file: str
    samples: Callable[[], list[Sample]]
    read: Callable[[Path], object]


# --- model files -------------------------------------------------------------------------------

SPECS = (
    detector_spec(),
    detector_spec(nms="none"),
    dataclasses.replace(
        network_spec(), overrides={"fpn_channels": 88, "nested": [1, {"a": None}]}, assumed=("so",)
    ),
)


def _use(spec: DetectorSpec) -> None:
    """Use a spec as every reader does; raise AssertionError if writing and reading change it."""
    assert DetectorSpec.from_json(spec.to_json()) == spec
    spec_tensors(spec)
    anchor_count(spec.anchors, spec.input.height, spec.input.width)
    assert spec.input.frame_area is None or len(spec.input.frame_area) == 4
    str(spec.batch)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def _entry(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _with_metadata(parts: Parts) -> bytes:
    inside = _entry(1, METADATA_KEY.encode()) + _entry(2, parts["spec"])
    return parts["model"] + _entry(14, inside)


def _onnx_samples() -> list[Sample]:
    samples = []
    for spec in SPECS:
        model = tiny_network() if spec.variant == "tiny" and spec.overrides else tiny_model(spec)
        if spec.output.nms == "none" and not spec.overrides:
            # The raw heads of all anchors would take megabytes.
            model = tiny_model(with_spec=False)
        del model.metadata_props[:]
        samples.append(
            Sample(
                {"model": model.SerializeToString(), "spec": spec.to_json().encode()},
                _with_metadata,
            )
        )
    external = tiny_model(with_spec=False)
    tensor = external.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", "24")):
        tensor.external_data.add(key=key, value=value)
    parts = {"model": external.SerializeToString(), "spec": SPECS[0].to_json().encode()}
    return [*samples, Sample(parts, _with_metadata, {"weights.bin": bytes(24)})]


def _read_onnx(path: Path) -> None:
    describe(path)
    read_int8_weights(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EffdetDeployWarning)
        check_external_files(path, SPECS[0])


def _zipped(parts: Parts, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return stream.getvalue()


def _stored(parts: Parts) -> bytes:
    return _zipped(parts, zipfile.ZIP_STORED)


def _packed_otherwise(parts: Parts) -> bytes:
    return _zipped(parts, zipfile.ZIP_LZMA)


def _torchscript_samples() -> list[Sample]:
    parts = {
        "m/constants.pkl": b"\x80\x02).",
        f"m/extra/{METADATA_KEY}": SPECS[0].to_json().encode(),
        "m/code/__torch__.py": b"pass",
    }
    return [Sample(parts, pack) for pack in (_stored, _zipped, _packed_otherwise)]


def _sidecar_samples() -> list[Sample]:
    engine = b"ptrt" + bytes(60)
    return [
        whole(
            json.dumps(
                {
                    "spec": json.loads(spec.to_json()),
                    "sha256": sha256_bytes(engine),
                    "verification": {"passed": True, "figures": [1.5, None]},
                }
            ),
            **{"model.engine": engine},
        )
        for spec in SPECS
    ]


def _read_sidecar(path: Path) -> None:
    describe(path.with_suffix(""))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EffdetDeployWarning)
        warn_if_changed(path.with_suffix(""))


def _bundle_samples() -> list[Sample]:
    model = _onnx_samples()[0]
    labels = b"".join(name.encode() + b"\n" for name in NAMES)
    return [dataclasses.replace(model, beside={"labels.txt": labels})]


def _read_bundle(path: Path) -> None:
    source = read_source(path, BundleOptions(labels=path.with_name("labels.txt")))
    assert source.labels.count("\n") == source.spec.num_classes


# --- documents ---------------------------------------------------------------------------------


def _coco() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_set(Path(folder) / "set", images=2).read_bytes()


@functools.cache
def _picture_folder() -> Path:
    """Return a folder of pictures that annotations can name; it is made once per process."""
    folder = Path(tempfile.mkdtemp(prefix="effdet-fuzz-"))
    write_set(folder / "set", images=2)
    return folder / "set" / "images"


def _read_coco(path: Path) -> None:
    with contextlib.suppress(EffdetDeployError):
        find_pictures(path)
    dataset = read_coco(path, _picture_folder())
    doubts_about(dataset)
    join_classes(SPECS[0], dataset.categories)


def _read_voc(path: Path) -> None:
    """Read a folder of Pascal VOC annotations, whose pictures are in another folder."""
    assert len(read_set(path.parent, _picture_folder())) > 0


def _read_data(path: Path) -> None:
    """Read the data.yaml of a YOLO set that has one picture with labels."""
    for folder in ("images", "labels"):
        path.with_name(folder).mkdir(exist_ok=True)
    shutil.copy(_picture_folder() / "001.png", path.with_name("images"))
    (path.with_name("labels") / "001.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    path.with_name("list.txt").write_text("./images/001.png\nimages/001.png\n")
    assert len(read_set(path)) == 1
    assert len(read_set(path, _picture_folder())) > 0


def _read_rows(path: Path) -> None:
    """Read YOLO labels, the text file that lies beside their picture."""
    shutil.copy(_picture_folder() / "001.png", path.with_suffix(".png"))
    data = path.with_name("data.yaml")
    data.write_text("val: .\nnames: [a, b, c]\n")
    read_set(data)


def _voc_samples() -> list[Sample]:
    corners = "".join(f"<{side}>{n}</{side}>" for n, side in enumerate(VOC_SIDES, start=1))
    head = "<filename>001.png</filename><size><width>96</width><height>96</height></size>"
    item = f"<object><name>a</name><difficult>0</difficult><bndbox>{corners}</bndbox></object>"
    declared = '<!DOCTYPE a [<!ENTITY x "y">]>'
    plain = f"<annotation>{head}{item}{item}</annotation>"
    return [whole(each) for each in (plain, f'<?xml version="1.0"?>{plain}', declared + plain)]


def _read_large(path: Path) -> None:
    with warnings.catch_warnings():
        # Pillow warns of damaged tags.
        warnings.simplefilter("ignore", UserWarning)
        large = LargeTiff(path, 3)
    sides = min(large.width, 64), min(large.height, 64)
    assert large.region(0, 0, *sides).shape == (sides[1], sides[0], 3)
    assert max(large.reduced().shape[:2]) <= 4096


def _strips() -> list[Sample]:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3)).astype(np.uint8)
    found = []
    for compression in ("raw", "tiff_lzw", "tiff_deflate", "jpeg", "packbits"):
        for mode in ("RGB", "L"):
            stream = io.BytesIO()
            picture = Image.fromarray(pixels).convert(mode)
            picture.save(stream, "TIFF", compression=compression, strip_size=256)
            found.append(whole(stream.getvalue()))
    return found


def _labels(path: Path) -> None:
    labels = read_labels(path)
    for rule in ("rank", "id"):
        with contextlib.suppress(EffdetDeployError):
            labels.classes(3, rule)
    labels.classes(len(labels.names))


def _thresholds(path: Path) -> None:
    thresholds_by_class(read_thresholds(str(path)), ("a", "b"), 0.01)


def _class_map(path: Path) -> None:
    join_classes(SPECS[0], dict(enumerate(NAMES, 10)), path)


def _settings(project: types.ModuleType) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        settings = project.ORIGIN.settings.beside(path.with_name("ckpt"))
        get_config("tf_efficientdet_d0").replace(settings.fields)

    return read


def _config(path: Path) -> None:
    fields = read_json_object(path, "The config file", "Mend it.")
    config = get_config("tf_efficientdet_d0").replace(fields)
    assert all(each == each for each in (*config.mean, *config.std, config.anchor_scale))


CONVOLUTIONS = [
    types.SimpleNamespace(name=each, group=each, kind="dense")
    for each in ("backbone/stem", "head/dense")
]


def _precision(path: Path) -> None:
    require_precision_file(path)
    read_precision_file(path, CONVOLUTIONS, LAYOUTS["openvino"])


def _note_samples() -> list[Sample]:
    cache = bytes(range(64))
    origin = {"backend": "tensorrt", "version": "10.9", "gpu": "none"}
    note = json.dumps({"origin": origin, "sha256": sha256_bytes(cache)})
    return [whole(note, **{"timing.cache": cache}), whole("[]"), whole("{}")]


def _read_note(path: Path) -> None:
    cache = path.with_suffix("")
    timing_cache.require_own_note(cache)
    log = types.SimpleNamespace(warnings=[], errors=[])
    reason = timing_cache.attach(
        mock.Mock(), cache, timing_cache.Origin("tensorrt", "10.9", "none"), log
    )
    assert isinstance(reason, str)


def _journal(path: Path) -> None:
    assert Journal(path).recall("a", lambda: 1.5) is not None


def _histogram_samples() -> list[Sample]:
    samples = []
    for bins in (calibration.BINS, 3):
        stream = io.BytesIO()
        np.savez_compressed(
            stream, limits=np.zeros((1, 2)), counts=np.ones((1, bins), dtype=np.int64)
        )
        with zipfile.ZipFile(stream) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        samples += [Sample(parts, pack) for pack in (_zipped, _stored, _packed_otherwise)]
    return samples


def _histograms(path: Path) -> None:
    with (
        mock.patch.object(calibration, "calibration_key", return_value=path.stem),
        mock.patch.object(calibration, "collect", return_value={}),
        mock.patch.object(calibration, "staging", side_effect=OSError),
    ):
        calibration.cached(path.parent, None, ["value"], [])


# --- checkpoints -------------------------------------------------------------------------------

STATE = {
    "backbone.conv_stem.weight": torch.arange(27.0).reshape(1, 3, 3, 3),
    "backbone.bn1.num_batches_tracked": torch.tensor(4),
    "fpn.resample.3.conv.bn.weight": torch.ones(4, dtype=torch.float16),
    "class_net.predict.conv_pw.weight": torch.zeros(9 * 3, 4, 1, 1),
    "class_net.predict.conv_pw.bias": torch.zeros(9 * 3),
    "class_net.bn_rep.0.0.bn.weight": torch.ones(4),
    "box_net.predict.conv_pw.bias": torch.zeros(36, dtype=torch.bfloat16),
    "box_net.predict.conv_pw.weight": torch.zeros(36, 4, 1, 1),
}
BESIDE = {
    "hyper_parameters": {"img_size": 256, "mean": [0.5, 0.5, 0.5], "model": "tf_efficientdet_d0"},
    "classes": ["a", "b", "c"],
    "epoch": 3,
}


def _torch_parts(content: object) -> Parts:
    stream = io.BytesIO()
    torch.save(content, stream)
    with zipfile.ZipFile(stream) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _torch_samples() -> list[Sample]:
    bench = {f"model.{key}": value for key, value in STATE.items()}
    bench["anchors.boxes"] = torch.zeros(9, 4)
    contents = (STATE, {"state_dict": STATE, **BESIDE}, {"ema": bench, "args": BESIDE})
    return [Sample(_torch_parts(each), pack) for each in contents for pack in (_stored, _zipped)]


def _legacy_samples() -> list[Sample]:
    samples = []
    for content in (STATE, {"state_dict": STATE, **BESIDE}):
        stream = io.BytesIO()
        torch.save(content, stream, _use_new_zipfile_serialization=False)
        samples.append(whole(stream.getvalue()))
    return samples


def _with_header(parts: Parts) -> bytes:
    return struct.pack("<Q", len(parts["header"])) + parts["header"] + parts["tensors"]


def _safetensors_samples() -> list[Sample]:
    said = {"variant": "tf_efficientdet_d0", "labels": '["a", "b", "c"]', "image_size": "128x128"}
    said |= {"category_ids": "[1, 2, 3]", "hyper_parameters": '{"img_size": 128}'}
    data = save_safetensors(STATE, said)
    (size,) = struct.unpack("<Q", data[:8])
    parts = {"header": data[8 : 8 + size], "tensors": data[8 + size :]}
    return [Sample(parts, _with_header)]


def _numpy_samples() -> list[Sample]:
    arrays = {key: each.float().numpy() for key, each in STATE.items()}
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    with zipfile.ZipFile(stream) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    return [Sample(parts, _stored), Sample(parts, _zipped), Sample(parts, _packed_otherwise)]


def _hdf5_samples() -> list[Sample]:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for key, value in STATE.items():
            group, _, leaf = key.rpartition(".")
            file.create_dataset(f"{group.replace('.', '/')}/{leaf}:0", data=value.float().numpy())
        file.create_dataset("packed", data=np.arange(100.0), compression="gzip")
    return [whole(stream.getvalue())]


def _bundle_of_tensors() -> list[Sample]:
    arrays = {key.replace(".", "/"): each.float().numpy() for key, each in STATE.items()}
    keys = {f"layer-{index}/.ATTRIBUTES/VARIABLE_VALUE": name for index, name in enumerate(arrays)}
    samples = []
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "ckpt"
        for tensors, names in (
            (arrays, None),
            (dict(zip(keys, arrays.values(), strict=True)), keys),
        ):
            write_tensorbundle(prefix, tensors, names)
            index = prefix.with_name("ckpt.index").read_bytes()
            name = "ckpt.data-00000-of-00001"
            beside = {name: prefix.with_name(name).read_bytes()}
            samples.append(Sample({"": index}, beside=beside))
            # Here the table's entries can be damaged: packing gives their blocks correct checksums.
            entries = {key.decode(): value for key, value in tensorbundle._table(index)}
            samples.append(Sample(entries, _as_table, beside))
    return samples


def _as_table(parts: Parts) -> bytes:
    return _table({key.encode(): value for key, value in parts.items()})


def _newest_samples() -> list[Sample]:
    index, *_ = _bundle_of_tensors()
    beside = {"a.index": index.parts[""], "b.index": index.parts[""]}
    beside["b.data-00000-of-00001"] = index.beside["ckpt.data-00000-of-00001"]
    return [whole('model_checkpoint_path: "b"\nall_model_checkpoint_paths: "a"\n', **beside)]


def _weights(path: Path) -> None:
    """Load weights, and stop before the network is built, because that takes long."""
    built = WeightsError("the network is built now")
    with mock.patch.object(loading, "EfficientDet", mock.Mock(side_effect=built)):
        try:
            loading.build_model("d0", str(path))
        except WeightsError as error:
            if error is not built:
                raise


# --- pictures ----------------------------------------------------------------------------------


def _pictures(form: str) -> Callable[[], list[Sample]]:
    def samples() -> list[Sample]:
        random = np.random.default_rng(0)
        pixels = random.integers(0, 256, (24, 20, 3)).astype(np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6
        found = []
        for mode in ("RGB", "L", "RGBA", "P", "CMYK", "I;16", "1"):
            picture = (
                Image.fromarray(pixels[..., 0].astype(np.uint16) << 8)
                if mode == "I;16"
                else Image.fromarray(pixels).convert(mode)
            )
            stream = io.BytesIO()
            with contextlib.suppress(OSError, ValueError):
                picture.save(stream, form, **({"exif": exif} if form != "PPM" else {}))
                found.append(stream.getvalue())
        return [_with_chunks(each) if form == "PNG" else whole(each) for each in found]

    return samples


def _with_chunks(png: bytes) -> Sample:
    """Split a PNG into its chunks: packing gives damaged chunks correct checksums."""
    parts, place = {"signature": png[:8]}, 8
    while place < len(png):
        (size,) = struct.unpack_from(">I", png, place)
        parts[f"{place} {png[place + 4 : place + 8].decode()}"] = png[place + 8 : place + 8 + size]
        place += 12 + size

    def pack(parts: Parts) -> bytes:
        out = [parts["signature"]]
        for name, content in parts.items():
            if name != "signature":
                kind = name.partition(" ")[2].encode()
                check = zlib.crc32(kind + content)
                out.append(
                    struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
                )
        return b"".join(out)

    return Sample(parts, pack)


def _read_picture(path: Path) -> None:
    with warnings.catch_warnings():
        # Pillow warns of damaged EXIF.
        warnings.simplefilter("ignore", UserWarning)
        size_of(path)
        for channels in (3, 1, 4):
            assert load_image(path, channels).shape[2] == channels


# --- runs of batch -----------------------------------------------------------------------------

KEYS = ("a.png", "b.png", "c.png")
SETTINGS = plan.Settings("pictures", None, None, "0" * 64, {"cat": 0.5, "*": 0.3})


def _with_note(content: bytes) -> Sample:
    """Split off a Parquet file's metadata, so that it alone can be damaged."""
    table = pq.read_table(io.BytesIO(content))

    def pack(parts: Parts) -> bytes:
        stream = io.BytesIO()
        noted = table.replace_schema_metadata({plan.METADATA: parts["note"]})
        pq.write_table(noted, stream, row_group_size=2)
        return stream.getvalue()

    note = pq.read_metadata(io.BytesIO(content)).metadata[plan.METADATA]
    return Sample({"note": note}, pack)


def _plan_samples() -> list[Sample]:
    with tempfile.TemporaryDirectory() as folder:
        plan.make_plan(folder, Listing(KEYS, "pictures"), SETTINGS, 2)
        content = (Path(folder) / plan.NAME).read_bytes()
    return [whole(content), _with_note(content)]


def _part_samples() -> list[Sample]:
    plan_file = _plan_samples()[0].parts[""]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / plan.NAME).write_bytes(plan_file)
        digest = plan.read_plan(folder).digest
    stream = io.BytesIO()
    note = json.dumps({"plan": digest, "part": 0, "errors": 0, "detections": 5})
    table = pa.table({"key": ["a.png", "b.png"]}).replace_schema_metadata({plan.METADATA: note})
    pq.write_table(table, stream)
    content = stream.getvalue()
    beside = {plan.NAME: plan_file}
    return [
        dataclasses.replace(each, beside=beside) for each in (whole(content), _with_note(content))
    ]


def _read_plan(path: Path) -> None:
    found = plan.read_plan(str(path.parent))
    if found is not None:
        done = plan.finished_parts(str(path.parent), found)
        assert sum(each.pictures + each.errors + each.detections for each in done.values()) >= 0
        with contextlib.suppress(EffdetDeployError):
            plan.require_same(found, SETTINGS)
        reader = plan.PlanReader(str(path.parent), found)
        for number in range(len(found.counts)):
            assert all(isinstance(each, str) for each in reader.part(number).keys)


def _parquet_samples() -> list[Sample]:
    samples = []
    for values in ([b"one", b"two"], ["a.png", "b.png"], [{"bytes": b"x", "path": "a"}] * 2):
        stream = io.BytesIO()
        pq.write_table(pa.table({"picture": values, "name": ["x", "y"]}), stream)
        samples.append(whole(stream.getvalue()))
    return samples


def _read_parquet(path: Path) -> None:
    listing = list_pictures(str(path), "picture")
    keys = list(itertools.islice(listing.keys, 10))
    for key, picture in read_pictures(dataclasses.replace(listing, keys=keys), None):
        assert isinstance(key, str)
        assert picture is not None


def _texts(*texts: str | bytes) -> Callable[[], list[Sample]]:
    return lambda: [whole(each) for each in texts]


YOLO_PARTS = ("val: images", "test: [images]", "train: ../images", "val: list.txt")
VOC_SIDES = ("xmin", "ymin", "xmax", "ymax")
DATA_YAML = "path: ../set\ntrain: images\nnc: 3\nnames:\n  0: a\n  1: 'no'\n  2: c\n"
LABEL_MAP = "".join(f"item {{\n id: {n}\n name: 'n{n}'\n display_name: '{n}'\n}}\n" for n in (1, 2))
CONFIG = {"image_size": [256, 320], "num_classes": 3, "mean": 0.5, "aspect_ratios": [1, [2, 0.5]]}
CONFIG |= {"fill_color": "mean", "octave_scales": [1.0, 1.3, 1.6], "in_chans": 3, "max_level": 7}
AS_JSON = json.dumps(yaml.safe_load(CONFIG_YAML.replace("!!python/tuple", "")))
"""The YAML as JSON, which is YAML too; in it, the fuzzer can replace single values."""
PRECISION = {"version": 1, "groups": {"backbone/stem": "int8", "head/dense": "higher"}}

PARSERS: dict[str, Parser] = {
    "spec": Parser(
        "spec.json",
        _texts(*(each.to_json() for each in SPECS)),
        lambda path: _use(DetectorSpec.from_json(path.read_bytes().decode(errors="replace"))),
    ),
    "onnx": Parser("model.onnx", _onnx_samples, _read_onnx),
    "preflight": Parser("model.onnx", _onnx_samples, lambda path: check_model(path, "tensorrt-11")),
    "torchscript": Parser("model.torchscript", _torchscript_samples, describe),
    "sidecar": Parser("model.engine.json", _sidecar_samples, _read_sidecar),
    "bundle": Parser("model.onnx", _bundle_samples, _read_bundle),
    "coco": Parser("set.json", lambda: [whole(_coco())], _read_coco),
    "yolo data": Parser(
        "data.yaml",
        _texts(*(f"path: .\n{part}\nnames: [a, b]\n" for part in YOLO_PARTS)),
        _read_data,
    ),
    "yolo rows": Parser(
        "001.txt", _texts("0 0.5 0.5 0.2 0.2\n2 0.1 0.1 0.2 0.1 0.2 0.3\n"), _read_rows
    ),
    "voc": Parser("001.xml", _voc_samples, _read_voc),
    "large tiff": Parser("large.tif", _strips, _read_large),
    "class map": Parser("map.json", _texts('{"square": 10, "circle": 12}'), _class_map),
    "labels json": Parser("labels.json", lambda: [whole(_coco()), whole('["a", "b"]')], _labels),
    "labels yaml": Parser(
        "data.yaml",
        _texts(DATA_YAML, "names: [a, b, c]\n", '{"nc": 2, "names": {"0": "a", "1": "b"}}'),
        _labels,
    ),
    "labels pbtxt": Parser("map.pbtxt", _texts(LABEL_MAP), _labels),
    "labels text": Parser("labels.txt", _texts("a\nb\nc\n"), _labels),
    "thresholds json": Parser("t.json", _texts('{"a": 0.5, "*": 0.3}'), _thresholds),
    "thresholds yaml": Parser("t.yaml", _texts("a: 0.5\n'*': 3e-1\n", '{"a": 0.5}'), _thresholds),
    "config": Parser("config.json", _texts(json.dumps(CONFIG)), _config),
    "pipeline.config": Parser(
        "pipeline.config", _texts(PIPELINE_CONFIG), _settings(tf_object_detection)
    ),
    "hparams.yaml": Parser("hparams.yaml", _texts(CONFIG_YAML, AS_JSON), _settings(automl)),
    "precision file": Parser("p.json", _texts(json.dumps(PRECISION)), _precision),
    "timing cache note": Parser("timing.cache.json", _note_samples, _read_note),
    "search journal": Parser("journal.json", _texts('{"a": 0.5, "b": 1e-3}'), _journal),
    "histograms": Parser("key.npz", _histogram_samples, _histograms),
    "batch plan": Parser(plan.NAME, _plan_samples, _read_plan),
    "batch part": Parser("part-00000.parquet", _part_samples, _read_plan),
    "batch source": Parser("source.parquet", _parquet_samples, _read_parquet),
    "torch zip": Parser("w.pth", _torch_samples, _weights),
    "torch legacy": Parser("w.pth", _legacy_samples, _weights),
    "safetensors": Parser("w.safetensors", _safetensors_samples, _weights),
    "numpy archive": Parser("w.npz", _numpy_samples, _weights),
    "hdf5": Parser("w.h5", _hdf5_samples, _weights),
    "tensorflow index": Parser("ckpt.index", _bundle_of_tensors, _weights),
    "tensorflow newest": Parser("checkpoint", _newest_samples, lambda path: _weights(path.parent)),
    **{
        f"picture {form}": Parser(f"picture.{form.lower()}", _pictures(form), _read_picture)
        for form in ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP", "TIFF", "JPEG2000", "AVIF")
    },
}
