"""Detectors and sets that are not what they seem: none of them passes without a word.

Each mutation is refused by name, fails, or is taken over and said. What the artifact is compared
with is the module that was given, never our copy of it: a copy of the weights lost all of these.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING

import effdet
import pytest
import torch
from effdet.anchors import Anchors
from effdet.bench import DetBenchPredict, DetBenchTrain
from omegaconf import OmegaConf
from torch import nn

from effdet_deploy.detection.pictures import Pictures
from effdet_deploy.errors import EffdetDeployError
from effdet_deploy.exporters import Artifact, ExportOptions, export
from effdet_deploy.exporters.source import load_source, run_as_given, specification_of
from effdet_deploy.progress import silent
from tests.networks import conditioned

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from effdet_deploy.artifact.spec import DetectorSpec

SIDE, CLASSES = 128, 3
VARIANT = "tf_efficientdet_lite0"


def effdet_config(**changes: object) -> object:
    config = effdet.get_efficientdet_config(VARIANT)
    config.image_size, config.num_classes = (SIDE, SIDE), CLASSES
    for field, value in changes.items():
        OmegaConf.update(config, field, value)
    return config


def effdet_network(**changes: object) -> nn.Module:
    network = effdet.EfficientDet(effdet_config(**changes), pretrained_backbone=False).eval()
    if not changes:
        network.load_state_dict(conditioned(VARIANT, SIDE, CLASSES).state_dict())
    return network


@pytest.fixture
def network() -> nn.Module:
    return effdet_network()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "model.torchscript"


def exported(module: nn.Module, target: Path, **options: object) -> Artifact:
    """Export in the way that takes the least time: what is given is run before anything else."""
    return export(module, target, ExportOptions(**options))


def accepted(module: nn.Module, **options: object) -> tuple[DetectorSpec, str]:
    """Return the spec of what an export would make of a module, and what it would say."""
    chosen = ExportOptions(**options)
    source = load_source(module, chosen, silent)
    spec = specification_of(source, chosen, None)
    return spec, " ".join(run_as_given(source, spec, Pictures(), silent).notes)


def refusal(module: nn.Module, target: Path) -> str:
    with pytest.raises(EffdetDeployError) as caught:
        exported(module, target)
    assert caught.value.remedy
    assert not target.exists()
    return str(caught.value)


def test_of_what_was_not_changed_nothing_is_said(network: nn.Module) -> None:
    assert accepted(network)[1] == ""


def change_padding(network: nn.Module) -> str:
    network.backbone.blocks[0][0].conv_dw.padding_mode = "reflect"
    return "backbone.blocks.0.0.conv_dw, where there is Conv2d("


def change_stride(network: nn.Module) -> str:
    network.box_net.predict.conv_dw.stride = (2, 2)
    return "gives box codes for"


def change_activation(network: nn.Module) -> str:
    network.class_net.act = nn.LeakyReLU(0.3)
    return "class_net.act, where there is LeakyReLU"


def add_hook(network: nn.Module) -> str:
    network.box_net.predict.register_forward_hook(lambda _m, _i, output: output * 1.1)
    return "box_net.predict, which has a forward hook"


def add_pre_hook(network: nn.Module) -> str:
    network.fpn.cell[0].fnode[1].after_combine.register_forward_pre_hook(
        lambda _m, inputs: (inputs[0] + 0.5,)
    )
    return "fpn.cell.0.fnode.1.after_combine, which has a forward pre-hook"


def replace_head(network: nn.Module) -> str:
    network.box_net = nn.Sequential(nn.Conv2d(64, 36, 1))
    return "box_net.conv_rep.0"


def quantize(network: nn.Module) -> str:
    conv = network.class_net.predict.conv_pw
    network.class_net.predict.conv_pw = torch.ao.nn.quantized.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size
    )
    return "class_net.predict.conv_pw is a Conv2d"


def patch_forward(network: nn.Module) -> str:
    forward = network.forward
    network.forward = lambda x: forward(x.flip(-1))
    return "class_logits differ"


@pytest.mark.parametrize(
    "mutate",
    [
        change_padding,
        change_stride,
        change_activation,
        add_hook,
        add_pre_hook,
        replace_head,
        quantize,
        patch_forward,
    ],
)
@pytest.mark.parametrize("kind", ["effdet", "ours"])
def test_a_changed_module_is_refused_and_what_was_changed_is_named(
    mutate: Callable[[nn.Module], str], kind: str, network: nn.Module, target: Path
) -> None:
    module = network if kind == "effdet" else copy.deepcopy(conditioned(VARIANT, SIDE, CLASSES))
    assert mutate(module) in refusal(module, target)


class Scaled(nn.Module):
    """A wrapper that does something of its own, as a LightningModule may."""

    def __init__(self, network: nn.Module, factor: float = 2.0) -> None:
        super().__init__()
        self.detector, self.factor = network, factor

    def forward(self, x: torch.Tensor) -> object:
        return self.detector(x * self.factor)


class Training(nn.Module):
    """A wrapper that cannot be run on pictures alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.model = network

    def forward(self, pictures: torch.Tensor, targets: object) -> object:
        return self.model(pictures), targets


def test_wrappers_that_only_pass_on_are_taken_off_and_others_are_run(network: nn.Module) -> None:
    for module in (
        nn.DataParallel(nn.Sequential(network)),
        nn.DataParallel(DetBenchTrain(network)),
        torch.compile(DetBenchPredict(torch.compile(network))),
        Scaled(torch.optim.swa_utils.AveragedModel(network), 1.0),
    ):
        spec, said = accepted(module)
        assert (spec.num_classes, spec.input.height, said) == (CLASSES, SIDE, "")


def test_a_part_that_was_compiled_is_taken_as_it_was(network: nn.Module) -> None:
    network.backbone = torch.compile(network.backbone)
    network.box_net.compile()
    assert accepted(network)[1] == ""


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (Scaled, "box_regression differ|class_logits differ"),
        (Training, "cannot be run on pictures of 128x128 .* Pass what is in it: its 'model'"),
        (lambda each: nn.ModuleList([each, copy.deepcopy(each)]), "holds 2 networks: 0, 1"),
    ],
)
def test_wrappers_that_do_more_are_refused(
    wrap: Callable[[nn.Module], nn.Module], said: str, network: nn.Module, target: Path
) -> None:
    assert re.search(said, refusal(wrap(network), target))


def test_hooks_that_change_nothing_are_said(network: nn.Module) -> None:
    network.fpn.cell.register_forward_hook(lambda *_: None)
    said = accepted(network)[1]
    assert "a forward hook on fpn.cell: on 2 pictures that changes nothing" in said


def test_a_head_of_other_classes_is_taken_over_and_said(network: nn.Module) -> None:
    other = effdet.EfficientDet(effdet_config(num_classes=5), pretrained_backbone=False)
    network.class_net = other.class_net
    spec, said = accepted(network)
    assert spec.num_classes == 5
    assert "num_classes is 5: the heads say so, not 3" in said


def test_a_network_of_grey_pictures_says_so(target: Path) -> None:
    said = refusal(effdet_network(**{"backbone_args.in_chans": 1}), target)
    assert "takes pictures of 1 channels" in said


# Benches: their anchors and settings are taken over, and their rows are compared.


def bench_of(network: nn.Module, **anchors: object) -> DetBenchPredict:
    """Return a bench whose anchors are of another configuration than its network's."""
    bench = DetBenchPredict(network)
    if anchors:
        bench.anchors = Anchors.from_config(effdet_config(**anchors))
    return bench


def test_a_bench_as_it_is_says_nothing(network: nn.Module) -> None:
    spec, said = accepted(bench_of(network))
    assert spec.output.max_detections == 100
    assert said == ""


def test_a_bench_s_number_of_rows_is_taken_over_and_said(network: nn.Module) -> None:
    bench = bench_of(network)
    bench.max_det_per_image = 30
    spec, said = accepted(bench)
    assert spec.output.max_detections == 30
    assert "The artifact gives 30 rows; the bench gives as many." in said
    spec, said = accepted(bench, max_detections=50)
    assert spec.output.max_detections == 50
    assert "The artifact gives 50 rows; the bench gives 30." in said


@pytest.mark.parametrize(
    ("anchors", "field"),
    [
        ({"anchor_scale": 2.0}, "anchor_scale is 2.0"),
        ({"aspect_ratios": [1.0, 0.5, 2.5]}, "aspect_ratios is"),
    ],
)
def test_a_bench_s_anchors_are_taken_over_and_said(
    anchors: dict[str, object], field: str, network: nn.Module
) -> None:
    spec, said = accepted(bench_of(network, **anchors))
    assert field in said
    assert spec.anchors.scale == anchors.get("anchor_scale", 3.0)


def test_a_bench_of_a_size_that_its_network_cannot_take_is_refused(
    network: nn.Module, target: Path
) -> None:
    said = refusal(bench_of(network, image_size=(256, 256)), target)
    assert "cannot be run on pictures of 256x256" in said


def test_a_bench_s_octaves_are_taken_over_and_said(network: nn.Module) -> None:
    bench = bench_of(network)
    grid = bench.anchors.boxes.reshape(-1, 3, 3, 4)
    centers, sides = (grid[..., :2] + grid[..., 2:]) / 2, (grid[..., 2:] - grid[..., :2])
    sides[:, 1] *= 1.5 / 2 ** (1 / 3)
    boxes = torch.cat([centers - sides / 2, centers + sides / 2], dim=-1)
    bench.anchors.boxes = boxes.reshape(-1, 4)
    spec, said = accepted(bench)
    assert "octave_scales is (1.0, 1.5" in said
    assert spec.anchors.octave_scales[1] == pytest.approx(1.5, rel=1e-3)


def test_soft_nms_is_refused(network: nn.Module, target: Path) -> None:
    bench = bench_of(network)
    bench.soft_nms = True
    assert "uses soft NMS" in refusal(bench, target)


class Halving(DetBenchPredict):
    """A bench of one's own: boxes in other pixels than the network's."""

    def forward(self, x: torch.Tensor, img_info: object = None) -> torch.Tensor:
        rows = super().forward(x, img_info)
        return torch.cat([rows[..., :4] / 2, rows[..., 4:]], dim=-1)


def test_a_bench_that_finds_something_else_is_refused(network: nn.Module, target: Path) -> None:
    assert "detections of its bench 0 are what effdet's NMS finds" in refusal(
        Halving(network), target
    )


def test_an_exported_bench_was_compared_with_the_bench_s_own_rows(
    network: nn.Module, target: Path
) -> None:
    bench = bench_of(network, anchor_scale=2.0)
    bench.max_det_per_image = 40
    artifact = exported(bench.train(), target)
    assert artifact.report is not None
    assert artifact.report.passed
    assert bench.training
    assert artifact.report.detections is not None
    assert artifact.report.detections.reference_count <= 40 * artifact.report.images
    assert len(artifact.notes) == 2
