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
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "damaged"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(64), "TensorFlow Lite"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>Not found</html>", "web page"),
        (pickle.dumps({"a": 1}), "pickle that torch did not write"),
        (b"just some text, nothing to load", "neither a torch nor a safetensors file"),
        (b"\x00" * 8, "neither"),
        (b"PK\x03\x04" + bytes(40), "damaged"),
    ],
)
def test_the_error_says_what_the_file_is_instead(tmp_path, content, words):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert words in refusal(path).cause


@pytest.mark.parametrize("name", ["model.ckpt-1.data-00000-of-00001", "model.ckpt-1", ""])
def test_the_parts_of_a_tensorflow_checkpoint_are_recognized(tmp_path, name):
    (tmp_path / "model.ckpt-1.index").write_bytes(bytes(64) + LEVELDB_TAIL)
    (tmp_path / "model.ckpt-1.data-00000-of-00001").write_bytes(bytes(64))
    assert "The TensorFlow checkpoint 'model.ckpt-1' is damaged" in refusal(tmp_path / name).cause


@pytest.mark.parametrize("inside", ["saved_model.pb", "x"])
def test_directories_without_a_checkpoint_are_recognized(tmp_path, inside):
    (tmp_path / inside).touch()
    assert "directory" in refusal(tmp_path).cause


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.etlt", "NVIDIA TAO"),
        ("frozen_graph.pb", "frozen graph of TensorFlow"),
        ("model.keras", "Keras 3"),
    ],
)
def test_files_of_other_frameworks_are_recognized_by_their_suffix(tmp_path, name, words):
    (tmp_path / name).write_bytes(bytes(64))
    assert words in refusal(tmp_path / name).cause


def test_an_absent_file_is_reported_as_absent(tmp_path):
    assert "There is no weights file" in refusal(tmp_path / "absent.pth").cause


@pytest.mark.parametrize(
    ("member", "words"),
    [
        ("model.weights.h5", "Keras"),
        ("archive/code/__torch__.py", "TorchScript"),
        ("notes.txt", "zip archive without torch weights"),
    ],
)
def test_kinds_of_zip_archives_are_distinguished(tmp_path, member, words):
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, "content")
    assert words in refusal(path).cause


def test_a_real_torchscript_archive_is_not_taken_for_a_checkpoint(tmp_path):
    torch.jit.script(nn.ReLU()).save(tmp_path / "model.pth")
    assert "TorchScript" in refusal(tmp_path / "model.pth").cause


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("regressor.layers.0.weight", "signatrix"),
        ("bbox_head.cls_convs.0.weight", "MMDetection"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_other_networks_are_recognized_by_their_names(tmp_path, key, words, prefix):
    torch.save({prefix + key: torch.ones(1)}, tmp_path / "weights.pth")
    assert words in refusal(tmp_path / "weights.pth").cause


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_after_any_known_beginning_are_refused(tmp_path, seed):
    random = np.random.default_rng(seed)
    beginnings = (b"", b"PK\x03\x04", b"\x80\x02", b"\x40\x00\x00\x00\x00\x00\x00\x00{")
    path = tmp_path / "weights"
    path.write_bytes(beginnings[seed % len(beginnings)] + random.bytes(4096))
    refusal(path)
