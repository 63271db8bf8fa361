"""Write checkpoints of other projects: turn our names into theirs and write their containers.

The package turns their names into ours. The code here is independent of it: it builds each
project's names from the structure of the project's network, as the project's own code does.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import TYPE_CHECKING

import google_crc32c
import numpy as np

from effdet_deploy.pytorch.network import EfficientDet, get_config

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[np.float32]]


def state_of(variant: str, num_classes: int, **overrides: object) -> Arrays:
    """Return our state dict; its values are small and depend on their names."""
    import torch

    with torch.device("meta"):
        model = EfficientDet(get_config(variant).replace({"num_classes": num_classes, **overrides}))
    return {
        name: drawn(name, tuple(value.shape))
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def drawn(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    values = random.standard_normal(shape)
    if name.endswith("running_var"):
        return (1 + 0.1 * np.abs(values)).astype(np.float32)
    if len(shape) == 4:
        # Larger than Kaiming's values, so that an error in any layer reaches the heads.
        return (1.25 * values / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    gain = name.endswith((".weight", "edge_weights"))
    return (gain + 0.1 * values).astype(np.float32)


def _blocks(names: Mapping[str, object]) -> dict[str, int]:
    """Number the backbone's blocks from 0, without starting over at a new stage."""
    places = {re.match(r"backbone\.blocks\.(\d+)\.(\d+)", each) for each in names}
    found = sorted((int(each[1]), int(each[2])) for each in places if each)
    unique = list(dict.fromkeys(found))
    return {f"{stage}.{block}": index for index, (stage, block) in enumerate(unique)}


def _nodes(names: Mapping[str, object]) -> int:
    return len({each.split(".")[4] for each in names if each.startswith("fpn.cell.0.fnode.")})


def _levels(node: int, nodes: int) -> tuple[int, str]:
    """Return a BiFPN node's level, and whether it is on the way down (to finer levels) or up."""
    half = nodes // 2
    top = 3 + half
    return (top - 1 - node, "down") if node < half else (4 + node - half, "up")


# --- zylo117 ---------------------------------------------------------------------------------


def zylo117(state: Arrays) -> Arrays:
    blocks, nodes = _blocks(state), _nodes(state)
    return {_zylo117(name, blocks, nodes): value for name, value in state.items()}


def _zylo117(name: str, blocks: dict[str, int], nodes: int) -> str:
    layer, _, leaf = name.rpartition(".")
    if match := re.fullmatch(r"backbone\.blocks\.((\d+)\.\d+)\.(.+)", layer):
        first = {"conv_dw": "_depthwise_conv.conv", "bn1": "_bn1", "conv_pw": "_project_conv.conv"}
        first |= {"bn2": "_bn2"}
        later = {"conv_pw": "_expand_conv.conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv.conv"}
        later |= {"bn2": "_bn1", "conv_pwl": "_project_conv.conv", "bn3": "_bn2"}
        squeeze = {"se.conv_reduce": "_se_reduce.conv", "se.conv_expand": "_se_expand.conv"}
        theirs = (squeeze | (first if match[2] == "0" else later))[match[3]]
        return f"backbone_net.model._blocks.{blocks[match[1]]}.{theirs}.{leaf}"
    if layer.startswith("backbone."):
        theirs = {"conv_stem": "_conv_stem.conv", "bn1": "_bn0"}[layer.removeprefix("backbone.")]
        return f"backbone_net.model.{theirs}.{leaf}"
    part = {"conv.conv": "0.conv", "conv.bn": "1"}
    if match := re.fullmatch(r"fpn\.resample\.3\.(.+)", layer):
        return f"bifpn.0.p5_to_p6.{part[match[1]]}.{leaf}"
    if match := re.fullmatch(r"fpn\.cell\.(\d+)\.fnode\.(\d+)\.(.+)", name):
        level, way = _levels(int(match[2]), nodes)
        cell = f"bifpn.{match[1]}"
        if match[3] == "combine.edge_weights":
            return f"{cell}.p{level}_w{1 if way == 'down' else 2}"
        if inner := re.fullmatch(r"combine\.resample\.\d\.(conv\.\w+)\.(\w+)", match[3]):
            again = "" if way == "down" else "_2"
            return f"{cell}.p{level}_down_channel{again}.{part[inner[1]]}.{inner[2]}"
        inner = re.fullmatch(r"after_combine\.conv\.(\w+)\.(\w+)", match[3])
        layers = {"conv_dw": "depthwise_conv.conv", "conv_pw": "pointwise_conv.conv", "bn": "bn"}
        sign = "up" if way == "down" else "down"  # named by resampling: up on the way down
        return f"{cell}.conv{level}_{sign}.{layers[inner[1]]}.{inner[2]}"
    head, _, rest = layer.partition(".")
    theirs = {"box_net": "regressor", "class_net": "classifier"}[head]
    if match := re.fullmatch(r"bn_rep\.(\d+)\.(\d+)\.bn", rest):
        return f"{theirs}.bn_list.{match[2]}.{match[1]}.{leaf}"
    place, kind = rest.rsplit(".", 1)
    place = place.replace("conv_rep", "conv_list").replace("predict", "header")
    return f"{theirs}.{place}.{'depth' if kind == 'conv_dw' else 'point'}wise_conv.conv.{leaf}"


# --- TensorFlow ------------------------------------------------------------------------------

_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean"}
_NORM |= {"running_var": "moving_variance"}


def _kernel(value: NDArray[np.float32], *, depthwise: bool) -> NDArray[np.float32]:
    return value.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))


def automl(state: Arrays, backbone: str = "efficientnet-b0") -> Arrays:
    blocks = _blocks(state)
    found: Arrays = {}
    for name, value in state.items():
        layer, _, leaf = name.rpartition(".")
        is_norm = bool(re.search(r"(^|\.)bn\d?$", layer))
        theirs, leaves = _automl(layer, blocks, backbone), [_NORM[leaf] if is_norm else ""]
        if leaf == "edge_weights":
            for index, weight in enumerate(value):
                found[f"{theirs}/WSM{f'_{index}' if index else ''}"] = weight
            continue
        if not is_norm:
            separable = layer.startswith(("box_net", "class_net")) or "after_combine" in layer
            depthwise = layer.endswith("conv_dw")
            point = "pointwise_kernel" if separable else "kernel"
            leaves = ["bias" if leaf == "bias" else "depthwise_kernel" if depthwise else point]
            if leaf == "weight":
                value = _kernel(value, depthwise=depthwise)  # noqa: PLW2901
        found[f"{theirs}/{leaves[0]}"] = value
    return found


def _automl(layer: str, blocks: dict[str, int], backbone: str) -> str:
    if match := re.fullmatch(r"backbone\.blocks\.(\d+\.\d+)\.(.+)", layer):
        norms = {"bn1": "", "bn2": "_1", "bn3": "_2"}
        layers = {"conv_pw": "conv2d", "conv_pwl": "conv2d_1", "conv_dw": "depthwise_conv2d"}
        layers |= {"se.conv_reduce": "se/conv2d", "se.conv_expand": "se/conv2d_1"}
        layers |= {bn: f"tpu_batch_normalization{end}" for bn, end in norms.items()}
        return f"{backbone}/blocks_{blocks[match[1]]}/{layers[match[2]]}"
    if layer.startswith("backbone."):
        norm = layer == "backbone.bn1"
        return f"{backbone}/stem/{'tpu_batch_normalization' if norm else 'conv2d'}"
    part = {"conv": "conv2d", "bn": "bn"}
    if match := re.fullmatch(r"fpn\.resample\.(\d)\.conv\.(\w+)", layer):
        return f"resample_p{int(match[1]) + 3}/{part[match[2]]}"
    if match := re.fullmatch(r"fpn\.cell\.(\d+)\.fnode\.(\d+)\.(.+)", layer):
        node = f"fpn_cells/cell_{match[1]}/fnode{match[2]}"
        number = int(match[2]) + 5
        if inner := re.fullmatch(r"combine\.resample\.(\d)\.conv\.(\w+)", match[3]):
            return f"{node}/resample_0_{inner[1]}_{number}/{part[inner[2]]}"
        if match[3] == "combine":
            return node
        kind = "bn" if match[3].endswith(".bn") else "conv"
        return f"{node}/op_after_combine{number}/{kind}"
    match = re.fullmatch(
        r"(class|box)_net\.(?:conv_rep\.(\d+)|(predict)|bn_rep\.(\d+)\.(\d+))\..*", layer
    )
    head = f"{match[1]}_net/{match[1]}"
    if match[4]:
        return f"{head}-{match[4]}-bn-{int(match[5]) + 3}"
    return f"{head}-{match[2] or match[3]}"


def object_detection(state: Arrays, variant: str = "D0") -> Arrays:
    nodes = _nodes(state)
    found: Arrays = {}
    for name, value in state.items():
        layer, _, leaf = name.rpartition(".")
        theirs = _object_detection(layer, nodes, variant)
        if leaf == "edge_weights":
            found[f"{theirs}/combine/bifpn_combine_weights"] = value.reshape(-1, 1)
            continue
        if re.search(r"(^|\.)bn\d?$", layer):
            found[f"{theirs}/{_NORM[leaf]}"] = value
            continue
        if ".predict.conv_pw" in name:
            # Aspect ratios are the outer axis, octave scales the inner one.
            grouped = value.reshape(3, 3, -1, *value.shape[1:])
            value = grouped.swapaxes(0, 1).reshape(value.shape)  # noqa: PLW2901
        depthwise = layer.endswith("conv_dw")
        separable = layer.startswith(("box_net", "class_net")) or "after_combine" in layer
        point = "pointwise_kernel" if separable else "kernel"
        kind = "bias" if leaf == "bias" else "depthwise_kernel" if depthwise else point
        found[f"{theirs}/{kind}"] = value if leaf == "bias" else _kernel(value, depthwise=depthwise)
    return found


def _object_detection(layer: str, nodes: int, variant: str) -> str:
    if match := re.fullmatch(r"backbone\.blocks\.(\d+)\.(\d+)\.(.+)", layer):
        layers = {"se.conv_reduce": "se_reduce_conv2d", "se.conv_expand": "se_expand_conv2d"}
        layers["conv_dw"] = "depthwise_conv2d"
        if match[1] == "0":
            layers |= {"bn1": "depthwise_bn", "conv_pw": "project_conv2d", "bn2": "project_bn"}
        else:
            layers |= {"conv_pw": "expand_conv2d", "bn1": "expand_bn", "bn2": "depthwise_bn"}
            layers |= {"conv_pwl": "project_conv2d", "bn3": "project_bn"}
        return f"stack_{match[1]}/block_{match[2]}/{layers[match[3]]}"
    if layer.startswith("backbone."):
        return {"backbone.conv_stem": "stem_conv2d", "backbone.bn1": "stem_bn"}[layer]
    part = {"conv": "conv", "bn": "batchnorm"}
    pyramid = f"EfficientDet-{variant}/bifpn"
    if match := re.fullmatch(r"fpn\.resample\.3\.conv\.(\w+)", layer):
        return f"{pyramid}/node_00/0_up_lvl_6/input_0_up_lvl_5/1x1_pre_sample/{part[match[1]]}"
    if match := re.fullmatch(r"fpn\.cell\.(\d+)\.fnode\.(\d+)\.(.+)", layer):
        cell, node = int(match[1]), int(match[2])
        level, way = _levels(node, nodes)
        place = f"{pyramid}/node_{2 + cell * nodes + node:02d}/{cell + 1}_"
        place += f"{'dn' if way == 'down' else 'up'}_lvl_{level}"
        if inner := re.fullmatch(r"combine\.resample\.(\d)\.conv\.(\w+)", match[3]):
            source = f"input_0_up_lvl_{int(inner[1]) + 3}"
            return f"{place}/{source}/1x1_pre_sample/{part[inner[2]]}"
        if match[3] == "combine":
            return place
        kind = "batchnorm" if match[3].endswith(".bn") else "separable_conv"
        return f"{place}/post_combine/{kind}"
    match = re.fullmatch(
        r"(class|box)_net\.(?:conv_rep\.(\d+)|(predict)|bn_rep\.(\d+)\.(\d+))\..*", layer
    )
    head = match[1].capitalize()
    predictor = "WeightSharedConvolutionalBoxPredictor"
    if match[3]:
        return f"{predictor}/WeightSharedConvolutional{head}Head/{head}Predictor"
    tower = f"{predictor}/{head}PredictionTower/conv2d_{match[2] or match[4]}"
    return f"{tower}/BatchNorm/feature_{match[5]}" if match[4] else tower


FORMS: dict[str, Callable[[Arrays], Arrays]] = {
    "zylo117": zylo117,
    "automl": automl,
    "tf-object-detection": object_detection,
}


# --- the container ---------------------------------------------------------------------------


def write_tensorbundle(
    prefix: Path,
    tensors: Arrays,
    names: Mapping[str, str] | None = None,
    *,
    header_end: bytes = b"",
    entry_end: bytes = b"",
) -> None:
    """Write a TensorFlow checkpoint; with ``names``, an object-based one.

    ``names`` gives the variable's name for each key of ``tensors``. ``header_end`` and
    ``entry_end`` are protobuf fields to add to the header and to each tensor's entry.
    """
    data = bytearray()
    entries = {b"": b"\x08\x01\x1a\x02\x08\x01" + header_end}
    for key in sorted(tensors):
        value = np.asarray(tensors[key], np.float32)
        entries[key.encode()] = _entry(1, value.shape, len(data), value.tobytes()) + entry_end
        data += value.tobytes()
    if names is not None:
        graph = b"".join(
            _field(1, _field(2, _field(1, b"VARIABLE_VALUE") + _field(2, name.encode())
                             + _field(3, key.encode())))
            for key, name in names.items()
        )  # fmt: skip
        lengths = _varint(len(graph))
        content = lengths + struct.pack("<I", _masked(struct.pack("<I", len(graph)))) + graph
        entries[b"_CHECKPOINTABLE_OBJECT_GRAPH"] = _entry(7, (), len(data), content)
        data += content
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
    prefix.with_name(f"{prefix.name}.index").write_bytes(_table(entries))


def _entry(dtype: int, shape: tuple[int, ...], offset: int, content: bytes) -> bytes:
    sides = b"".join(_field(2, b"\x08" + _varint(side)) for side in shape)
    return (
        b"\x08" + _varint(dtype) + _field(2, sides) + b"\x20" + _varint(offset)
        + b"\x28" + _varint(len(content)) + b"\x35" + struct.pack("<I", _masked(content))
    )  # fmt: skip


def _table(entries: Mapping[bytes, bytes], per_block: int = 50) -> bytes:
    """Return a LevelDB table: blocks whose keys share beginnings, an index of blocks, a footer."""
    out, index = bytearray(), []
    items = sorted(entries.items())
    for start in range(0, len(items), per_block):
        block = items[start : start + per_block]
        handle = _add(out, _block(block))
        index.append((block[-1][0], handle))
    meta = _add(out, _block([]))
    footer = meta + _add(out, _block(index))
    return bytes(out) + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def _add(out: bytearray, block: bytes) -> bytes:
    handle = _varint(len(out)) + _varint(len(block))
    out += block + b"\0" + struct.pack("<I", _masked(block + b"\0"))
    return handle


def _block(items: list[tuple[bytes, bytes]]) -> bytes:
    out, last = bytearray(), b""
    for key, value in items:
        shared = next(
            (n for n, (a, b) in enumerate(zip(last, key, strict=False)) if a != b),
            min(len(last), len(key)),
        )
        out += _varint(shared) + _varint(len(key) - shared) + _varint(len(value))
        out += key[shared:] + value
        last = key
    return bytes(out) + struct.pack("<II", 0, 1)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _masked(content: bytes) -> int:
    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
