"""Detectors and sets that were changed but look unchanged: no change passes silently.

A change is named and refused, fails verification, or is taken over with a note. The artifact is
compared with the user's own module: our network with its weights would not have the change.
"""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any

import effdet
import pytest
import torch
from effdet.anchors import Anchors
from effdet.bench import DetBenchPredict, DetBenchTrain
from omegaconf import OmegaConf
from PIL import Image
from torch import nn

from effdet_deploy.artifact.spec import SoftNmsSpec
from effdet_deploy.cli import main
from effdet_deploy.detection.pictures import Pictures
from effdet_deploy.errors import EffdetDeployError
from effdet_deploy.exporters import Artifact, ExportOptions, export
from effdet_deploy.exporters.source import load_source, run_as_given, specification_of
from effdet_deploy.progress import silent
from tests.networks import conditioned
from tests.onnx_models import NAMES, write_tiny

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
    """Export as TorchScript, which takes the least time; every export runs the module first."""
    return export(module, target, ExportOptions(**options))


def accepted(module: nn.Module, **options: object) -> tuple[DetectorSpec, str]:
    """Return the spec of what an export would make of a module, and what it would say."""
    chosen = ExportOptions(**options)
    source = load_source(module, chosen, silent)
    spec = specification_of(source, chosen, None)
    return spec, " ".join(run_as_given(source, spec, Pictures(), silent).notes)


def refusal(module: nn.Module, target: Path) -> str:
    """Return the message with which an export of the module is refused."""
    with pytest.raises(EffdetDeployError) as caught:
        exported(module, target)
    assert caught.value.remedy
    assert not target.exists()
    return str(caught.value)


def test_an_unchanged_module_gives_no_note(network: nn.Module) -> None:
    assert accepted(network)[1] == ""


def change_padding(network: nn.Module) -> str:
    network.backbone.blocks[0][0].conv_dw.padding_mode = "reflect"
    return "backbone.blocks.0.0.conv_dw, which has Conv2d("


def change_stride(network: nn.Module) -> str:
    network.box_net.predict.conv_dw.stride = (2, 2)
    return "gives box codes for"


def change_activation(network: nn.Module) -> str:
    network.class_net.act = nn.LeakyReLU(0.3)
    return "class_net.act, which has LeakyReLU"


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
    """A wrapper that changes its network's input, as a LightningModule may."""

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


def test_wrappers_that_change_no_result_are_removed_without_a_note(network: nn.Module) -> None:
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
        (Scaled, "alone, 'detector', gives the right results: .* what Scaled does"),
        (Training, "cannot be run on pictures of 128x128 .* Pass its 'model' instead"),
        (lambda each: nn.ModuleList([each, copy.deepcopy(each)]), "holds 2 networks: 0, 1"),
    ],
)
def test_wrappers_that_do_more_are_refused(
    wrap: Callable[[nn.Module], nn.Module], said: str, network: nn.Module, target: Path
) -> None:
    assert re.search(said, refusal(wrap(network), target))


def test_hooks_that_change_nothing_are_noted(network: nn.Module) -> None:
    network.fpn.cell.register_forward_hook(lambda *_: None)
    said = accepted(network)[1]
    assert "a forward hook on fpn.cell: on 2 pictures they change nothing" in said


def test_half_precision_is_run_in_float32_with_a_note(network: nn.Module) -> None:
    assert accepted(network.half())[1] == (
        "The weights in memory are float16; the module was run in float32."
    )
    assert next(network.parameters()).dtype == torch.float16


def test_a_head_with_another_number_of_classes_is_taken_over_with_a_note(
    network: nn.Module,
) -> None:
    other = effdet.EfficientDet(effdet_config(num_classes=5), pretrained_backbone=False)
    network.class_net = other.class_net
    spec, said = accepted(network)
    assert spec.num_classes == 5
    assert "num_classes is 5, taken from the heads; the module's configuration says 3." in said


def test_a_network_for_gray_pictures_is_taken_over_with_a_note() -> None:
    gray = effdet.EfficientDet(
        effdet_config(**{"backbone_args.in_chans": 1}), pretrained_backbone=False
    )
    spec, said = accepted(gray)
    assert spec.input.channels == 1
    assert "in_chans is 1, taken from the first layer; the variant's own is 3." in said


# Benches: their anchors and settings are taken over, and their rows are compared.


def bench_of(network: nn.Module, **anchors: object) -> DetBenchPredict:
    """Return effdet's bench for a network; ``anchors`` are config fields for its anchors."""
    bench = DetBenchPredict(network)
    if anchors:
        bench.anchors = Anchors.from_config(effdet_config(**anchors))
    return bench


def test_an_unchanged_bench_gives_no_note(network: nn.Module) -> None:
    spec, said = accepted(bench_of(network))
    assert spec.output.max_detections == 100
    assert said == ""


def test_a_bench_s_number_of_rows_is_taken_over_with_a_note(network: nn.Module) -> None:
    bench = bench_of(network)
    bench.max_det_per_image = 30
    spec, said = accepted(bench)
    assert spec.output.max_detections == 30
    assert "The artifact gives up to 30 detections, like the bench." in said
    spec, said = accepted(bench, max_detections=50)
    assert spec.output.max_detections == 50
    assert "The artifact gives up to 50 detections, but the bench gives 30." in said


def test_a_bench_s_number_of_candidates_is_taken_over(network: nn.Module) -> None:
    bench = bench_of(network)
    bench.max_detection_points = 60
    spec, _ = accepted(bench)
    assert spec.output.candidates == 60


@pytest.mark.parametrize(
    ("anchors", "field"),
    [
        ({"anchor_scale": 2.0}, "anchor_scale is 2.0"),
        ({"aspect_ratios": [1.0, 0.5, 2.5]}, "aspect_ratios is"),
    ],
)
def test_a_bench_s_anchors_are_taken_over_with_a_note(
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


def test_a_bench_s_octaves_are_taken_over_with_a_note(network: nn.Module) -> None:
    bench = bench_of(network)
    grid = bench.anchors.boxes.reshape(-1, 3, 3, 4)
    centers, sides = (grid[..., :2] + grid[..., 2:]) / 2, (grid[..., 2:] - grid[..., :2])
    sides[:, 1] *= 1.5 / 2 ** (1 / 3)
    boxes = torch.cat([centers - sides / 2, centers + sides / 2], dim=-1)
    bench.anchors.boxes = boxes.reshape(-1, 4)
    spec, said = accepted(bench)
    assert "octave_scales is (1.0, 1.5" in said
    assert spec.anchors.octave_scales[1] == pytest.approx(1.5, rel=1e-3)


def test_soft_nms_is_refused_in_a_graph_and_done_behind_raw_heads(
    network: nn.Module, target: Path
) -> None:
    bench = bench_of(network)
    bench.soft_nms = True
    assert "uses soft NMS" in refusal(bench, target)
    artifact = export(bench, target, ExportOptions(nms="none"))
    assert artifact.spec.output.soft_nms == SoftNmsSpec()
    assert artifact.report is not None
    assert artifact.report.passed
    # It was compared with the bench's own rows, whose scores soft NMS lowers.
    assert artifact.report.detections is not None
    assert artifact.report.detections.reference_count > 0


class Halving(DetBenchPredict):
    """A user's own bench: it gives boxes at another scale than the network's input."""

    def forward(self, x: torch.Tensor, img_info: object = None) -> torch.Tensor:
        rows = super().forward(x, img_info)
        return torch.cat([rows[..., :4] / 2, rows[..., 4:]], dim=-1)


def test_a_bench_that_finds_something_else_is_refused(network: nn.Module, target: Path) -> None:
    assert "detections of its bench, 0 are those that effdet's NMS finds" in refusal(
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
    assert len(artifact.notes) == 3
    assert "candidates give the same detections as" in artifact.notes[2]
    assert artifact.notes[0].startswith("anchor_scale is 2.0, taken from the anchors")
    assert artifact.notes[1] == "The artifact gives up to 40 detections, like the bench."


# Sets: a mAP is right, or it is not printed, or it is printed with a warning.

SHOWN = (128, 96)
TRUTHS = ([10, 20, 40, 40, 10], [60, 10, 60, 86, 12], [0, 0, 30, 30, 10])
"""What the tiny detector finds in a bright picture: x, y, width, height, category."""


def sound_set(folder: Path) -> dict[str, Any]:
    """Write a picture on which the tiny detector is right; return its annotations."""
    Image.new("RGB", SHOWN, "white").save(folder / "a.png")
    boxes = [
        {"id": number, "image_id": 1, "category_id": truth[4], "bbox": truth[:4]}
        for number, truth in enumerate(TRUTHS, start=1)
    ]
    names = enumerate(NAMES, start=10)
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": SHOWN[0], "height": SHOWN[1]}],
        "annotations": boxes,
        "categories": [{"id": number, "name": name} for number, name in names],
    }


def number_anew(document: dict[str, Any], ids: dict[int, int]) -> None:
    for each in document["categories"]:
        each["id"] = ids[each["id"]]
    for each in document["annotations"]:
        each["category_id"] = ids[each["category_id"]]


def ids_from_0(document: dict[str, Any], _folder: Path) -> None:
    number_anew(document, {10: 0, 11: 1, 12: 2})


def ids_reversed(document: dict[str, Any], _folder: Path) -> None:
    number_anew(document, {10: 12, 11: 11, 12: 10})


def foreign_names(document: dict[str, Any], _folder: Path) -> None:
    for each, name in zip(document["categories"], ("cat", "dog", "cow"), strict=True):
        each["name"] = name


def one_category_more(document: dict[str, Any], _folder: Path) -> None:
    document["categories"].append({"id": 13, "name": "star"})
    document["annotations"].append(
        {"id": 9, "image_id": 1, "category_id": 13, "bbox": [90, 5, 20, 20]}
    )


def corners(document: dict[str, Any], _folder: Path) -> None:
    for each in document["annotations"]:
        x, y, width, height = each["bbox"]
        each["bbox"] = [x, y, x + width, y + height]


def turned_by_exif(document: dict[str, Any], folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", SHOWN, "white").save(folder / "a.png", exif=exif)


@pytest.mark.parametrize(
    ("mutate", "code", "points", "said"),
    [
        (None, 0, 100, ""),
        (ids_from_0, 0, 100, "matched by name"),
        (ids_reversed, 0, 100, "matched by name"),
        (foreign_names, 5, None, "--class-map by-name, by-id"),
        (one_category_more, 0, 100 * 2 / 3, "has no class for star; .* its mAP is 100.00"),
        (corners, 0, None, "The mAP is not meaningful .* look like corners"),
        (turned_by_exif, 0, None, "The mAP is not meaningful .* on their side: their EXIF"),
    ],
)
def test_the_map_of_a_set_is_right_or_refused_or_carries_a_warning(
    mutate: Callable[[dict[str, Any], Path], None] | None,
    code: int,
    points: float | None,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = sound_set(tmp_path)
    if mutate is not None:
        mutate(document, tmp_path)
    annotations, result = tmp_path / "set.json", tmp_path / "result.json"
    annotations.write_text(json.dumps(document))
    model = write_tiny(tmp_path / "model.onnx")
    arguments = ["eval", str(model), "--coco", str(annotations), "--json", str(result)]
    assert main(arguments) == code
    shown = " ".join("".join(capsys.readouterr()).split())
    assert re.search(said, shown)
    if points is not None:
        assert 100 * json.loads(result.read_text())["models"][0]["ap"] == pytest.approx(points)
    if mutate is None:
        assert "mAP is not meaningful" not in shown
        assert "matched by" not in shown
