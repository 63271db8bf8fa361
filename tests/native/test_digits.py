"""In 80 scenes, the digits detector has the same rows (detections) in libeffdet as in Python.

They are equal to the last bit, also if several threads share a detector.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

import effdet_deploy
from tests.native.building import (
    BUILD,
    ROOT,
    build,
    onnxruntime_library,
    openvino_library,
    run,
)
from tests.native.models import printed_rows

pytestmark = pytest.mark.native

SCENES = 80
EXAMPLE = ROOT / "examples" / "digits"
RUNTIMES = {"onnxruntime": onnxruntime_library, "openvino": openvino_library}


def exported(model, *options):
    """Export the digits detector to ``model`` with the command line."""
    export = "import sys; from effdet_deploy.cli import export_main; sys.exit(export_main())"
    weights = ("--weights", str(EXAMPLE / "digits_d0.safetensors"), *options, str(model))
    subprocess.run([sys.executable, "-c", export, *weights], check=True, capture_output=True)
    return model


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The exported model and the scenes, which were not used in training."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("digits")
    model = exported(folder / "digits.onnx")
    scenes = [sys.executable, str(EXAMPLE / "scenes.py"), "--split", "test", "--seed", "3"]
    subprocess.run(
        [*scenes, "--count", str(SCENES), str(folder / "scenes")], check=True, capture_output=True
    )
    paths = sorted((folder / "scenes" / "images").glob("*.png"))
    return model, [np.asarray(Image.open(path).convert("RGB")) for path in paths]


@pytest.mark.parametrize("backend", RUNTIMES)
def test_the_rows_of_eighty_scenes_are_those_of_python(
    digits, testing_library, binding, has_onnxruntime, backend
):
    model, scenes = digits
    native = binding.Detector(str(testing_library), str(model), backend, str(RUNTIMES[backend]()))
    total = 0
    with effdet_deploy.load(model, backend, "cpu") as detector:
        for scene in scenes:
            (rows,) = native.detect([binding.view(scene)])
            (found,) = detector.detect(scene)
            assert [list(row.box) for row in rows] == found.boxes.tolist()
            assert [row.score for row in rows] == found.scores.tolist()
            assert [row.label for row in rows] == found.labels.tolist()
            total += len(rows)
    native.close()
    assert total > 10 * SCENES


@pytest.mark.parametrize("backend", RUNTIMES)
def test_threads_on_one_handle_find_the_same_rows(
    digits, testing_library, binding, has_onnxruntime, backend
):
    model, scenes = digits
    native = binding.Detector(
        str(testing_library), str(model), backend, str(RUNTIMES[backend]()), threads=1
    )
    expected = [native.detect([binding.view(scene)])[0] for scene in scenes[:4]]
    wrong = []

    def work(first):
        for index in range(first, first + 8):
            scene = scenes[index % 4]
            if native.detect([binding.view(scene)])[0] != expected[index % 4]:
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    native.close()
    assert not wrong


def test_frames_give_pythons_rows_in_the_c_programs(digits, has_onnxruntime, tmp_path):
    """The graph resizes the frames, so the programs need no code for that."""
    _, scenes = digits
    model = exported(tmp_path / "frames.onnx", "--source-size", "360x640")
    built = build(BUILD, "effdet", "effdet-detect", "example_c")
    environment = os.environ | {
        "EFFDET_ONNXRUNTIME_LIBRARY": str(onnxruntime_library()),
        "LD_LIBRARY_PATH": str(built),
    }
    # The program, its score threshold, and a number that its rows must exceed. The example in C
    # leaves out scores below 0.3.
    programs = (("tools/effdet-detect", None, 5), ("examples/example_c", 0.3, 2))
    with effdet_deploy.load(model, "onnxruntime", "cpu") as detector:
        for index, scene in enumerate(scenes[:4]):
            frame = Image.fromarray(scene).resize((640, 360), Image.Resampling.BICUBIC)
            path = tmp_path / f"{index}.ppm"
            frame.save(path)
            for program, threshold, few in programs:
                (found,) = detector.detect(frame, threshold)
                assert len(found) > few
                assert found.boxes[:, 2].max() > 256  # in pixels of the frame, not of the network
                printed = run(built / program, model, path, env=environment).splitlines()
                assert printed == printed_rows(found)
