"""Checkpoints in all forms in which people save EfficientDets: the usual tool writes, we read.

For objects of packages that are not installed here, classes with those packages' names are pickled.
The pickle is the same, and nothing is imported when it is read.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime as dt
import enum
import io
import pathlib
import sys
import types
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from effdet import DetBenchPredict, DetBenchTrain
from omegaconf import OmegaConf
from safetensors.torch import save_file
from timm.utils import CheckpointSaver, ModelEmaV2, ModelEmaV3
from torch import nn
from torch.optim.swa_utils import AveragedModel

from effdet_deploy.errors import WeightsError
from effdet_deploy.pytorch.network import create_model
from effdet_deploy.pytorch.weights.checkpoint import read_checkpoint
from tests.pytorch.conftest import NUM_CLASSES
from tests.pytorch.network.peers import effdet_twin

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclasses.dataclass
class Settings:
    lr: float = 0.1
    steps: tuple[int, ...] = (1, 2)


class Phase(enum.Enum):
    TRAIN = 1


class AttributeDict(dict):
    """A dict like those of Lightning, mmengine and easydict."""


def elsewhere(cls: type, module: str, monkeypatch: pytest.MonkeyPatch) -> type:
    """Have ``cls`` pickled as a class of ``module``, a package that is not installed."""
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        if name not in sys.modules:
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules[module], cls.__name__, cls, raising=False)
    cls.__module__ = module
    return cls


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """effdet's own D0 with three classes."""
    torch.manual_seed(5)
    return effdet_twin(create_model("d0", num_classes=NUM_CLASSES, image_size=128))


def prefixed(prefix: str) -> Callable[[nn.Module], object]:
    return lambda net: {prefix + key: value for key, value in net.state_dict().items()}


def others(net: nn.Module) -> dict[str, torch.Tensor]:
    """Return weights that differ from those of ``net`` and must not be taken."""
    return {
        key: value + 1 if value.is_floating_point() else value
        for key, value in net.state_dict().items()
    }


def lightning(net: nn.Module) -> object:
    optimizer = torch.optim.AdamW(net.parameters())
    return {
        "epoch": 3,
        "global_step": 120,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": prefixed("model.model.")(net),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 4}}}},
        "callbacks": {
            "ModelCheckpoint{'monitor': 'loss'}": {"best_model_score": torch.tensor(0.2)}
        },
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [],
        "hyper_parameters": AttributeDict(lr=0.1, path=pathlib.PurePosixPath("/data")),
    }


FORMS: dict[str, Callable[[nn.Module], object]] = {
    "a state dict": lambda net: net.state_dict(),
    "an OrderedDict of parameters and buffers": lambda net: collections.OrderedDict(
        [*net.named_parameters(), *net.named_buffers()]
    ),
    "a defaultdict": lambda net: collections.defaultdict(list, net.state_dict()),
    "under state_dict": lambda net: {"state_dict": net.state_dict(), "epoch": 3},
    "under model": lambda net: {"model": net.state_dict(), "args": argparse.Namespace(lr=0.1)},
    "under model_state_dict": lambda net: {"model_state_dict": net.state_dict(), "loss": 0.1},
    "under net": lambda net: {"net": net.state_dict(), "acc": 71.2},
    "under network, two levels down": lambda net: {"checkpoint": {"network": net.state_dict()}},
    "under params_ema": lambda net: {"params": others(net), "params_ema": net.state_dict()},
    "under ema": lambda net: {"model": others(net), "ema": net.state_dict()},
    "a backbone compiled on its own": lambda net: {
        key.replace("backbone.", "backbone._orig_mod."): value
        for key, value in net.state_dict().items()
    },
    "averaged weights with a prefix of their own": lambda net: {
        "state_dict": others(net),
        "ema": prefixed("module.")(net),
    },
    "under state_dict_ema": lambda net: {
        "state_dict": others(net),
        "state_dict_ema": net.state_dict(),
    },
    "averaged weights beside the weights, by prefix": lambda net: {
        **{f"model.{key}": value for key, value in others(net).items()},
        **prefixed("model_ema.module.")(net),
    },
    "in a list": lambda net: [net.state_dict(), 3],
    "in a tuple with the epoch": lambda net: (3, net.state_dict()),
    "DataParallel": prefixed("module."),
    "torch.compile": prefixed("_orig_mod."),
    "compiled DataParallel": prefixed("_orig_mod.module."),
    "FSDP": prefixed("_fsdp_wrapped_module."),
    "FSDP, checkpointed": prefixed("_fsdp_wrapped_module._checkpoint_wrapped_module."),
    "a wrapper called model": prefixed("model."),
    "a wrapper called net.model": prefixed("net.model."),
    "a wrapper called detector": prefixed("detector."),
    "two wrappers called model": prefixed("model.model."),
    "an effdet bench for training": lambda net: DetBenchTrain(net).state_dict(),
    "an effdet bench for predicting": lambda net: DetBenchPredict(net).state_dict(),
    "Lightning": lightning,
    "numbers beside the weights": lambda net: {**net.state_dict(), "epoch": 3, "best": 0.5},
    "tensors beside the weights": lambda net: {**net.state_dict(), "loss": torch.tensor(0.5)},
    "losses of numpy beside the weights": lambda net: {
        "model": net.state_dict(),
        "losses": np.arange(5.0),
        "best": np.float32(0.5),
        "names": np.array(["a", "b"], dtype=object),
    },
    "OmegaConf beside the weights": lambda net: {
        "model": net.state_dict(),
        "cfg": OmegaConf.create({"lr": 0.1, "steps": [1, 2], "size": "${lr}"}),
    },
    "a path and a date beside the weights": lambda net: {
        "model": net.state_dict(),
        "where": pathlib.Path("runs") / "last",
        "when": dt.datetime(2026, 11, 1, tzinfo=dt.UTC),
    },
    "a dataclass and an enum beside the weights": lambda net: {
        "model": net.state_dict(),
        "hparams": Settings(),
        "phase": Phase.TRAIN,
    },
    "an optimizer and a scheduler beside the weights": lambda net: {
        "model": net.state_dict(),
        "optimizer": torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9).state_dict(),
        "scheduler": torch.optim.lr_scheduler.StepLR(torch.optim.SGD(net.parameters(), lr=0.1), 3),
    },
    "a scaler and random states beside the weights": lambda net: {
        "model": net.state_dict(),
        "scaler": torch.amp.GradScaler("cpu").state_dict(),
        "rng": [torch.get_rng_state(), np.random.default_rng(3).bit_generator.state],
    },
    "an averaged model's state": lambda net: AveragedModel(net).state_dict(),
    "a whole averaged model": AveragedModel,
    "a whole module": lambda net: net,
    "a whole module under model": lambda net: {"model": net, "epoch": 3},
    "a whole DataParallel": nn.DataParallel,
    "a whole bench": DetBenchTrain,
    "timm's averaged weights": lambda net: {
        "model": others(net),
        "ema": ModelEmaV2(net).state_dict(),
    },
    "timm's averaged weights, version 3": lambda net: ModelEmaV3(net).state_dict(),
    "mmengine": lambda net: {
        "meta": {"epoch": 12, "dataset_meta": {"classes": ("a", "b", "c")}},
        "state_dict": net.state_dict(),
        "message_hub": {"log_scalars": {}},
    },
    "IceVision": lambda net: {
        "model": net.state_dict(),
        "meta": {"classes": ["background", "a", "b", "c"], "model_name": "ross.efficientdet"},
    },
    "fastai": lambda net: {
        "model": net.state_dict(),
        "opt": {"state": [], "hypers": [{"lr": 0.1}]},
    },
    "a cycle beside the weights": lambda net: {"model": net.state_dict(), "self": _cycle()},
}


def _cycle() -> list[object]:
    cycle: list[object] = [1]
    cycle.append(cycle)
    return cycle


def assert_taken(path: Path, network: nn.Module) -> None:
    found = read_checkpoint(path).state_dict
    expected = network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_there_are_enough_forms():
    assert len(FORMS) >= 46


@pytest.mark.parametrize("form", FORMS)
def test_the_network_is_found_in(tmp_path, network, form):
    torch.save(FORMS[form](network), tmp_path / "model.pth")
    assert_taken(tmp_path / "model.pth", network)


@pytest.mark.parametrize(
    "form", ["a state dict", "Lightning", "a whole module", "OmegaConf beside the weights"]
)
def test_the_network_is_found_in_the_old_container_too(tmp_path, network, form):
    torch.save(FORMS[form](network), tmp_path / "m.pth", _use_new_zipfile_serialization=False)
    assert_taken(tmp_path / "m.pth", network)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickle_is_read(tmp_path, network, protocol):
    torch.save(FORMS["Lightning"](network), tmp_path / "m.pth", pickle_protocol=protocol)
    assert_taken(tmp_path / "m.pth", network)


@pytest.mark.parametrize(
    "module",
    ["pytorch_lightning.utilities.parsing", "mmengine.config", "easydict", "fastcore.basics"],
)
def test_objects_of_packages_that_are_not_installed_are_no_obstacle(
    tmp_path, network, monkeypatch, module
):
    config = elsewhere(type("Config", (dict,), {}), module, monkeypatch)
    settings = elsewhere(type("Settings", (), {"a": 1}), f"{module}.inner", monkeypatch)()
    settings.lr = 0.1
    path = tmp_path / "model.pth"
    torch.save(config(model=config(network.state_dict()), settings=settings), path)
    assert_taken(path, network)


def test_a_checkpoint_of_timm_s_saver_is_read(tmp_path, network):
    saver = CheckpointSaver(
        network,
        torch.optim.AdamW(network.parameters()),
        args=argparse.Namespace(model="tf_efficientdet_d0", betas=(0.9, 0.99)),
        checkpoint_dir=tmp_path,
        recovery_dir=tmp_path,
    )
    saver.save_checkpoint(epoch=1, metric=np.float64(0.71))
    assert_taken(tmp_path / "last.pth.tar", network)


def test_safetensors_with_a_prefix_are_read(tmp_path, network):
    save_file(prefixed("model.")(network), tmp_path / "model.safetensors")
    assert_taken(tmp_path / "model.safetensors", network)


def test_a_numpy_archive_is_read(tmp_path, network):
    arrays = {key: value.numpy() for key, value in network.state_dict().items()}
    np.savez(tmp_path / "model.npz", **arrays)
    assert_taken(tmp_path / "model.npz", network)


def test_an_archive_of_a_big_endian_machine_is_not_called_damaged(tmp_path, network):
    plain = io.BytesIO()
    torch.save(network.state_dict(), plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(tmp_path / "m.pth", "w") as target:
        for entry in source.infolist():
            is_order = entry.filename.endswith("/byteorder")
            target.writestr(entry, b"big" if is_order else source.read(entry))
    with pytest.raises(WeightsError, match=r"'m\.pth' was written on a big-endian machine"):
        read_checkpoint(tmp_path / "m.pth")


def test_an_archive_from_a_gpu_under_another_name_is_read(tmp_path, network):
    plain = io.BytesIO()
    torch.save(network.state_dict(), plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(tmp_path / "m.pth", "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                content = content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:1")
            name = "renamed/" + entry.filename.partition("/")[2]
            target.writestr(zipfile.ZipInfo(name), content)
    assert_taken(tmp_path / "m.pth", network)


def test_views_of_one_storage_keep_their_own_values(tmp_path, network):
    state = network.state_dict()
    floats = {key: value for key, value in state.items() if value.is_floating_point()}
    flat = torch.cat([value.reshape(-1) for value in floats.values()])
    sizes = [value.numel() for value in floats.values()]
    views = {
        key: part.view(floats[key].shape)
        for key, part in zip(floats, flat.split(sizes), strict=True)
    }
    torch.save({**state, **views}, tmp_path / "flat.pth")
    assert_taken(tmp_path / "flat.pth", network)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda value: value.to_sparse(), "sparse"),
        (lambda value: torch.empty_like(value, device="meta"), "without values"),
        (lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), "quantized"),
        (lambda value: value.to(torch.complex64), "complex|weights cannot have"),
        (lambda value: torch.zeros(1).expand(10**13), "larger than the values"),
    ],
)
def test_a_tensor_that_is_no_weight_is_refused_and_named(tmp_path, network, change, words):
    key = "class_net.predict.conv_pw.bias"
    state = {**network.state_dict(), key: change(network.state_dict()[key])}
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=words) as caught:
        read_checkpoint(tmp_path / "odd.pth")
    assert key in caught.value.cause


def test_a_file_with_two_networks_is_refused_and_both_are_named(tmp_path, network):
    state = {**prefixed("student.")(network), **prefixed("rival.")(network)}
    torch.save(state, tmp_path / "two.pth")
    with pytest.raises(WeightsError, match=r"2 networks.*'student\.', 'rival\.'"):
        read_checkpoint(tmp_path / "two.pth")


def test_tensors_that_were_not_taken_are_listed(tmp_path, network):
    bench = DetBenchTrain(network).state_dict()
    torch.save({**bench, "loss": torch.tensor(0.5)}, tmp_path / "bench.pth")
    checkpoint = read_checkpoint(tmp_path / "bench.pth")
    assert set(checkpoint.ignored) == {"anchors.boxes", "loss"}
    assert torch.equal(checkpoint.anchors, bench["anchors.boxes"])
