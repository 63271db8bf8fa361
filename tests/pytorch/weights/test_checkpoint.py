from __future__ import annotations

import argparse
import collections
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from timm.utils import CheckpointSaver
from torch import nn

from effdet_deploy.errors import WeightsError
from effdet_deploy.pytorch.weights.checkpoint import (
    CheckpointMetadata,
    read_checkpoint,
    state_dict_sha256,
)

WEIGHTS = {
    "fpn.cell.0.weight": torch.arange(6.0).reshape(2, 3) / 7,
    "box_net.predict.conv.bias": torch.tensor([0.25]),
    "backbone.bn1.num_batches_tracked": torch.tensor(4),
}
AVERAGED = {key: value + 1 for key, value in WEIGHTS.items()}


def save_legacy(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)


CONTAINERS = {
    "torch zip": torch.save,
    "torch legacy": save_legacy,
    "safetensors": save_file,
}


def assert_weights(found, expected=WEIGHTS):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin", ""])
@pytest.mark.parametrize("container", CONTAINERS)
def test_containers_are_recognized_by_content_whatever_the_suffix(tmp_path, container, suffix):
    path = tmp_path / f"weights{suffix}"
    CONTAINERS[container](WEIGHTS, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.container == container
    assert checkpoint.nested_under == ""
    assert checkpoint.name == path.name
    assert_weights(checkpoint.state_dict)


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_hash_of_the_weights_is_the_same_for_every_container(tmp_path, container):
    path = tmp_path / "weights"
    CONTAINERS[container](dict(reversed(WEIGHTS.items())), path)
    assert state_dict_sha256(read_checkpoint(path).state_dict) == state_dict_sha256(WEIGHTS)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state | {"box_net.predict.conv.bias": torch.tensor([0.26])},
        lambda state: state | {"box_net.predict.conv.bias": torch.tensor([[0.25]])},
        lambda state: state | {"box_net.predict.conv.bias": torch.tensor([0.25]).double()},
        lambda state: {f"x{key}": value for key, value in state.items()},
    ],
)
def test_the_hash_changes_with_value_shape_type_and_name(change):
    assert state_dict_sha256(change(WEIGHTS)) != state_dict_sha256(WEIGHTS)


def test_the_hash_ignores_the_training_counter():
    without = {key: value for key, value in WEIGHTS.items() if "num_batches" not in key}
    assert state_dict_sha256(without) == state_dict_sha256(WEIGHTS)


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "module.model.", "model.module.", "_orig_mod.model."]
)
def test_prefixes_of_wrappers_and_the_anchors_of_benches_are_dropped(tmp_path, prefix):
    state = {prefix + key: value for key, value in WEIGHTS.items()}
    outer = prefix.removesuffix("model.")
    torch.save(state | {f"{outer}anchors.boxes": torch.zeros(4, 4)}, tmp_path / "bench.pth")
    assert_weights(read_checkpoint(tmp_path / "bench.pth").state_dict)


def test_a_prefix_that_only_some_names_have_is_kept(tmp_path):
    state = {"model.weight": torch.ones(1), "head.weight": torch.ones(1)}
    torch.save(state, tmp_path / "weights.pth")
    assert_weights(read_checkpoint(tmp_path / "weights.pth").state_dict, state)


@pytest.mark.parametrize(
    ("entries", "nested_under", "expected"),
    [
        ({"state_dict": WEIGHTS}, "state_dict", WEIGHTS),
        ({"model_state_dict": WEIGHTS, "epoch": 3}, "model_state_dict", WEIGHTS),
        ({"state_dict": WEIGHTS, "state_dict_ema": AVERAGED}, "state_dict_ema", AVERAGED),
        ({"state_dict": WEIGHTS, "state_dict_ema": None}, "state_dict", WEIGHTS),
        ({"state_dict": collections.OrderedDict(WEIGHTS)}, "state_dict", WEIGHTS),
    ],
)
def test_training_checkpoints_are_unwrapped_and_averaged_weights_come_first(
    tmp_path, entries, nested_under, expected
):
    torch.save(entries, tmp_path / "last.pth.tar")
    checkpoint = read_checkpoint(tmp_path / "last.pth.tar")
    assert checkpoint.nested_under == nested_under
    assert_weights(checkpoint.state_dict, expected)


@pytest.mark.parametrize("ema", [False, True])
def test_a_checkpoint_of_timm_s_saver_with_its_arguments_and_metric_loads(tmp_path, ema):
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    averaged = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    arguments = argparse.Namespace(
        model="tf_efficientdet_d0", lr=0.1, mean=None, betas=(0.9, 0.99), opt_kwargs={"eps": 1e-8}
    )
    saver = CheckpointSaver(
        model,
        torch.optim.AdamW(model.parameters()),
        args=arguments,
        model_ema=averaged if ema else None,
        checkpoint_dir=tmp_path,
        recovery_dir=tmp_path,
    )
    saver.save_checkpoint(epoch=1, metric=np.float64(0.71))
    checkpoint = read_checkpoint(tmp_path / "last.pth.tar")
    assert checkpoint.nested_under == ("state_dict_ema" if ema else "state_dict")
    assert_weights(checkpoint.state_dict, (averaged if ema else model).state_dict())


@pytest.mark.parametrize(
    "value", [np.float32(0.5), np.float64(0.5), np.int64(3), np.bool_(True), np.float16(1)]
)
@pytest.mark.parametrize("save", [torch.save, save_legacy])
def test_numpy_scalars_beside_the_weights_are_no_obstacle(tmp_path, save, value):
    save({"state_dict": WEIGHTS, "metric": value}, tmp_path / "weights.pth")
    assert_weights(read_checkpoint(tmp_path / "weights.pth").state_dict)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_float_becomes_float32_and_counters_stay_whole(tmp_path, container, dtype):
    path = tmp_path / "weights"
    CONTAINERS[container]({"a": torch.tensor([0.5, 2.0], dtype=dtype), "n": torch.tensor(3)}, path)
    state = read_checkpoint(path).state_dict
    assert torch.equal(state["a"], torch.tensor([0.5, 2.0]))
    assert (state["a"].dtype, state["n"].dtype) == (torch.float32, torch.int64)


def test_metadata_of_safetensors_is_read(tmp_path):
    written = {
        "variant": "d0",
        "labels": json.dumps(["zero", "één"]),
        "category_ids": "[1, 7]",
        "image_size": "256x320",
        "format": "pt",
    }
    save_file(WEIGHTS, tmp_path / "digits.safetensors", metadata=written)
    assert read_checkpoint(tmp_path / "digits.safetensors").metadata == CheckpointMetadata(
        variant="d0", labels=("zero", "één"), category_ids=(1, 7), image_size=(256, 320)
    )


def test_without_metadata_nothing_is_claimed(tmp_path):
    save_file(WEIGHTS, tmp_path / "plain.safetensors")
    assert read_checkpoint(tmp_path / "plain.safetensors").metadata == CheckpointMetadata()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("labels", "zero,one"),
        ("labels", '{"0": "zero"}'),
        ("labels", "[1, 2]"),
        ("category_ids", '["1"]'),
        ("category_ids", "[true]"),
        ("image_size", "256"),
        ("image_size", "256x"),
        ("image_size", "-1x256"),
    ],
)
def test_metadata_in_another_form_is_refused_and_named(tmp_path, key, value):
    save_file(WEIGHTS, tmp_path / "odd.safetensors", metadata={key: value})
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(tmp_path / "odd.safetensors")
    assert key in caught.value.cause
    assert value in caught.value.cause


@pytest.mark.parametrize(
    "loaded", [{}, {"epoch": 3, "loss": 0.1}, [1, 2], torch.zeros(3), {"state_dict": {"a": 1}}]
)
def test_a_file_without_weights_says_what_was_found(tmp_path, loaded):
    torch.save(loaded, tmp_path / "empty.pth")
    with pytest.raises(WeightsError, match=r"holds no weights\. It holds") as caught:
        read_checkpoint(tmp_path / "empty.pth")
    assert caught.value.remedy


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_truncated_file_is_refused(tmp_path, container, share):
    path = tmp_path / "weights"
    CONTAINERS[container]({"a": torch.randn(64, 64)}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_legacy_file_is_refused_wherever_it_was_cut_or_changed(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.randn(4, 4)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    for cut in range(8, 400, 3):
        path.write_bytes(content[:cut])
        with pytest.raises(WeightsError):
            read_checkpoint(path)


def test_reading_leaves_the_file_as_it_is(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(WEIGHTS, path)
    shutil.copy(path, tmp_path / "before")
    read_checkpoint(path)
    assert path.read_bytes() == (tmp_path / "before").read_bytes()
