"""The options of an export: how text is read, and which values and combinations are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.errors import UnknownNameError, UsageError
from effdet_deploy.exporters.option_text import parse_batch, parse_channels, parse_image_size
from effdet_deploy.exporters.options import ExportOptions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", BatchSpec(1, 1, 1)),
        ("8", BatchSpec(8, 8, 8)),
        ("1..8", BatchSpec(1, 1, 8)),
        ("1,4,8", BatchSpec(1, 4, 8)),
    ],
)
def test_batch_takes_a_number_a_range_or_three_numbers(text: str, expected: BatchSpec) -> None:
    assert parse_batch(text) == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("precision", "bf16"),
        ("target", "tensorflow"),
        ("input_kind", "float"),
        ("channel_order", "rbg"),
        ("nms", "soft"),
        ("box_format", "xywh"),
        ("int8_range", "half"),
    ],
)
def test_an_unknown_choice_is_refused(field: str, value: str) -> None:
    with pytest.raises(UnknownNameError, match=value):
        ExportOptions(**{field: value})


@pytest.mark.parametrize("text", ["", "a", "1-8", "1,8", "1..4..8..9", "1.5"])
def test_batch_refuses_other_forms(text: str) -> None:
    with pytest.raises(UsageError, match="--batch"):
        ExportOptions(batch=parse_batch(text))


@pytest.mark.parametrize("batch", [(0, 1, 1), (2, 1, 4), (1, 5, 4), (1, 1, 100_000)])
def test_batches_that_do_not_ascend_from_one_are_refused(batch: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="--batch"):
        ExportOptions(batch=BatchSpec(*batch))


@pytest.mark.parametrize(
    ("text", "expected"), [("512", (512, 512)), ("384x640", (384, 640)), ("384X640", (384, 640))]
)
def test_image_size_is_a_square_or_height_by_width(text: str, expected: tuple[int, int]) -> None:
    assert parse_image_size(text) == expected


@pytest.mark.parametrize("text", ["x", "12.5", "1x2x3", "-5", "²"])
def test_image_size_refuses_other_forms(text: str) -> None:
    with pytest.raises(UsageError, match="--image-size"):
        parse_image_size(text)


def test_channels_are_one_number_or_several() -> None:
    assert parse_channels("--mean", "0.5", float) == (0.5,)
    assert parse_channels("--fill", "1,2,3", int) == (1, 2, 3)
    for text in ("", "a", "1,,2", "0.5;0.5"):
        with pytest.raises(UsageError, match="--fill"):
            parse_channels("--fill", text, int)


def test_preprocessing_holds_the_config_fields_that_were_given() -> None:
    assert ExportOptions().preprocessing == {}
    options = ExportOptions(resize="stretch", mean=(0.0,), std=(1.0,), fill=(1, 2, 3))
    assert options.preprocessing == {
        "resize": "stretch",
        "mean": 0.0,
        "std": 1.0,
        "fill_color": (1, 2, 3),
    }


@pytest.mark.parametrize(
    "given", [{"resize": "crop"}, {"interpolation": "cubic"}, {"trained_on": "gbr"}]
)
def test_an_unknown_preprocessing_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UnknownNameError):
        ExportOptions(**given)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        # On the 0-255 scale, by mistake.
        ("mean", (123.675, 116.28, 103.53)),
        ("std", (58.395, 57.12, 57.375)),
        ("std", (0.0,)),
        ("fill", (256,)),
        ("score_threshold", 1.0),
        ("score_threshold", float("nan")),
        ("iou_threshold", 0.0),
        ("nms_steps", 0),
        ("max_detections", 0),
        ("opset", 17),
    ],
)
def test_values_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(UsageError, match=field.replace("_", "-")):
        ExportOptions(**{field: value})  # type: ignore[arg-type]


def test_the_full_range_is_refused_without_int8() -> None:
    with pytest.raises(UsageError, match="--int8-range only works with --int8"):
        ExportOptions(precision="fp16", target="openvino", int8_range="full")


def test_the_full_range_cannot_be_asked_for_with_tensorrt(
    tmp_path: Path,
) -> None:
    """A file for TensorRT always has the full range."""
    options = ExportOptions(
        precision="int8", target="tensorrt", calibration=tmp_path, int8_range="full"
    )
    with pytest.raises(UsageError, match="--int8-range full is only for runtimes on a CPU"):
        options.require_fits(".onnx")


def test_soft_nms_is_only_for_raw_heads() -> None:
    assert ExportOptions(soft_nms=True, nms="none").soft_nms
    with pytest.raises(UsageError, match="cannot be part of a graph"):
        ExportOptions(soft_nms=True)


def test_deepstream_is_tensorrt_with_float_pictures() -> None:
    options = ExportOptions(
        target="deepstream", frame_size=(1080, 1920), precision="int8", calibration=Path("pictures")
    )
    assert options.runtime == options.precision_spec.target == "tensorrt"
    assert options.precision_spec.int8_range == "full"
    assert options.graph_input == "float255"
    options.require_fits(".onnx")
    options.require_fits(".engine")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"input_kind": "float255"}, "takes frames as uint8"),
        ({"nms": "plugin", "target": "tensorrt"}, "in network pixels"),
        ({"source_size": (0, 1920)}, "--source-size must be from 1x1"),
        ({"source_size": (1080, 20_000)}, "--source-size must be from 1x1"),
        ({"target": "deepstream", "frame_size": (720, 1280)}, "DeepStream scales them itself"),
    ],
)
def test_options_that_contradict_a_source_size_are_refused(
    given: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UsageError, match=expected):
        ExportOptions(**{"source_size": (1080, 1920), **given})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"target": "deepstream"}, "--frame-size only work together"),
        ({"frame_size": (1080, 1920)}, "--frame-size only work together"),
        ({"target": "tensorrt", "frame_size": (1080, 1920)}, "--frame-size only work together"),
        ({"target": "deepstream", "frame_size": (1080, 1921)}, "--frame-size must be even"),
        ({"target": "deepstream", "frame_size": (0, 1920)}, "--frame-size must be even"),
        (
            {"target": "deepstream", "frame_size": (720, 1280), "input_kind": "normalized"},
            "--input",
        ),
        ({"target": "deepstream", "frame_size": (720, 1280), "nms": "none"}, "--nms none"),
        ({"target": "deepstream", "frame_size": (720, 1280), "nms": "plugin"}, "--nms plugin"),
    ],
)
def test_options_that_contradict_deepstream_are_refused(
    given: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UsageError, match=expected):
        ExportOptions(**given)


def test_a_torchscript_file_is_not_for_deepstream() -> None:
    options = ExportOptions(target="deepstream", frame_size=(720, 1280))
    with pytest.raises(UsageError, match="--target deepstream is only for ONNX files"):
        options.require_fits(".torchscript")
