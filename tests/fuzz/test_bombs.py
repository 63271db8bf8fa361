"""Small files with which a parser that trusts them would use much memory or time."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import torch

from tests.fuzz.parsers import PARSERS, STATE
from tests.fuzz.test_files import judge, limited
from tests.pytorch.weights.origins.forms import _entry, _table
from tests.pytorch.weights.test_hostile_pickles import write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MEMORY = 256 << 20
BILLION = 1_000_000_000


def laughs(last: str) -> str:
    """Nine levels of YAML aliases, each a list of ten of the level below; ``last`` uses the top."""
    lines = ["l0: &l0 [x, x]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10)]
    return "\n".join((*lines, last.format(bomb="*l9"), ""))


def to_memo(place: int) -> bytes:
    return b"r" + place.to_bytes(4, "little")


def from_memo(place: int) -> bytes:
    return b"j" + place.to_bytes(4, "little")


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def modules_within_modules() -> bytes:
    """Sixty modules, each holding the one before it twice."""
    out = b"\x80\x02"
    for level in range(60):
        inside = text("a") + from_memo(level) + text("b") + from_memo(level) if level else b""
        table = b"}(" + inside + b"u" if inside else b"}"
        state = b"}(" + text("_parameters") + b"}" + text("_buffers") + b"}"
        state += text("_modules") + table + b"u"
        out += b"ctorch.nn\nModule\n)R" + state + b"b" + to_memo(level + 1)
    return out + b"."


def objects_with_one_table() -> bytes:
    """Thousands of objects that share one table of thousands of entries."""
    table = b"}(" + b"".join(text(f"k{n}") + b"]" for n in range(2_000)) + b"u" + to_memo(0)
    many = b"".join(b"ca\nB\n)R" + from_memo(0) + b"b" for _ in range(2_000))
    return b"\x80\x02" + table + b"0](" + many + b"e."


def lists_of_one_list() -> bytes:
    """Arguments whose value is a list that holds one list 64 times, four levels deep."""
    out = b"\x80\x02](" + b"K\x01" * 64 + b"e" + to_memo(0) + b"0"
    for level in range(3):
        out += b"](" + from_memo(level) * 64 + b"e" + to_memo(level + 1) + b"0"
    fields = ("mean", "std", "image_size", "aspect_ratios", "octave_scales", "fill_color")
    arguments = b"}(" + b"".join(text(each) + from_memo(3) for each in fields) + b"u"
    return out + b"}(" + text("args") + arguments + b"u."


def networks_beside_one_another() -> bytes:
    names = b"".join(text(f"n{n}.class_net.predict.conv_pw.bias") + tensor() for n in range(2_000))
    return b"\x80\x02}(" + names + b"u."


def tensor() -> bytes:
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
    storage += b"K\x01tQ"
    shape = b"K\x00K\x01\x85K\x01\x85"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + shape + b"\x89}tR"


def long_keys() -> bytes:
    """A list of thirty thousand objects under a key of a megabyte."""
    many = b"".join(b"]" for _ in range(30_000))
    return b"\x80\x02}(" + text("a" * (1 << 20)) + b"](" + many + b"eu."


def pickled(content: bytes) -> Callable[[Path], None]:
    return lambda path: write(path, content, **{"data/0": bytes(4)})


def written(content: str | bytes) -> Callable[[Path], None]:
    data = content.encode() if isinstance(content, str) else content

    def write_to(path: Path) -> None:
        path.write_bytes(data)

    return write_to


def config(**fields: object) -> Callable[[Path], None]:
    return written(json.dumps(fields))


def zeros(path: Path) -> None:
    """192 megabytes of zeros, compressed to a few hundred kilobytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f4", "fortran_order": False, "shape": (48 << 20,)}
        )
        with archive.open("a.npy", "w", force_zip64=True) as stream:
            stream.write(header.getvalue())
            for _ in range(192):
                stream.write(bytes(1 << 20))


def never_written(path: Path) -> None:
    """A dataset of many gigabytes, of which nothing was written."""
    with h5py.File(path, "w") as file:
        for key in STATE:
            file.create_dataset(key.replace(".", "/"), (1 << 30,), "f4")


def one_place_many_names(path: Path) -> None:
    """A thousand tensors that lie in one place of the file."""
    content = bytes(1 << 20)
    entries = {b"": b"\x08\x01\x1a\x02\x08\x01"}
    entries |= {f"t{n}".encode(): _entry(1, (1 << 18,), 0, content) for n in range(1000)}
    path.write_bytes(_table(entries))
    path.with_name("ckpt.data-00000-of-00001").write_bytes(content)


def one_half_many_names(path: Path) -> None:
    """A thousand FP16 tensors that share their bytes; in float32, every tensor has its own."""
    half = torch.zeros(1 << 20, dtype=torch.float16)
    torch.save({f"class_net.predict.l{n}.weight": half for n in range(1000)}, path)


def anchors(boxes: torch.Tensor) -> Callable[[Path], None]:
    bench = {f"model.{key}": value for key, value in STATE.items()} | {"anchors.boxes": boxes}
    return lambda path: torch.save(bench, path)


def annotations(file_name: str) -> bytes:
    document = {"images": [{"id": 1, "file_name": file_name}], "annotations": [], "categories": []}
    return json.dumps(document).encode()


FAR = torch.tensor([[1e9, 1e9, 2e9, 2e9]]).repeat(9, 1)
BOMBS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "aliases in labels": ("labels yaml", written(laughs("names: [a]\nnc: {bomb}"))),
    "aliases in settings": ("hparams.yaml", written(laughs("num_classes: {bomb}"))),
    "aliases in thresholds": ("thresholds yaml", written(laughs("a: {bomb}"))),
    "an alias of itself": ("thresholds yaml", written("a: &a [*a]")),
    "a billion names": (
        "hparams.yaml",
        written(f"num_classes: {BILLION}\nlabel_map: {{1: a}}"),
    ),
    "an infinite fill": (
        "pipeline.config",
        written(
            "model { ssd { image_resizer { keep_aspect_ratio_resizer { per_channel_pad_value: inf }"
            " } anchor_generator { multiscale_anchor_generator { aspect_ratios: [1, 2, 0.5]"
            " scales_per_octave: 3 } } box_coder { faster_rcnn_box_coder { y_scale: 1 x_scale: 1"
            " height_scale: 1 width_scale: 1 } } } }"
        ),
    ),
    "a billion channels": ("config", config(in_chans=BILLION, mean=0.5)),
    "channels as a float": ("config", config(in_chans=3.0, mean=0.5)),
    "a mean of NaN": ("config", config(mean=float("nan"))),
    "an infinite mean": ("config", config(mean=float("inf"))),
    "a huge scale": ("config", config(anchor_scale=10**400)),
    "a scale of NaN": ("config", config(anchor_scale=float("nan"))),
    "a path of 200,000 folders": ("coco", written(annotations("a/" * 200_000 + "b.png"))),
    "a deeply nested journal": ("search journal", written('{"a":' * 20_000)),
    "a deeply nested note": ("timing cache note", written('{"origin":' * 20_000)),
    "a huge threshold": ("thresholds json", written(json.dumps({"a": 10**400}))),
    "modules within modules": ("torch zip", pickled(modules_within_modules())),
    "objects that share a table": ("torch zip", pickled(objects_with_one_table())),
    "lists of one list": ("torch zip", pickled(lists_of_one_list())),
    "networks side by side": ("torch zip", pickled(networks_beside_one_another())),
    "long keys": ("torch zip", pickled(long_keys())),
    "one FP16 tensor, many names": ("torch zip", one_half_many_names),
    "anchors far away": ("torch zip", anchors(FAR)),
    "anchors near the largest float32": ("torch zip", anchors(torch.full((9, 4), 3e38))),
    "anchors of size zero": ("torch zip", anchors(torch.zeros(9, 4))),
    "zeros": ("numpy archive", zeros),
    "a dataset that was never written": ("hdf5", never_written),
    "one place, many names": ("tensorflow index", one_place_many_names),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_takes_little_memory_and_time(bomb, tmp_path):
    name, write_to = BOMBS[bomb]
    path = tmp_path / PARSERS[name].file
    write_to(path)
    with limited(MEMORY):
        judge(PARSERS[name], path, bomb)
