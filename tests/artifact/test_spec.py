"""The spec of a model: JSON keeps it whole, version 1 is still read, wrong values are refused."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effdet_deploy.artifact.spec import (
    SPEC_VERSION,
    AnchorSpec,
    BatchSpec,
    ClassSpec,
    DetectorSpec,
    EngineSpec,
    ExternalFile,
    InputSpec,
    OutputSpec,
    PrecisionSpec,
    even_octaves,
)
from effdet_deploy.errors import DataError

RECORDED = json.loads((Path(__file__).parent / "spec_version_1.json").read_text())
"""A spec that version 0.1.0 wrote."""

# UTF-8 cannot encode surrogates, and NaN does not equal itself: neither can come back.
BY_CHANNEL = ("mean", "std", "fill")
CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXT = st.text(CHARACTERS, max_size=20)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def values_of(kind: Any, low: float | None = None, high: float | None = None) -> st.SearchStrategy:
    """Draw values of the type ``kind`` that lie within its bounds."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return values_of(arguments[0], arguments[1].low, arguments[1].high)
    if origin in (types.UnionType, Union):
        return st.none() | values_of(arguments[0])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return st.lists(values_of(arguments[0]), min_size=low or 0, max_size=4).map(tuple)
        return st.tuples(*map(values_of, arguments))
    if origin is dict:
        return st.dictionaries(TEXT, values_of(arguments[1]), max_size=3)
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind, include_extras=True)
        return st.builds(kind, **{name: values_of(each) for name, each in hints.items()})
    plain = {
        str: st.text(CHARACTERS, max_size=20),
        int: st.integers(low, high) if low is not None else st.integers(-(2**53), 2**53),
        float: st.floats(low, high) if low is not None else st.floats(-1e9, 1e9),
        bool: st.booleans(),
        Any: JSON_VALUES,
    }
    return plain[kind]


def specs() -> st.SearchStrategy[DetectorSpec]:
    hints = get_type_hints(DetectorSpec, include_extras=True)
    fields = {name: values_of(each) for name, each in hints.items()}
    levels = st.lists(st.integers(0, 16), min_size=2, max_size=2).map(sorted)
    sizes = st.lists(st.integers(1, 1024), min_size=3, max_size=3).map(sorted)
    rows = st.lists(st.integers(1, 10**6), min_size=2, max_size=2).map(sorted)
    return st.builds(
        lambda levels, sizes, rows, channels, spec: dataclasses.replace(
            spec,
            input=dataclasses.replace(
                spec.input,
                height=512,
                width=640,
                source_size=spec.input.source_size if spec.input.kind == "uint8" else None,
                **{name: getattr(spec.input, name)[:1] * channels for name in BY_CHANNEL},
            ),
            anchors=dataclasses.replace(spec.anchors, min_level=levels[0], max_level=levels[1]),
            batch=BatchSpec(*sizes),
            output=dataclasses.replace(
                spec.output,
                max_detections=rows[0],
                candidates=rows[1],
                soft_nms=spec.output.soft_nms if spec.output.nms == "none" else None,
            ),
        ),
        levels,
        sizes,
        rows,
        st.sampled_from([1, 3, 4]),
        st.builds(DetectorSpec, **fields | {"version": st.just(SPEC_VERSION)}),
    )


@pytest.fixture
def spec() -> DetectorSpec:
    return DetectorSpec(
        variant="tf_efficientdet_d0",
        input=InputSpec(128, 192),
        anchors=AnchorSpec(3, 7, even_octaves(3), ((1.0, 1.0), (1.4, 0.7)), 4.0),
        classes=(ClassSpec("circle", 7), ClassSpec("quadrado é", 9)),
    )


@given(specs())
def test_a_spec_comes_back_from_json_as_it_was(spec):
    assert DetectorSpec.from_json(spec.to_json()) == spec


@given(specs())
def test_a_spec_that_was_read_is_written_as_the_same_text(spec):
    assert DetectorSpec.from_json(spec.to_json()).to_json() == spec.to_json()


def test_a_whole_number_is_taken_where_a_float_belongs(spec):
    document = json.loads(spec.to_json())
    document["anchors"]["scale"] = 4
    scale = DetectorSpec.from_dict(document).anchors.scale
    assert (scale, type(scale)) == (4.0, float)


def test_unknown_fields_of_a_later_release_are_ignored(spec):
    document = json.loads(spec.to_json()) | {"color": "blue"}
    assert DetectorSpec.from_dict(document) == spec


def test_absent_optional_fields_take_their_defaults(spec):
    document = json.loads(spec.to_json())
    del document["output"]
    assert DetectorSpec.from_dict(document).output == OutputSpec()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("variant",), 3),
        (("input",), []),
        (("input", "height"), 128.5),
        (("input", "height"), True),
        (("input", "height"), "128"),
        (("input", "kind"), "jpeg"),
        (("input", "mean"), [0.5, 0.5]),
        (("input", "mean"), 0.5),
        (("anchors", "aspect_ratios"), [[1.0]]),
        (("classes",), {"0": "circle"}),
        (("classes",), [{"name": "circle"}]),
        (("output", "nms"), "soft"),
        (("operators",), {"Conv": "many"}),
        (("engine",), "tensorrt"),
        (("version",), "1"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(spec, path, value):
    document = json.loads(spec.to_json())
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    with pytest.raises(DataError) as caught:
        DetectorSpec.from_dict(document)
    assert path[0] in caught.value.cause
    assert caught.value.remedy


@pytest.mark.parametrize("field", ["variant", "input", "anchors", "classes"])
def test_a_missing_field_is_named(spec, field):
    document = json.loads(spec.to_json())
    del document[field]
    with pytest.raises(DataError, match=field):
        DetectorSpec.from_dict(document)


def test_a_newer_version_asks_for_an_upgrade_before_anything_else(spec):
    document = {"version": SPEC_VERSION + 1, "input": "changed"}
    with pytest.raises(DataError, match="pip install -U effdet-deploy"):
        DetectorSpec.from_dict(document)


def test_a_spec_of_version_1_keeps_its_meaning():
    spec = DetectorSpec.from_dict(RECORDED)
    assert spec.version == SPEC_VERSION
    assert spec.input == InputSpec(
        256, 256, trained_on="rgb", resize="letterbox", interpolation="antialias", source_size=None
    )
    ratios = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))
    octaves = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
    assert spec.anchors == AnchorSpec(3, 7, octaves, ratios, 4.0, "octaves-first")
    assert [each.name for each in spec.classes] == list("0123456789")
    assert spec.output == OutputSpec(nms_form="matrix", class_agnostic=False)
    kept = ("box_net.predict.conv_pw",)
    assert spec.precision == PrecisionSpec("int8", "tensorrt", kept, None, None)
    assert spec.batch == BatchSpec(1, 2, 4)
    assert spec.external_files == (ExternalFile("model.onnx.data", 123, "ab" * 32),)
    assert spec.engine == EngineSpec("tensorrt", "10.13.0", "NVIDIA L4", "8.9", ("tf32",))
    assert (spec.origin, spec.assumed) == ("effdet", ())
    assert DetectorSpec.from_json(spec.to_json()) == spec


def test_static_nms_of_version_1_without_a_target_has_the_form_blocks():
    document = RECORDED | {"precision": {"kind": "fp32", "target": None, "kept": []}}
    assert DetectorSpec.from_dict(document).output.nms_form == "blocks"


@pytest.mark.parametrize("part", ["anchors", "output", "precision"])
def test_a_damaged_spec_of_version_1_is_refused_and_the_field_named(part):
    with pytest.raises(DataError, match=part):
        DetectorSpec.from_dict(RECORDED | {part: 3})


def test_version_1_with_a_million_octave_scales_is_refused():
    anchors = RECORDED["anchors"] | {"num_scales": 10**6}
    with pytest.raises(DataError, match="num_scales"):
        DetectorSpec.from_dict(RECORDED | {"anchors": anchors})


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("output", "score_threshold", math.nan),
        ("output", "iou_threshold", math.inf),
        ("output", "score_threshold", -0.5),
        ("output", "max_detections", 10**9),
        ("output", "candidates", 0),
        ("output", "nms_steps", 10**9),
        ("anchors", "max_level", 10**9),
        ("anchors", "min_level", -1),
        ("anchors", "scale", 10**400),
        ("anchors", "octave_scales", []),
        ("anchors", "aspect_ratios", [[1.0, 1.0]] * 65),
        ("input", "fill", [10**6, 0, 0]),
        ("input", "std", [0.0, 1.0, 1.0]),
        ("input", "height", 0),
        ("input", "width", 10**9),
        ("input", "source_size", [720, -1]),
        ("batch", "maximum", 10**9),
        ("batch", "minimum", 0),
        (None, "variant", "x" * 2_000_000),
        (None, "variant", "\ud800"),
        (None, "classes", []),
        (None, "classes", [{"name": "x" * 2_000_000, "category_id": 1}]),
        (None, "external_files", [{"name": "x" * 5000, "size": 1, "sha256": ""}]),
        (None, "external_files", [{"name": "x", "size": -1, "sha256": ""}]),
        (None, "overrides", {"mean": math.nan}),
        (None, "overrides", {"name": "\ud800"}),
        (None, "command", "x" * 2_000_000),
    ],
)
def test_a_value_out_of_bounds_is_refused_and_the_field_named_in_few_words(
    spec, part, field, value
):
    """The message stays short even where the value has two million characters."""
    document = json.loads(spec.to_json())
    (document if part is None else document[part])[field] = value
    with pytest.raises(DataError, match=field) as caught:
        DetectorSpec.from_json(json.dumps(document))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("part", "values", "said"),
    [
        ("anchors", {"min_level": 7, "max_level": 3}, "not be above anchors.max_level"),
        ("anchors", {"min_level": 0, "octave_scales": [1.0] * 16}, "anchors"),
        ("batch", {"minimum": 8, "optimum": 4, "maximum": 8}, "ascend"),
        ("output", {"max_detections": 200, "candidates": 100}, "not be above output.candidates"),
        ("output", {"nms": "static", "soft_nms": {"sigma": 0.5}}, "soft_nms needs"),
        ("input", {"std": [1.0]}, "1, 3 or 4 values"),
        ("input", {"source_size": [720, 1280], "kind": "float255"}, "kind must be uint8"),
        ("input", {"mean": [0.0] * 2, "std": [1.0] * 2, "fill": [0] * 2}, "1, 3 or 4 values"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(spec, part, values, said):
    document = json.loads(spec.to_json())
    document["input"] |= {"height": 4096, "width": 4096}
    document[part] |= values
    with pytest.raises(DataError, match=said):
        DetectorSpec.from_dict(document)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    "text",
    [
        nested(200_000),
        '{"version": ' + "9" * 5001 + "}",
        '{"version": 1e400}',
        " " * 20_000_000,
        "NaN",
    ],
    ids=["deep", "long integer", "infinite", "huge", "nan"],
)
def test_json_that_is_made_to_exhaust_a_reader_is_refused(text):
    with pytest.raises(DataError):
        DetectorSpec.from_json(text)


def test_what_is_nested_too_deeply_to_be_copied_is_refused(spec):
    document = json.loads(spec.to_json()) | {"overrides": {"deep": json.loads(nested(300))}}
    with pytest.raises(DataError, match="nested"):
        DetectorSpec.from_dict(document)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '"spec"', "3"])
def test_text_that_is_not_a_spec_is_refused(text):
    with pytest.raises(DataError):
        DetectorSpec.from_json(text)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("uint8", (2, 128, 192, 3)),
        ("float255", (2, 3, 128, 192)),
        ("normalized", (2, 3, 128, 192)),
    ],
)
def test_the_input_shape_follows_the_kind(spec, kind, shape):
    assert dataclasses.replace(spec.input, kind=kind).shape(2) == shape


def test_batches_are_printed_as_people_write_them():
    assert (BatchSpec(4, 4, 4).is_static, str(BatchSpec(4, 4, 4))) == (True, "4")
    assert (BatchSpec(1, 2, 8).is_static, str(BatchSpec(1, 2, 8))) == (False, "1..8 (tuned for 2)")
