"""Annotations with any value in any place are read, or refused with an error of this package."""

from __future__ import annotations

import contextlib
import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effdet_deploy.artifact.labels import read_labels
from effdet_deploy.errors import EffdetDeployError
from effdet_deploy.evaluation.classmap import join_classes
from effdet_deploy.evaluation.cocoset import find_pictures, read_coco
from effdet_deploy.evaluation.soundness import doubts_about
from tests.evaluation.sets import write_set
from tests.onnx_models import detector_spec

ODD = (
    *(None, True, False, 0, -1, 1, 3, 2.5, 1e308, float("nan"), float("inf"), -0.0, 10**400),
    *("", "3", "x", "\ud800", "a" * 2000, "../x", "/etc/passwd", "001.png", "images\\001.png"),
    *([], {}, [[]], [1, 2, 3, 4], {"id": 1}),
)


def places(value, before=()):
    """Yield, for every value in a document, the keys that lead to it."""
    if before:
        yield before
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in pairs:
            yield from places(each, (*before, key))


@pytest.fixture(scope="module")
def annotations(tmp_path_factory):
    path = write_set(tmp_path_factory.mktemp("hostile") / "set", images=2)
    return path, json.loads(path.read_text())


def read_all(path):
    """Yield one function for each way in which the package reads annotations."""
    yield lambda: read_labels(path).classes(3)
    yield lambda: read_labels(path).classes(12, "id")
    yield lambda: find_pictures(path)

    def whole():
        dataset = read_coco(path)
        doubts_about(dataset)
        join_classes(detector_spec(), dataset.categories)

    yield whole


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(drawn=st.data())
def test_annotations_with_any_values_raise_only_errors_of_the_package(annotations, drawn):
    path, sound = annotations
    document = copy.deepcopy(sound)
    for _ in range(drawn.draw(st.integers(1, 3))):
        *way, last = drawn.draw(st.sampled_from(list(places(document))))
        holder = document
        for key in way:
            holder = holder[key]
        if isinstance(holder, dict) and drawn.draw(st.booleans()):
            del holder[last]
        else:
            holder[last] = copy.deepcopy(drawn.draw(st.sampled_from(ODD)))
        if not document:
            break
    path.write_text(json.dumps(document))
    for read in read_all(path):
        with contextlib.suppress(EffdetDeployError):
            read()


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".pbtxt", ".txt"])
@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(content=st.binary(max_size=60) | st.text("{}[]:,'\"\\\n #&*!|>-01aé\ud800", max_size=60))
def test_label_files_of_any_content_raise_only_errors_of_the_package(tmp_path, suffix, content):
    path = tmp_path / f"labels{suffix}"
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    path.write_bytes(data)
    with contextlib.suppress(EffdetDeployError):
        read_labels(path).classes(3)
