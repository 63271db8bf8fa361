"""If options say how the training prepared its pictures, detections are those of effdet.

Every test prepares the pictures itself, with Pillow and torch, and gives them to effdet's own
network and post-processing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import effdet
import numpy as np
import pytest
import torch
from effdet.bench import DetBenchPredict
from omegaconf import OmegaConf
from PIL import Image

from effdet_deploy.artifact.classes import class_specs
from effdet_deploy.artifact.spec import OutputSpec
from effdet_deploy.detection.detector import Detector
from effdet_deploy.errors import UsageError
from effdet_deploy.exporters import ExportOptions, export
from effdet_deploy.exporters.source import describe
from effdet_deploy.pytorch.network import create_model, get_config
from effdet_deploy.pytorch.network.random_weights import randomize
from effdet_deploy.synthetic import structured_pictures

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VARIANT, CLASSES, HEIGHT, WIDTH = "tf_efficientdet_lite0", 5, 128, 160
SCORE = 0.1
BOX_TOLERANCE, SCORE_TOLERANCE = 0.05, 1e-3
"""In pixels of the picture, and in scores: effdet orders the operations in float32 differently."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Training:
    """How pictures were prepared in training: as options, and as the code of a data loader.

    ``prepare`` maps a picture of PIL to a canvas ``[H,W,C]``, scale (x, y) and offset (x, y).
    ``mean`` and ``std`` are in the order of the canvas's channels.
    """

    options: dict[str, Any]
    prepare: Callable[[Image.Image], tuple[np.ndarray, tuple[float, float], tuple[int, int]]]
    mean: tuple[float, ...] = HALF[0]
    std: tuple[float, ...] = HALF[1]


def padded(fill: int | tuple[int, ...], *, center: bool = False) -> Callable[[Image.Image], Any]:
    def prepare(picture: Image.Image) -> Any:
        scale = min(HEIGHT / picture.height, WIDTH / picture.width)
        size = int(picture.width * scale), int(picture.height * scale)
        place = ((WIDTH - size[0]) // 2, (HEIGHT - size[1]) // 2) if center else (0, 0)
        canvas = Image.new(picture.mode, (WIDTH, HEIGHT), fill)
        canvas.paste(picture.resize(size, Image.Resampling.BILINEAR), place)
        return np.asarray(canvas).reshape(HEIGHT, WIDTH, -1), (scale, scale), place

    return prepare


def stretched(picture: Image.Image) -> Any:
    canvas = picture.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    return np.asarray(canvas), (WIDTH / picture.width, HEIGHT / picture.height), (0, 0)


def read_by_opencv(picture: Image.Image) -> Any:
    """Prepare a picture as ``cv2.imread`` gives it: BGR, padded with the rounded mean."""
    canvas, *geometry = padded((104, 116, 124))(picture)
    return canvas[..., ::-1], *geometry


def in_four_bands(picture: Image.Image) -> Any:
    """Prepare a picture of four channels; each channel is padded with its own value."""
    bands = [
        padded(fill)(each)[0] for fill, each in zip((9, 8, 7, 6), picture.split(), strict=True)
    ]
    return np.concatenate(bands, axis=2), *padded(0)(picture.getchannel(0))[1:]


TRAININGS = {
    "stretch": Training({"resize": "stretch"}, stretched),
    "center": Training(
        {"resize": "center", "fill": (10, 20, 30)}, padded((10, 20, 30), center=True)
    ),
    # ImageNet's mean of RGB is used on BGR pictures, as in a training that forgets cvtColor.
    "bgr": Training(
        {"trained_on": "bgr", "mean": IMAGENET[0], "std": IMAGENET[1]},
        read_by_opencv,
        *IMAGENET,
    ),
    "zero to one": Training({"mean": (0.0,), "std": (1.0,)}, padded(0), (0.0,) * 3, (1.0,) * 3),
    "gray": Training(
        {"mean": (0.4,), "std": (0.3,)},
        padded(102),
        *((0.4,), (0.3,)),
    ),
    "rgba": Training(
        {"mean": (0.4, 0.5, 0.6, 0.1), "std": (0.3,), "fill": (9, 8, 7, 6)},
        in_four_bands,
        *((0.4, 0.5, 0.6, 0.1), (0.3,) * 4),
    ),
}


def effdet_network(channels: int) -> Any:
    """effdet's network with random weights that are scaled, so that scores differ by picture."""
    ours = create_model(VARIANT, image_size=(HEIGHT, WIDTH), num_classes=CLASSES, in_chans=channels)
    randomize(ours)
    config = effdet.get_efficientdet_config(VARIANT)
    config.image_size, config.num_classes = (HEIGHT, WIDTH), CLASSES
    OmegaConf.update(config, "backbone_args.in_chans", channels, force_add=True)
    theirs = effdet.EfficientDet(config, pretrained_backbone=False)
    theirs.load_state_dict(ours.state_dict())
    return theirs.eval()


def by_effdet(network: Any, training: Training, picture: Image.Image) -> np.ndarray:
    """Return rows x1, y1, x2, y2, score, class from 0; boxes in pixels, clipped to the picture."""
    canvas, scale, offset = training.prepare(picture)
    pixels = (torch.tensor(canvas / 255.0) - torch.tensor(training.mean)) / torch.tensor(
        training.std
    )
    with torch.no_grad():
        rows = DetBenchPredict(network)(pixels.permute(2, 0, 1)[None].float())[0].numpy()
    rows = rows[rows[:, 4] >= SCORE]
    boxes = (rows[:, :4] - np.array(offset * 2)) / np.array(scale * 2)
    rows[:, :4] = np.clip(boxes, 0, np.array(picture.size * 2))
    rows[:, 5] -= 1
    return rows[(rows[:, 0] < rows[:, 2]) & (rows[:, 1] < rows[:, 3])]


def unmatched(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the expected rows that no found row equals."""
    near = np.abs(found[None, :, :4] - expected[:, None, :4]).max(axis=2) <= BOX_TOLERANCE
    near &= np.abs(found[None, :, 4] - expected[:, None, 4]) <= SCORE_TOLERANCE
    near &= found[None, :, 5] == expected[:, None, 5]
    return expected[~near.any(axis=1)]


def rows_of(detections: Any) -> np.ndarray:
    columns = (detections.boxes, detections.scores[:, None], detections.labels[:, None])
    return np.concatenate(columns, axis=1)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(each, marks=pytest.mark.slow if each in ("center", "rgba") else ())
        for each in TRAININGS
    ],
)
def test_detections_are_those_of_effdet_on_pictures_prepared_as_in_training(
    tmp_path: Path, name: str
) -> None:
    training = TRAININGS[name]
    network = effdet_network(len(training.mean))
    torch.save({"state_dict": network.state_dict()}, tmp_path / "w.pth")
    options = ExportOptions(
        weights=str(tmp_path / "w.pth"),
        image_size=(HEIGHT, WIDTH),
        score_threshold=SCORE,
        candidates=1000,
        **training.options,
    )
    artifact = export(VARIANT, tmp_path / "model.onnx", options)
    assert artifact.report is not None
    assert artifact.report.passed
    found_any = 0
    with Detector.load(artifact.path) as detector:
        assert detector.spec.input.channels == len(training.mean)
        for height, width in ((200, 130), (90, 240)):
            channels = len(training.mean)
            made = structured_pictures(1, height, width, seed=3, channels=channels)[0]
            picture = Image.fromarray(made.squeeze())
            found = rows_of(detector.detect(picture)[0])
            expected = by_effdet(network, training, picture)
            assert unmatched(found, expected).size == 0
            assert unmatched(expected, found).size == 0
            found_any += len(expected)
    assert found_any > 20


@pytest.mark.parametrize(
    ("given", "said"),
    [({"channel_order": "bgr"}, "no channel order"), ({"frame_size": (90, 120)}, "DeepStream")],
)
def test_options_that_contradict_a_gray_network_are_refused(
    given: dict[str, Any], said: str
) -> None:
    config = get_config(VARIANT).replace({"in_chans": 1})
    with pytest.raises(UsageError, match=said):
        describe(config, config, class_specs(90), OutputSpec(), **given)
