from __future__ import annotations

import dataclasses
import json

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
    InputSpec,
    OutputSpec,
)
from effdet_deploy.errors import DataError

# Text with surrogates is no text, and NaN equals nothing.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
for _kind, _strategy in ((str, TEXT), (float, FLOATS)):
    st.register_type_strategy(_kind, _strategy)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def specs() -> st.SearchStrategy[DetectorSpec]:
    return st.builds(
        DetectorSpec,
        overrides=st.dictionaries(TEXT, JSON_VALUES, max_size=3),
        operators=st.dictionaries(TEXT, st.integers(), max_size=3),
        tools=st.dictionaries(TEXT, TEXT, max_size=3),
        engine=st.none() | st.from_type(EngineSpec),
        version=st.just(SPEC_VERSION),
    )


@pytest.fixture
def spec() -> DetectorSpec:
    return DetectorSpec(
        variant="tf_efficientdet_d0",
        input=InputSpec(128, 192),
        anchors=AnchorSpec(3, 7, 3, ((1.0, 1.0), (1.4, 0.7)), 4.0),
        classes=(ClassSpec("circle", 7), ClassSpec("quadrado é", 9)),
    )


@given(specs())
def test_a_spec_comes_back_from_json_as_it_was(spec):
    assert DetectorSpec.from_json(spec.to_json()) == spec


@given(specs())
def test_equal_specs_give_equal_text(spec):
    assert DetectorSpec.from_json(spec.to_json()).to_json() == spec.to_json()


def test_whole_numbers_are_taken_for_floats(spec):
    document = json.loads(spec.to_json())
    document["anchors"]["scale"] = 4
    scale = DetectorSpec.from_dict(document).anchors.scale
    assert (scale, type(scale)) == (4.0, float)


def test_fields_of_later_minor_additions_are_ignored(spec):
    document = json.loads(spec.to_json()) | {"colour": "blue"}
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
def test_a_field_of_another_type_is_named(spec, path, value):
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


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '"spec"', "3"])
def test_what_is_no_spec_is_refused(text):
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


def test_batches_read_as_people_write_them():
    assert (BatchSpec(4, 4, 4).is_static, str(BatchSpec(4, 4, 4))) == (True, "4")
    assert (BatchSpec(1, 2, 8).is_static, str(BatchSpec(1, 2, 8))) == (False, "1..8 (tuned for 2)")
