"""INT8 files of the full range are refused where OpenVINO computes as if VNNI were missing."""

from __future__ import annotations

import json
import os
import platform

import pytest

from effdet_deploy.errors import DeviceError
from tests.runtimes.test_instructions import PLANTED, int8_file

pytestmark = [
    pytest.mark.instructions,
    pytest.mark.skipif(
        platform.machine().lower() not in ("x86_64", "amd64"),
        reason="not an x86 processor: would show that a file that saturates is refused",
    ),
]


@pytest.mark.parametrize("command", ["detect", "bench", "eval", "compare"])
def test_every_command_refuses_a_file_that_saturates_and_names_the_layer(
    tmp_path, picture, run_tool, monkeypatch, command
):
    pytest.importorskip("openvino")
    path = int8_file(tmp_path / "full.onnx", "openvino", "full")
    annotations = tmp_path / "annotations.json"
    annotations.write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": picture.name}],
                "annotations": [
                    {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81}
                ],
                "categories": [{"id": 1, "name": "0"}],
            }
        )
    )
    arguments = {
        "detect": [path, picture, "--output", tmp_path / "out"],
        "bench": [path, "--runs", "2", "--max-runs", "2", "--under-load"],
        "eval": [path, "--coco", annotations, "--images", tmp_path],
        "compare": [path, "--reference", path],
    }[command]
    monkeypatch.setitem(os.environ, "ONEDNN_MAX_CPU_ISA", "AVX2")
    done = run_tool(command, *arguments, "--backend", "openvino")
    assert done.returncode == DeviceError.exit_code, done.stderr
    assert PLANTED in done.stderr
    assert "--int8-range portable" in done.stderr
    allowed = run_tool(command, *arguments, "--backend", "openvino", "--allow-saturation")
    # `compare` judges what the file computes then, and may fail it.
    assert allowed.returncode in (0, 3 if command == "compare" else 0), allowed.stderr
