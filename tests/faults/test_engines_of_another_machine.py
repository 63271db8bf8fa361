"""TensorRT engines that were edited, built for another machine, or fail when they run.

A sidecar is the JSON file beside an engine that describes it.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.errors import (
    DeviceError,
    ModelFileError,
    ResourceError,
    TensorError,
    UsageError,
)
from effdet_deploy.files import sidecar_path
from effdet_deploy.runtimes import load_runtime
from effdet_deploy.runtimes.gpu import Gpu
from tests.doubles.cuda import HostCuda
from tests.doubles.installed import install_double, write_engine
from tests.doubles.machine import recorded
from tests.onnx_models import SIDE, write_tiny


@pytest.fixture
def engine(tmp_path):
    return write_engine(tmp_path / "tiny.engine")


@pytest.fixture
def log(tmp_path):
    return tmp_path / "calls.jsonl"


@pytest.fixture
def use_double(monkeypatch, log):
    return lambda *arguments, **options: install_double(monkeypatch, *arguments, log=log, **options)


def picture(level: int = 51, count: int = 1) -> dict[str, np.ndarray]:
    return {"images": np.full((count, SIDE, SIDE, 3), level, np.uint8)}


def was_deserialized(log) -> bool:
    return log.is_file() and any(each[0] == "deserialize_cuda_engine" for each in recorded(log))


def test_an_edited_engine_is_refused_before_tensorrt_sees_it(engine, use_double, log):
    use_double()
    content = bytearray(engine.read_bytes())
    content[-1] ^= 1
    engine.write_bytes(content)

    with pytest.raises(ModelFileError, match="the hash differs"):
        load_runtime(engine)

    assert not was_deserialized(log)


def test_a_renamed_engine_is_refused(engine, use_double, log):
    use_double()
    renamed = engine.rename(engine.with_name("other.engine"))

    with pytest.raises(ModelFileError, match=r"no sidecar 'other\.engine\.json'") as caught:
        load_runtime(renamed)

    assert "--trust" in caught.value.remedy
    assert not was_deserialized(log)


def test_the_sidecar_of_another_engine_is_noticed(engine, use_double, tmp_path):
    use_double()
    other = write_engine(tmp_path / "other.engine", BatchSpec(1, 2, 4))
    shutil.copy(sidecar_path(engine), sidecar_path(other))

    with pytest.raises(ModelFileError, match="is not the one that its sidecar describes"):
        load_runtime(other, trust=True)


def test_another_release_is_named_before_deserializing(tmp_path, use_double, log):
    use_double()
    engine = write_engine(tmp_path / "tiny.engine", version="10.9.0.34")

    with pytest.raises(
        ModelFileError, match=r"built for TensorRT 10\.9\.0\.34, but this is TensorRT 10\.16"
    ):
        load_runtime(engine)

    assert not was_deserialized(log)


def test_a_version_compatible_engine_runs_under_a_later_release(tmp_path, use_double, log):
    use_double()
    traits = ("version-compatible",)
    engine = write_engine(tmp_path / "tiny.engine", version="10.9.0.34", traits=traits)

    load_runtime(engine)

    # A version-compatible plan brings code of its own, which TensorRT loads only if it may.
    assert ["deserialize_cuda_engine", "True"] in recorded(log)


@pytest.mark.parametrize("version", ["10.17.0.1", "9.3.0", "11.0.0"])
def test_version_compatible_does_not_mean_any_version(version, tmp_path, use_double):
    use_double()
    traits = ("version-compatible",)
    engine = write_engine(tmp_path / "tiny.engine", version=version, traits=traits)

    with pytest.raises(ModelFileError, match="was built for TensorRT"):
        load_runtime(engine)


@pytest.mark.parametrize("gpu", [Gpu("NVIDIA T4", "7.5"), Gpu("NVIDIA L4", "8.9")])
def test_another_gpu_is_named_before_deserializing(gpu, engine, use_double, log):
    use_double(gpus=(gpu,))

    with pytest.raises(ModelFileError, match=rf"built for NVIDIA Double .*this is {gpu.name}"):
        load_runtime(engine)

    assert not was_deserialized(log)


@pytest.mark.parametrize(
    ("level", "gpu", "runs"),
    [
        ("ampere+", Gpu("NVIDIA B200", "10.0"), True),
        ("ampere+", Gpu("NVIDIA T4", "7.5"), False),
        ("same-compute-capability", Gpu("NVIDIA L4", "8.9"), True),
        ("same-compute-capability", Gpu("NVIDIA A100", "8.0"), False),
    ],
)
def test_hardware_compatible_engines_run_only_on_gpus_of_their_level(
    level, gpu, runs, tmp_path, use_double
):
    use_double(gpus=(gpu,))
    traits = (f"hardware-compatible={level}",)
    engine = write_engine(tmp_path / "tiny.engine", traits=traits)

    if runs:
        assert load_runtime(engine).run(picture())
    else:
        with pytest.raises(ModelFileError, match="was built for NVIDIA Double"):
            load_runtime(engine)


def test_a_stripped_engine_is_refused(tmp_path, use_double, log):
    use_double()
    engine = write_engine(tmp_path / "tiny.engine", traits=("strip-plan",))

    with pytest.raises(ModelFileError, match="holds no weights"):
        load_runtime(engine)

    assert not was_deserialized(log)


def test_an_engine_that_tensorrt_cannot_deserialize_is_an_error_with_its_reason(engine, use_double):
    use_double("deserialise returns None")

    with pytest.raises(ModelFileError, match=r"could not load.*Serialization assertion failed"):
        load_runtime(engine)


def test_an_onnx_file_named_engine_is_recognized(tmp_path):
    path = write_tiny(tmp_path / "tiny.onnx").rename(tmp_path / "tiny.engine")

    with pytest.raises(ModelFileError, match="holds an ONNX model, not a TensorRT engine"):
        load_runtime(path)


def test_a_batch_outside_the_profile_is_refused_with_the_profile(tmp_path, use_double, log):
    use_double()
    runtime = load_runtime(write_engine(tmp_path / "tiny.engine", BatchSpec(1, 2, 4)))
    runtime.run(picture(count=2))

    with pytest.raises(TensorError, match=r"\[1\.\.4, 128, 128, 3\], not \[5, 128, 128, 3\]"):
        runtime.run(picture(count=5))

    assert len([each for each in recorded(log) if each[0] == "execute_async_v3"]) == 1


def test_a_shape_that_tensorrt_refuses_gives_no_stale_outputs(tmp_path, use_double, monkeypatch):
    """TensorRT only returns False, and its buffers still hold the outputs of the run before."""
    use_double()
    runtime = load_runtime(write_engine(tmp_path / "tiny.engine", BatchSpec(1, 2, 4)))
    runtime.run(picture(count=2))
    monkeypatch.setenv("TENSORRT_DOUBLE", "shape refused")

    with pytest.raises(ModelFileError, match=r"could not take the shape \[3, 128, 128, 3\]"):
        runtime.run(picture(count=3))


def test_a_profile_that_differs_from_the_spec_is_refused(tmp_path, use_double):
    """The plan comes from another build, and somebody wrote its hash into the sidecar."""
    use_double()
    engine = write_engine(tmp_path / "tiny.engine", BatchSpec(1, 2, 4))
    other = write_engine(tmp_path / "other.engine", BatchSpec(1, 1, 8))
    text = sidecar_path(other).read_text().replace('"maximum": 8', '"maximum": 4')
    engine.write_bytes(other.read_bytes())
    sidecar_path(engine).write_text(text)

    with pytest.raises(ModelFileError, match="does not fit its spec"):
        load_runtime(engine)


def test_no_gpu_is_refused(engine, use_double):
    use_double(gpus=())

    with pytest.raises(DeviceError, match="the NVIDIA driver reports 0 GPUs"):
        load_runtime(engine)


def test_an_engine_is_never_run_on_the_cpu(engine, use_double):
    use_double()

    with pytest.raises(DeviceError, match="runs only on an NVIDIA GPU"):
        load_runtime(engine, device="cpu")


def test_many_threads_get_the_results_of_a_single_thread(tmp_path, use_double):
    cuda = use_double()
    runtime = load_runtime(write_engine(tmp_path / "tiny.engine", BatchSpec(1, 2, 4)))
    levels = [(index * 7) % 256 for index in range(200)]

    with ThreadPoolExecutor(8) as pool:
        outputs = list(pool.map(lambda level: runtime.run(picture(level)), levels))

    scores = [each["detection_scores"][0, 0] for each in outputs]
    assert scores == pytest.approx([level / 255 for level in levels])
    # There are no more contexts than runs at the same time.
    assert len(cuda.streams) <= 8
    runtime.close()
    assert cuda.is_empty


def test_no_memory_for_a_context_is_an_error_when_the_engine_is_loaded(engine, use_double):
    cuda = use_double("no memory for a context")

    with pytest.raises(ResourceError, match="could not create an execution context"):
        load_runtime(engine)

    assert cuda.is_empty


def test_no_memory_for_buffers_is_an_error_and_everything_is_given_back(engine, use_double):
    cuda = use_double(cuda=HostCuda(capacity=SIDE * SIDE * 3 + 10))

    with pytest.raises(ResourceError, match="ran out of memory"):
        load_runtime(engine)

    assert cuda.is_empty


def test_a_run_that_tensorrt_refuses_is_an_error_and_the_next_run_is_right(
    engine, use_double, monkeypatch
):
    cuda = use_double()
    runtime = load_runtime(engine)
    runtime.run(picture(255))
    monkeypatch.setenv("TENSORRT_DOUBLE", "enqueue returns False")

    with pytest.raises(ModelFileError, match=r"could not run: Cask convolution execution failed"):
        runtime.run(picture(51))

    monkeypatch.setenv("TENSORRT_DOUBLE", "")
    assert runtime.run(picture(51))["detection_scores"][0, 0] == pytest.approx(0.2)
    runtime.close()
    assert cuda.is_empty


def test_closing_twice_is_harmless_and_use_after_closing_is_an_error(engine, use_double):
    use_double()
    runtime = load_runtime(engine)

    runtime.close()
    runtime.close()

    with pytest.raises(UsageError, match="is closed"):
        runtime.run(picture())


@pytest.mark.parametrize("with_recorder", [False, True], ids=["queued", "recorded"])
def test_outputs_are_read_after_the_stream_is_done(with_recorder, engine, use_double):
    """The double does queued work only when somebody waits for it: an early read finds 0xEE.

    With a recorder, the first run is queued, the second recorded, the third played back.
    """
    use_double(cuda=HostCuda(with_recorder=with_recorder))
    runtime = load_runtime(engine)

    scores = [runtime.run(picture(level))["detection_scores"][0, 0] for level in (255, 51, 102)]

    assert scores == pytest.approx([1.0, 0.2, 0.4])
