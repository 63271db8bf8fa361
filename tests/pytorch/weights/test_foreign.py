from __future__ import annotations

import pickle
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from effdet_deploy.errors import WeightsError
from effdet_deploy.pytorch.weights.checkpoint import read_checkpoint

LEVELDB_TAIL = bytes.fromhex("57fb808b247547db")
ZYLO117_KEYS = (
    "backbone_net.model._conv_stem.conv.weight",
    "bifpn.0.conv6_up.depthwise_conv.conv.weight",
    "regressor.header.pointwise_conv.conv.weight",
)
TENSORFLOW_KEYS = (
    "efficientnet-b0/blocks_0/conv2d/kernel",
    "fpn_cells/cell_0/fnode0/op_after_combine5/conv/pointwise_kernel",
    "resample_p6/conv2d/kernel",
    "box_net/box-predict/bias",
)


def refusal(path) -> WeightsError:
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(path)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "Keras or HDF5"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(64), "TensorFlow Lite"),
        (bytes(64) + LEVELDB_TAIL, "TensorFlow"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>Not found</html>", "web page"),
        (pickle.dumps({"a": 1}), "pickle that torch did not write"),
        (b"just some text, nothing to load", "neither a torch nor a safetensors file"),
        (b"\x00" * 8, "neither"),
        (b"PK\x03\x04" + bytes(40), "damaged"),
    ],
)
def test_what_a_file_is_instead_is_said(tmp_path, content, words):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert words in refusal(path).cause


@pytest.mark.parametrize("name", ["model.ckpt-1.data-00000-of-00001", "model.ckpt-1"])
def test_the_parts_of_a_tensorflow_checkpoint_are_recognised(tmp_path, name):
    (tmp_path / "model.ckpt-1.index").write_bytes(bytes(64) + LEVELDB_TAIL)
    (tmp_path / "model.ckpt-1.data-00000-of-00001").write_bytes(bytes(64))
    error = refusal(tmp_path / name)
    assert "TensorFlow checkpoint" in error.cause
    assert "Convert it" in error.remedy


@pytest.mark.parametrize(
    ("inside", "words"),
    [("saved_model.pb", "SavedModel"), ("model.ckpt-1.index", "TensorFlow"), ("x", "directory")],
)
def test_directories_are_recognised(tmp_path, inside, words):
    (tmp_path / inside).touch()
    assert words in refusal(tmp_path).cause


def test_an_absent_file_is_said_to_be_absent(tmp_path):
    assert "There is no weights file" in refusal(tmp_path / "absent.pth").cause


@pytest.mark.parametrize(
    ("member", "words"),
    [
        ("model.weights.h5", "Keras"),
        ("archive/code/__torch__.py", "TorchScript"),
        ("notes.txt", "zip archive without torch weights"),
    ],
)
def test_zip_archives_are_told_apart(tmp_path, member, words):
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, "content")
    assert words in refusal(path).cause


def test_a_real_torchscript_archive_is_no_checkpoint(tmp_path):
    torch.jit.script(nn.ReLU()).save(tmp_path / "model.pth")
    assert "TorchScript" in refusal(tmp_path / "model.pth").cause


@pytest.mark.parametrize("key", ZYLO117_KEYS)
@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_zylo117_s_checkpoints_are_recognised_by_their_names(tmp_path, key, prefix):
    torch.save({prefix + key: torch.ones(1)}, tmp_path / "efficientdet-d0.pth")
    error = refusal(tmp_path / "efficientdet-d0.pth")
    assert "zylo117" in error.cause
    assert "effdet" in error.remedy


@pytest.mark.parametrize("key", TENSORFLOW_KEYS)
def test_tensorflow_s_weights_in_another_container_are_recognised(tmp_path, key):
    torch.save({key: torch.ones(1)}, tmp_path / "converted.pth")
    assert "TensorFlow" in refusal(tmp_path / "converted.pth").cause


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_after_any_known_beginning_are_refused(tmp_path, seed):
    random = np.random.default_rng(seed)
    beginnings = (b"", b"PK\x03\x04", b"\x80\x02", b"\x40\x00\x00\x00\x00\x00\x00\x00{")
    path = tmp_path / "weights"
    path.write_bytes(beginnings[seed % len(beginnings)] + random.bytes(4096))
    refusal(path)
