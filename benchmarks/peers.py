"""The peers that our graphs are timed against: same weights, same pictures, one process.

Every peer is a function of one batch of letterboxed pictures, uint8 ``[N,H,W,3]`` in host memory.
*End to end*, it returns rows of boxes in host memory. *Network*, it takes normalised float32
``[N,3,H,W]`` and returns raw heads, as ``--input normalized --nms none`` does.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import shutil
import warnings
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import effdet
import numpy as np
import torch
from effdet.bench import DetBenchPredict
from engines import onnxruntime_session, openvino_session
from kept import code_digest, finished
from PIL import Image
from torch import Tensor, nn

from effdet_deploy import ExportOptions, export
from effdet_deploy.benchmark.samples import SEED
from effdet_deploy.detector import Detector
from effdet_deploy.exporters.lowering import lower_precision
from effdet_deploy.images import to_input
from effdet_deploy.model import create_model, resolve_name
from effdet_deploy.model.conditioning import randomise
from effdet_deploy.pictures import structured_pictures
from effdet_deploy.precision.calibration import MIN_IMAGES
from effdet_deploy.runtimes.adapter import run_images
from effdet_deploy.runtimes.modelfile import read_spec
from effdet_deploy.spec import BatchSpec, PrecisionSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from effdet_deploy.model import EfficientDet
    from effdet_deploy.spec import InputSpec, Target

    Run = Callable[[], Any]

OURS = "ours, ONNX Runtime"
"""The peer that all others are compared with."""
CALIBRATION_SEED = 7
LARGEST_BATCH = 8
"""That one export serves; a larger batch has its own."""
COMPILED = ("effdet torch.compile FP32", "effdet torch.compile BF16")
INT8 = (
    "ours, OpenVINO INT8",
    "ours, OpenVINO INT8, the rest BF16",
    "ours, ONNX Runtime INT8",
)
COSTLY = (*COMPILED, INT8[-1], "ours, TorchScript")
"""Peers that take minutes to make, and that are timed for some variants only."""
ALONE = (*COSTLY, "ours, OpenVINO BF16", INT8[1])
"""Peers that are timed with one image at a time: what a batch does to the others says enough."""
AGREEMENT = 1e-2
"""Between the best scores of ours and of effdet: peers that compute something else are no peers."""


@dataclass(frozen=True)
class Case:
    """What is timed: one variant at one size, batch and thread count; files go to ``directory``."""

    variant: str
    image_size: int | None
    batch: int
    threads: int
    directory: Path
    verify: bool = True

    @property
    def stem(self) -> str:
        """Begins the names of the case's files; exports serve every batch and thread count."""
        return f"{self.variant}_{self.image_size or 'own'}"

    @property
    def weights(self) -> Path:
        """The checkpoint of the case, in the form that effdet reads as well."""
        return self.directory / f"{self.stem}.pth"


@dataclass(frozen=True)
class Weights:
    """Two networks with the same weights, and the input our graphs take.

    ``compiled`` holds what torch.compile took minutes to make, for the next table.
    """

    ours: EfficientDet
    theirs: nn.Module
    pictures: NDArray[np.uint8]
    compiled: dict[str, nn.Module] = field(default_factory=dict)


def load_weights(case: Case) -> Weights:
    """Make seeded, conditioned weights and give them to both implementations, strictly."""
    ours = create_model(case.variant, image_size=case.image_size)
    stored = case.weights
    if stored.exists():
        ours.load_state_dict(torch.load(stored, weights_only=True))
    else:
        randomise(ours)
        with finished(stored) as partly:
            torch.save(ours.state_dict(), partly)
    size = ours.config.image_size
    theirs = effdet.create_model(
        resolve_name(case.variant), pretrained_backbone=False, image_size=size
    ).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return Weights(ours.eval(), theirs, structured_pictures(case.batch, *size, SEED))


class Normalise(nn.Module):
    """What effdet's loader does to a batch on its way to the network."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(config.mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(config.std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 ``[N,H,W,3]`` to float32 ``[N,3,H,W]``."""
        return images.permute(0, 3, 1, 2).float().sub_(self.mean).div_(self.std)


class Foreign(nn.Module):
    """A network that runs elsewhere than in torch, with effdet's outputs: two lists of levels."""

    def __init__(self, run: Callable[[NDArray[Any]], Sequence[NDArray[Any]]]) -> None:
        super().__init__()
        self.run = run

    def forward(self, pixels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Map normalised images to class and box outputs, level by level."""
        maps = [torch.from_numpy(each) for each in self.run(pixels.numpy())]
        return maps[: len(maps) // 2], maps[len(maps) // 2 :]


class Half(nn.Module):
    """A network in bfloat16 whose inputs and outputs stay float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).to(torch.bfloat16)

    def forward(self, pixels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Map as the network does."""
        classes, boxes = self.network(pixels.to(torch.bfloat16))
        return [each.float() for each in classes], [each.float() for each in boxes]


def effdet_networks(case: Case, weights: Weights, names: Sequence[str]) -> dict[str, nn.Module]:
    """Return every form in which effdet itself can be run, by name; only those in ``names``."""
    makers: dict[str, Callable[[], nn.Module]] = {
        "effdet eager": lambda: weights.theirs,
        COMPILED[0]: lambda: weights.compiled.setdefault(
            COMPILED[0], torch.compile(copy.deepcopy(weights.theirs))
        ),
        COMPILED[1]: lambda: weights.compiled.setdefault(
            COMPILED[1], torch.compile(Half(weights.theirs))
        ),
        "effdet naive ONNX, ONNX Runtime": lambda: Foreign(
            onnxruntime_session(naive_onnx(case, weights), case.threads)
        ),
        "effdet naive ONNX, OpenVINO FP32": lambda: Foreign(
            openvino_session(naive_onnx(case, weights), case, "f32")
        ),
    }
    return {name: make() for name, make in makers.items() if name in names}


EFFDET_PEERS = (
    "effdet eager",
    *COMPILED,
    "effdet naive ONNX, ONNX Runtime",
    "effdet naive ONNX, OpenVINO FP32",
)
OUR_PEERS = (
    OURS,
    "ours, OpenVINO FP32",
    "ours, OpenVINO BF16",
    *INT8,
    "ours, TorchScript",
)
PEERS = (*EFFDET_PEERS, *OUR_PEERS)


def naive_onnx(case: Case, weights: Weights) -> Path:
    """Export effdet as its users do: raw heads, one call, one fixed batch size."""
    path = case.directory / f"{case.stem}_naive_b{case.batch}.onnx"
    if not path.exists():
        example = torch.randn(case.batch, 3, *weights.pictures.shape[1:3])
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            finished(path) as partly,
        ):
            warnings.simplefilter("ignore")
            torch.onnx.export(weights.theirs, (example,), partly, dynamo=True, external_data=False)
    return path


def our_file(case: Case, weights: Weights, part: str, suffix: str = ".onnx") -> Path:
    """Export our graph for a range of batch sizes, the whole of it or the network alone."""
    largest = max(case.batch, LARGEST_BATCH)
    beyond = "" if largest == LARGEST_BATCH else f"_to_{largest}"
    name = f"{case.stem}_ours_{part.replace(' ', '_')}{beyond}_{code_digest()}{suffix}"
    path = case.directory / name
    if not path.exists():
        batch = BatchSpec(1, 1, largest)
        options = ExportOptions(batch=batch, verify=case.verify)
        if part == "network":
            options = ExportOptions(
                batch=batch, verify=case.verify, input_kind="normalized", nms="none"
            )
        export(weights.ours, path, options)
    return path


def our_input(case: Case, weights: Weights, part: str) -> NDArray[Any]:
    """Return the pictures as our file for ``part`` takes them."""
    return to_input(weights.pictures, _spec(case, weights, part))


def _spec(case: Case, weights: Weights, part: str) -> InputSpec:
    return read_spec(our_file(case, weights, part), "onnx").input


def int8_file(case: Case, weights: Weights, part: str, target: Target) -> Path:
    """Lower our FP32 file to INT8 for an engine, calibrated on pictures that are not timed.

    It is lowered and not verified: random weights say nothing of what INT8 costs in accuracy.
    """
    source = our_file(case, weights, part)
    path = source.with_name(f"{source.stem}_int8_{target}.onnx")
    if not path.exists():
        staging = case.directory / f"{path.stem}.lowering"
        staging.mkdir(exist_ok=True)
        staged = Path(shutil.copyfile(source, staging / path.name))
        spec = read_spec(source, "onnx")
        spec = dataclasses.replace(spec, precision=PrecisionSpec("int8", target))
        calibration = calibration_folder(case, weights)
        options = ExportOptions(precision="int8", target=target, calibration=calibration)
        lower_precision(staged, spec, options, lambda _stage: None)
        staged.replace(path)
    return path


def calibration_folder(case: Case, weights: Weights) -> Path:
    """Write pictures like those that are timed, of another seed."""
    height, width = weights.ours.config.image_size
    folder = case.directory / f"calibration_{height}x{width}"
    if not folder.exists():
        with finished(folder) as partly:
            partly.mkdir(exist_ok=True)
            made = structured_pictures(MIN_IMAGES, height, width, CALIBRATION_SEED)
            for index, picture in enumerate(made):
                Image.fromarray(picture).save(partly / f"{index}.png")
    return folder


def our_runs(
    case: Case, weights: Weights, part: str, names: Sequence[str], stack: contextlib.ExitStack
) -> dict[str, Run]:
    """Return every engine that runs our graph, by name; only those in ``names``."""
    feed = our_input(case, weights, part)
    float32 = partial(our_file, case, weights, part)
    int8 = partial(int8_file, case, weights, part, "openvino")

    def openvino(path: Path) -> Run:
        if part == "network":
            # As its peers run it.
            return partial(openvino_session(path, case, "f32"), feed)
        return _detector_run(path, case, part, feed, stack, backend="openvino")

    makers: dict[str, Callable[[], Run]] = {
        OURS: lambda: _detector_run(float32(), case, part, feed, stack),
        "ours, OpenVINO FP32": lambda: openvino(float32()),
        "ours, OpenVINO BF16": lambda: partial(openvino_session(float32(), case, "bf16"), feed),
        "ours, OpenVINO INT8": lambda: openvino(int8()),
        "ours, OpenVINO INT8, the rest BF16": lambda: partial(
            openvino_session(int8(), case, "bf16"), feed
        ),
        "ours, ONNX Runtime INT8": lambda: _detector_run(
            int8_file(case, weights, part, "onnxruntime"), case, part, feed, stack
        ),
        "ours, TorchScript": lambda: _detector_run(
            float32(".torchscript"), case, part, feed, stack
        ),
    }
    return {name: make() for name, make in makers.items() if name in names}


def _detector_run(
    path: Path,
    case: Case,
    part: str,
    feed: NDArray[Any],
    stack: contextlib.ExitStack,
    backend: str = "auto",
) -> Run:
    detector = stack.enter_context(Detector.load(path, backend, "cpu", case.threads))
    if part == "network":
        return partial(run_images, detector.runtime, feed)
    return partial(detector.detect_prepared, feed)


def artifact_runs(
    case: Case, weights: Weights, paths: Sequence[Path], stack: contextlib.ExitStack
) -> dict[str, Run]:
    """Return further files of ours, such as INT8 ones, end to end."""
    runs: dict[str, Run] = {}
    for path in paths:
        detector = stack.enter_context(Detector.load(path, device="cpu", threads=case.threads))
        feed = to_input(weights.pictures, detector.spec.input)
        runs[f"ours, {path.name}"] = partial(detector.detect_prepared, feed)
    return runs


def create_runs(
    case: Case,
    weights: Weights,
    part: str,
    names: Sequence[str],
    stack: contextlib.ExitStack,
) -> dict[str, Run]:
    """Return every peer in ``names`` as something to time, for ``part``."""
    torch.set_num_threads(case.threads)
    networks = effdet_networks(case, weights, names)
    if part == "network":
        pixels = torch.from_numpy(our_input(case, weights, part))
        runs = {name: _without_gradients(partial(each, pixels)) for name, each in networks.items()}
    else:
        normalise = Normalise(weights.ours.config)
        runs = {
            name: _without_gradients(
                partial(_effdet_rows, normalise, _bench(weights.theirs, each), weights.pictures)
            )
            for name, each in networks.items()
        }
    return runs | our_runs(case, weights, part, names, stack)


def _bench(theirs: nn.Module, network: nn.Module) -> DetBenchPredict:
    """Return effdet's post-processing around ``network``."""
    bench = DetBenchPredict(theirs)
    bench.model = network
    return bench


def _effdet_rows(
    normalise: nn.Module, bench: nn.Module, pictures: NDArray[np.uint8]
) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = bench(normalise(torch.from_numpy(pictures))).numpy()
    return rows


def _without_gradients(run: Run) -> Run:
    def quiet() -> Any:
        with torch.inference_mode():
            return run()

    return quiet


def require_agreement(runs: dict[str, Run]) -> float:
    """Check that effdet eager and ours find the same best scores, end to end.

    Returns:
        The largest difference among the ten best scores of each picture.

    Raises:
        RuntimeError: they do not, so that a comparison of their times would say nothing.
    """
    if OURS not in runs or "effdet eager" not in runs:
        return 0.0
    theirs = np.asarray(runs["effdet eager"]())[:, :10, 4]
    ours = runs[OURS]()["detection_scores"][:, :10]
    difference = float(np.abs(theirs - ours).max())
    if difference > AGREEMENT:
        message = f"ours and effdet differ by {difference:.3f} in their best scores"
        raise RuntimeError(message)
    return difference
