from __future__ import annotations

import dataclasses
import itertools
import re

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from effdet_deploy.artifact.classes import class_specs
from effdet_deploy.artifact.placement import heads_placement, place
from effdet_deploy.artifact.spec import DetectorSpec, InputSpec, OutputSpec
from effdet_deploy.detection.letterbox import letterbox, prepare_batch
from effdet_deploy.detection.postprocess import finish_heads
from effdet_deploy.exporters.source import describe
from effdet_deploy.pytorch.graph import create_pipeline, fold_for_inference
from effdet_deploy.pytorch.graph.resizing import FrameResize, cost_notes, multiplications
from effdet_deploy.pytorch.network import get_config
from effdet_deploy.pytorch.reference import EagerReference
from effdet_deploy.synthetic import structured_pictures
from tests.networks import conditioned

SIZES = [
    *((1080, 1920), (720, 1280), (1920, 1080), (480, 640), (2200, 1000), (777, 513), (256, 256)),
    *((300, 200), (90, 1000), (512, 512), (37, 23)),
]
MOST_TIES = 0.03
"""The share of pixels that are a tie between two levels, which Pillow's fixed point decides. It is
largest if the ratio of the sizes has small numbers, such as 2 to 3."""
OPERATORS = {
    *("Conv", "Reshape", "Transpose", "Mul", "Add", "Floor", "Pad", "Shape", "Concat", "Gather"),
    *("Slice", "Unsqueeze", "Squeeze", "Constant", "Cast"),
}


def resized(spec: InputSpec, frames: np.ndarray) -> np.ndarray:
    """Return ``frames`` as the graph resizes and pads them, ``[N,H,W,3]``."""
    module = FrameResize(spec)
    with torch.no_grad():
        levels = module(torch.from_numpy(frames).float()) + module.padded(torch.tensor(spec.fill))
    return levels.permute(0, 2, 3, 1).numpy()


def noise(size: tuple[int, int], images: int = 1) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (images, *size, 3), dtype=np.uint8)


@pytest.mark.parametrize("rule", ["letterbox", "center", "stretch"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_noise_is_resized_as_pillow_does_except_at_ties(size, rule):
    spec = InputSpec(256, 384, source_size=size, resize=rule)
    (frame,) = noise(size)
    (ours,) = resized(spec, frame[None])
    placed = place(spec, *size)
    (left, top), (height, width) = placed.offset, placed.content
    pillow = np.full((256, 384, 3), spec.fill, np.uint8)
    pillow[top : top + height, left : left + width] = Image.fromarray(frame).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    difference = np.abs(ours - pillow)
    assert difference.max() <= 2
    assert np.mean(difference > 0) <= MOST_TIES


def test_a_halved_frame_is_pillows_to_the_last_bit():
    # The weights 1/8 and 3/8 and all sums with them are exact in both programs.
    spec = InputSpec(128, 128, source_size=(256, 256))
    frames = noise((256, 256))
    expected, _ = letterbox(frames[0], dataclasses.replace(spec, source_size=None))
    assert np.array_equal(resized(spec, frames)[0], expected)


@pytest.mark.parametrize("size", [(1080, 1920), (480, 640), (100, 90)], ids=str)
def test_linear_resizing_is_within_one_level_of_opencv(size):
    spec = InputSpec(256, 384, source_size=size, interpolation="linear")
    (frame,) = noise(size)
    expected, _ = letterbox(frame, dataclasses.replace(spec, source_size=None))
    assert np.abs(resized(spec, frame[None])[0] - expected).max() <= 1


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_runtimes_compute_the_same_levels(tmp_path, runtime):
    spec = InputSpec(256, 256, source_size=(720, 1280))
    frames = noise((720, 1280), 2)
    expected = FrameResize(spec)(torch.from_numpy(frames).float()).numpy()
    path = tmp_path / "frames.onnx"
    write(spec, path)
    if runtime == "openvino":
        openvino = pytest.importorskip("openvino")
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        found = openvino.Core().compile_model(path, "CPU", settings)([frames.astype(np.float32)])[0]
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        found = session.run(None, {session.get_inputs()[0].name: frames.astype(np.float32)})[0]
    assert np.abs(found - expected).max() <= 1
    assert np.mean(found != expected) <= 1e-4


def write(spec: InputSpec, path) -> None:
    """Write the resize alone as ONNX, for a batch of any size."""
    example = torch.zeros(2, *spec.taken_size, 3)
    program = torch.onnx.export(
        FrameResize(spec).eval(),
        (example,),
        dynamo=True,
        verbose=False,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=8)},),
    )
    program.save(path)


def test_a_resize_of_static_shape_has_no_operator_that_tensorrt_refuses(tmp_path):
    path = tmp_path / "frames.onnx"
    write(InputSpec(256, 256, source_size=(720, 1280)), path)
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert "Resize" not in kinds
    assert kinds <= OPERATORS


def specification(frame: tuple[int, int] | None, **fields) -> DetectorSpec:
    config = get_config("tf_efficientdet_lite0")
    config = dataclasses.replace(config, image_size=(128, 128))
    spec = describe(config, config, class_specs(90), OutputSpec())
    return dataclasses.replace(
        spec, input=dataclasses.replace(spec.input, source_size=frame, **fields)
    )


def detected(network, spec: DetectorSpec, batch: np.ndarray) -> list[np.ndarray]:
    pipeline = create_pipeline(fold_for_inference(network, spec.input), spec)
    with torch.no_grad():
        return [each.numpy() for each in pipeline(torch.from_numpy(batch))]


@pytest.mark.parametrize(
    ("rule", "order"), itertools.product(["letterbox", "center", "stretch"], ["rgb", "bgr"])
)
def test_a_frame_gives_the_rows_of_an_ordinary_file_in_its_own_pixels(rule, order):
    network = conditioned("tf_efficientdet_lite0")
    spec = specification((192, 256), resize=rule, channel_order=order)
    plain = specification(None, resize=rule, channel_order=order)
    if rule == "stretch":
        spec = specification((256, 256), resize=rule, channel_order=order)
    pictures = list(structured_pictures(2, *spec.input.taken_size, 3))
    frames, _ = prepare_batch(pictures, spec.input)
    batch, placed = prepare_batch(pictures, plain.input)
    number, boxes, scores, classes = detected(network, spec, frames)
    usual = detected(network, plain, batch)
    # The frames are halved, so both files see the same pixels. Rows outside a frame are dropped.
    for index, each in enumerate(placed):
        known = slice(0, usual[0][index, 0])
        expected = each.clipped(usual[1][index, known])
        inside = np.all(expected[:, 2:] > expected[:, :2], axis=1)
        count = np.count_nonzero(inside)
        assert 3 < count <= number[index, 0]
        np.testing.assert_allclose(boxes[index, :count], expected[inside], atol=1e-2)
        np.testing.assert_allclose(scores[index, :count], usual[2][index, known][inside], atol=1e-5)
        assert np.array_equal(classes[index, :count], usual[3][index, known][inside])
        assert not boxes[index, number[index, 0] :].any()


def test_the_reference_takes_frames_by_pillow_and_its_heads_are_mapped_back():
    network = conditioned("tf_efficientdet_lite0")
    spec, plain = specification((192, 256)), specification(None)
    pictures = list(structured_pictures(1, 192, 256, 3))
    framed, ordinary = EagerReference(network, spec), EagerReference(network, plain)
    frames, (placed,) = prepare_batch(pictures, framed.spec.input)
    batch, (usual,) = prepare_batch(pictures, plain.input)
    heads, known = framed.heads(frames), ordinary.heads(batch)
    for name, head in heads.items():
        np.testing.assert_allclose(head, known[name], atol=1e-5)
    assert placed.scale == (1, 1)
    mapped = heads_placement(spec.input, placed)
    assert (mapped.scale, mapped.offset) == (usual.scale, usual.offset)
    rows = finish_heads(heads["class_logits"], heads["box_regression"], framed.spec)
    assert rows["num_detections"][0, 0] > 3


def test_a_picture_of_another_size_is_fitted_into_the_frame():
    spec = specification((192, 256))
    (picture,) = structured_pictures(1, 96, 64, 3)
    frames, (placed,) = prepare_batch([picture], spec.input)
    assert frames.shape == (1, 192, 256, 3)
    assert placed.scale == (2, 2)
    # 64x96 is doubled into the frame, which is halved into the network's input.
    assert heads_placement(spec.input, placed).scale == (1, 1)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_multiplications_are_about_those_of_the_convolutions(size):
    spec = InputSpec(256, 256, source_size=size)
    module = FrameResize(spec)
    height, width = size
    counts = []
    for axis in (module.first, module.second):
        lines = height if axis.along_rows else width * 3
        counts.append(axis.filters.numel() * axis.groups * lines)
        height, width = (height, axis.width // 3) if axis.along_rows else (axis.width, width)
    assert multiplications(spec, size) == pytest.approx(sum(counts), rel=0.5)


def test_for_a_frame_whose_sides_share_no_factor_a_cheaper_size_is_proposed():
    spec = InputSpec(512, 512, source_size=(1079, 1921))
    proposed = re.search(r"Frames of (\d+)x(\d+)", " ".join(cost_notes(spec)))
    cheap = tuple(map(int, proposed.groups()))
    assert multiplications(spec, cheap) < multiplications(spec, (1079, 1921)) / 20
    assert not cost_notes(InputSpec(512, 512, source_size=(1080, 1920)))
    assert not cost_notes(InputSpec(512, 512))


def test_no_size_is_proposed_if_a_frame_of_few_rows_has_no_cheaper_one():
    # The search for sizes nearby would go below one row.
    (said,) = cost_notes(InputSpec(128, 2039, source_size=(4, 16_381)))
    assert "4x16381" in said
    assert "Frames of" not in said
