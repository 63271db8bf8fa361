"""What an INT8 export says of its speed on the machine at hand."""

from __future__ import annotations

import dataclasses
import shutil

import onnx
import pytest

from effdet_deploy.artifact.spec import METADATA_KEY, PrecisionSpec
from effdet_deploy.benchmark.machine import LoadWatch
from effdet_deploy.benchmark.measure import Ratio
from effdet_deploy.errors import DeviceError, MissingPackageError, ResourceError
from effdet_deploy.exporters import speed
from effdet_deploy.exporters.lowering import exact_path
from tests.precision.tiny_network import network_spec, tiny_network

QUIET = LoadWatch().load


def quiet(_stage):
    pass


@pytest.fixture
def pair(tmp_path):
    """Two files of the same speed: a network as INT8's stand-in, and the same as FP32's."""
    precision = PrecisionSpec("int8", "onnxruntime")
    spec = dataclasses.replace(network_spec(), precision=precision)
    model = tiny_network()
    onnx.helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.save(model, tmp_path / "model.onnx")
    shutil.copyfile(tmp_path / "model.onnx", exact_path(tmp_path / "model.onnx"))
    return tmp_path / "model.onnx", spec


def test_an_int8_file_is_timed_in_the_engine_it_is_laid_out_for(pair):
    (note,) = speed.speed_notes(*pair, quiet)
    assert "INT8" in note
    assert "FP32 in ONNX Runtime on this machine" in note


@pytest.mark.parametrize(
    ("kind", "target"), [("int8", "tensorrt"), ("fp16", "openvino"), ("fp32", None)]
)
def test_what_is_not_run_here_is_not_timed(pair, kind, target):
    path, spec = pair
    other = dataclasses.replace(spec, precision=PrecisionSpec(kind, target))
    assert speed.speed_notes(path, other, quiet) == ()


@pytest.mark.parametrize(
    "error",
    [MissingPackageError("openvino", "running", "openvino"), DeviceError("No libtbb.so.12.", "")],
    ids=["absent", "broken"],
)
def test_an_engine_that_cannot_be_loaded_is_no_error(error, pair, monkeypatch):
    def absent(*_arguments, **_settings):
        raise error

    monkeypatch.setattr(speed.Detector, "load", absent)
    assert speed.speed_notes(*pair, quiet) == ()


@pytest.mark.parametrize("stage", ["load", "detect_prepared"])
def test_an_export_is_not_lost_because_it_could_not_be_timed(stage, pair, monkeypatch):
    def fail(*_arguments, **_settings):
        raise ResourceError("The memory ran out.", "Free some.")

    monkeypatch.setattr(speed.Detector, stage, fail)
    (note,) = speed.speed_notes(*pair, quiet)
    assert note == "INT8 could not be timed against FP32: The memory ran out."


def test_a_model_that_takes_long_is_not_timed_and_the_user_is_told(pair, monkeypatch):
    monkeypatch.setattr(speed, "LONGEST_RUN_S", 0.0)
    (note,) = speed.speed_notes(*pair, quiet)
    assert "effdet-deploy bench" in note


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (Ratio(1.5, 1.4, 1.6, 11), "INT8 is 1.50x (1.40-1.60) as fast as FP32 in OpenVINO"),
        (Ratio(0.8, 0.7, 0.9, 11), "INT8 is not faster than FP32 in OpenVINO"),
        (Ratio(1.1, 0.9, 1.3, 11), "INT8 is not faster than FP32 in OpenVINO"),
    ],
)
def test_it_is_said_where_int8_does_not_pay(ratio, said):
    assert said in speed._sentence(ratio, "OpenVINO", QUIET)


def test_a_busy_machine_is_named():
    busy = dataclasses.replace(QUIET, observed=True, other_share=0.9)
    assert "busy" in speed._sentence(Ratio(1.5, 1.4, 1.6, 11), "OpenVINO", busy)
