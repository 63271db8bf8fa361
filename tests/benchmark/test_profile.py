"""How the time of a run is divided among the parts of the network, from ONNX Runtime's profile."""

from __future__ import annotations

import numpy as np
import pytest

from effdet_deploy.benchmark.profile import LAYOUT, NodeTime, profile_onnx, stage_shares
from tests.onnx_models import SIDE, write_tiny

SHARE_TOLERANCE = 1e-9  # sums of a few float64 shares


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("preprocess.cast", "preprocess"),
        ("backbone.blocks.1.0.conv_pw.conv_nchwc", "backbone"),
        ("fpn.cell.0.fnode.1.combine.add", "fpn"),
        ("class_net.predict.conv_pw.conv", "heads"),
        ("class_logits.reshape", "head reorder"),
        ("class_logits", "head reorder"),
        ("postprocess.select.topk", "selection"),
        ("postprocess.decode.exp", "decode"),
        ("postprocess.nms.matmul_3", "nms"),
        ("postprocess.where", "output rows"),
        ("ReorderOutput_token_567", LAYOUT),
    ],
)
def test_a_node_belongs_to_the_part_that_its_path_names(name, stage):
    assert NodeTime(name, "Conv", 1.0).stage == stage


def test_shares_add_up_to_one_largest_first():
    nodes = [
        NodeTime("fpn.conv", "Conv", 1.0),
        NodeTime("backbone.a.conv", "Conv", 2.0),
        NodeTime("backbone.b.conv", "Conv", 5.0),
    ]
    shares = stage_shares(nodes)
    assert list(shares) == ["backbone", "fpn"]
    assert shares["backbone"] == pytest.approx(7 / 8, abs=SHARE_TOLERANCE)


def test_every_kernel_of_a_real_run_is_timed_and_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_tiny(tmp_path / "tiny.onnx")
    batch = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    nodes = profile_onnx(path, {"images": batch}, threads=1, runs=3)
    assert {"Cast", "ReduceMean"} <= {node.operator for node in nodes}
    assert all(node.seconds >= 0 for node in nodes)
    assert [each.name for each in tmp_path.iterdir()] == ["tiny.onnx"]
