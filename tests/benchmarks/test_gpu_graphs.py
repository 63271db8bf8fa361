"""On a real GPU, with PyTorch alone: our graphs compute there what they compute on the CPU.

``pytest -m gpu --dry-gpu`` runs these tests on the CPU, which shows that the tests themselves work.
"""

from __future__ import annotations

import copy
import dataclasses

import effdet
import numpy as np
import pytest

from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.detection.detector import Detector
from effdet_deploy.exporters.options import ExportOptions
from effdet_deploy.parity.comparison import compare
from effdet_deploy.parity.tolerances import TOLERANCES
from effdet_deploy.synthetic import structured_pictures
from tests.networks import conditioned

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.gpu
SIDE = 128
BATCH = 4
NAMES = ("tf_efficientdet_d0", "tf_efficientdet_lite0")
OPTIONS = ExportOptions(batch=BatchSpec(1, 1, BATCH), candidates=1000, verify=False)
HEADS = dataclasses.replace(OPTIONS, nms="none")
# How much an export's heads may differ from eager PyTorch's.
HEAD_TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def device(request):
    if torch.cuda.is_available():
        return "cuda"
    if not request.config.getoption("--dry-gpu"):
        pytest.skip("no CUDA GPU: would show that PyTorch computes our graphs there as on the CPU")
    return "cpu"


@pytest.fixture(scope="module")
def pictures():
    return structured_pictures(BATCH, SIDE, SIDE, seed=11)


@pytest.fixture(scope="module", params=NAMES)
def network(request):
    return conditioned(request.param)


@pytest.fixture
def archive(tmp_path):
    from gpu_graphs import write_archive

    def write(network, options=OPTIONS, precision="fp32"):
        return write_archive(tmp_path / f"{precision}.torchscript", network, options, precision)

    return write


@pytest.fixture
def tf32():
    """PyTorch's default, which lets convolutions round to TF32; our graphs must not."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32 = before


def test_ours_and_effdet_give_the_same_heads(network, device, pictures):
    theirs = effdet.create_model(
        network.config.name, pretrained_backbone=False, image_size=(SIDE, SIDE)
    )
    theirs.load_state_dict(network.state_dict(), strict=True)
    ours = copy.deepcopy(network).to(device)
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().to(device) / 64 - 2
    flags = {"enabled": True, "benchmark": False, "deterministic": False, "allow_tf32": False}
    with torch.inference_mode(), torch.backends.cudnn.flags(**flags):
        found, known = ours(pixels), theirs.eval().to(device)(pixels)
        for head, expected in zip(found, known, strict=True):
            for one, other in zip(head, expected, strict=True):
                assert float((one - other).abs().max()) <= HEAD_TOLERANCE


def test_an_archive_gives_the_rows_of_the_cpu(network, device, archive, pictures, tf32):
    path = archive(network)
    with (
        Detector.load(path, device=device) as there,
        Detector.load(path, device="cpu") as here,
    ):
        assert there.runtime.device.startswith(device)
        report = compare(there, here, list(pictures), TOLERANCES["fp32"])
    assert report.detections.reference_count > 100
    assert report.passed, report.to_dict()


def test_an_archive_gives_the_heads_of_the_cpu(network, device, archive, pictures, tf32):
    path = archive(network, HEADS)
    with (
        Detector.load(path, device=device) as there,
        Detector.load(path, device="cpu") as here,
    ):
        expected = here.runtime.run({"images": pictures})
        for name, found in there.runtime.run({"images": pictures}).items():
            np.testing.assert_allclose(found, expected[name], rtol=0, atol=HEAD_TOLERANCE)


def test_a_batch_gives_the_rows_of_its_pictures_alone(network, device, archive, pictures):
    with Detector.load(archive(network), device=device) as detector:
        together = detector.runtime.run({"images": pictures})["detection_scores"]
        alone = [
            detector.runtime.run({"images": pictures[index : index + 1]})["detection_scores"]
            for index in range(BATCH)
        ]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=HEAD_TOLERANCE)


def test_fp16_stays_within_its_stated_tolerance(device, archive, pictures):
    network = conditioned(NAMES[0])
    with (
        Detector.load(archive(network, precision="fp16"), device=device) as half,
        Detector.load(archive(network), device=device) as full,
    ):
        assert half.runtime.precision == "fp16"
        report = compare(half, full, list(pictures), TOLERANCES["fp16"])
    assert report.detections.status != "failed", report.to_dict()
    assert report.detections.matched > 100


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("nms_form", ["matrix", "greedy"])
def test_a_replayed_cuda_graph_reads_the_new_pictures(device, pictures, precision, nms_form):
    from gpu_graphs import Recorded, pipeline_of

    if device == "cpu":
        pytest.skip("only a GPU records: would show that replays read new pictures")
    pipeline, _ = pipeline_of(conditioned(NAMES[0]), OPTIONS, precision, nms_form)
    pipeline = pipeline.cuda()
    recorded = Recorded(pipeline, pictures)
    for batch in (pictures[::-1].copy(), 255 - pictures):
        with torch.inference_mode():
            known = [each.cpu().numpy() for each in pipeline(torch.from_numpy(batch).cuda())]
        found = recorded(batch)
        for value, (name, each) in zip(known, found.items(), strict=True):
            # While a graph is recorded, a library may choose other kernels.
            np.testing.assert_allclose(each, value, atol=HEAD_TOLERANCE, err_msg=name)
