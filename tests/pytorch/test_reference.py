from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from effdet_deploy.artifact.spec import InputSpec
from effdet_deploy.detection.letterbox import to_input
from effdet_deploy.synthetic import structured_pictures
from tests.parity.stand_ins import detector_spec

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from effdet_deploy.pytorch.reference import EagerReference, normalize  # noqa: E402

CLASSES, ANCHORS = 3, 9
# Height and width of each level; all differ, so that a wrong order shows.
LEVELS = ((16, 24), (8, 12), (4, 6), (2, 3), (1, 2))
# float32 rounding of pixels that were normalized by the caller.
NORMALIZE_TOLERANCE = 1e-6
# float32 rounding of a mean over thousands of pixels.
HEADS_TOLERANCE = 1e-4


class TwoHeads(nn.Module):
    """Gives outputs like EfficientDet, with one convolution per head on pooled pixels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(num_classes=CLASSES)
        self.norm = nn.BatchNorm2d(3)
        self.class_net = nn.Conv2d(3, ANCHORS * CLASSES, 1)
        self.box_net = nn.Conv2d(3, ANCHORS * 4, 1)

    def forward(self, x):
        maps = [nn.functional.adaptive_avg_pool2d(self.norm(x), size) for size in LEVELS]
        return [self.class_net(each) for each in maps], [self.box_net(each) for each in maps]


@pytest.fixture(scope="module")
def spec():
    return InputSpec(128, 192, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def reference_of(network, taken):
    """Return the network as the reference of an artifact with this input."""
    return EagerReference(network, dataclasses.replace(detector_spec(), input=taken))


def test_float32_runs_channels_last_and_float64_does_not(spec, pictures):
    reference, layouts = reference_of(TwoHeads(), spec), {}

    def note(module, _inputs, result):
        layouts[result.dtype] = result.is_contiguous(memory_format=torch.channels_last)

    reference.network.class_net.register_forward_hook(note)
    reference.heads(pictures)
    reference.heads64(pictures)
    assert layouts == {torch.float32: True, torch.float64: False}


@pytest.fixture(scope="module")
def pictures():
    return structured_pictures(2, 128, 192, seed=5)


@pytest.mark.parametrize("level", range(len(LEVELS)))
def test_heads_are_ordered_by_level_then_y_then_x_then_anchor(spec, pictures, level):
    """The order of effdet's ``Anchors``: level, y, x, anchor."""
    network = TwoHeads().eval()
    heads = reference_of(network, spec).heads(pictures)
    with torch.no_grad():
        logits, codes = network(torch.from_numpy(normalize(pictures, spec)).float())
    start = sum(height * width for height, width in LEVELS[:level]) * ANCHORS
    height, width = LEVELS[level]
    for name, maps, channels in (
        ("class_logits", logits, CLASSES),
        ("box_regression", codes, 4),
    ):
        assert heads[name].dtype == np.float32
        for y, x, anchor in ((0, 0, 0), (height - 1, width - 1, 8), (0, width - 1, 4)):
            row = start + (y * width + x) * ANCHORS + anchor
            expected = maps[level][:, anchor * channels : (anchor + 1) * channels, y, x]
            np.testing.assert_allclose(heads[name][:, row], expected.numpy(), atol=HEADS_TOLERANCE)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("kind", ["uint8", "float255", "normalized"])
def test_every_graph_input_is_the_same_picture_to_the_network(spec, pictures, kind, order):
    other = dataclasses.replace(spec, kind=kind, channel_order=order)
    expected = (pictures / 255 - np.array(spec.mean)) / np.array(spec.std)
    np.testing.assert_allclose(
        normalize(to_input(pictures, other), other),
        expected.transpose(0, 3, 1, 2),
        atol=NORMALIZE_TOLERANCE,
    )


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("trained_on", ["rgb", "bgr"])
@pytest.mark.parametrize("channels", [3, 4])
def test_the_network_gets_the_channels_that_it_was_trained_on(order, trained_on, channels):
    values = (0.4, 0.5, 0.6, 0.7)[:channels]
    spec = InputSpec(
        128,
        192,
        mean=values,
        std=values,
        fill=(0,) * channels,
        channel_order=order,
        trained_on=trained_on,
    )
    made = structured_pictures(1, 128, 192, 5, channels)
    expected = (made / 255 - np.array(values)) / np.array(values)
    if trained_on == "bgr":
        expected = expected[..., [2, 1, 0, 3][:channels]]
    found = normalize(to_input(made, spec), spec)
    np.testing.assert_allclose(found, expected.transpose(0, 3, 1, 2), atol=NORMALIZE_TOLERANCE)


def test_float64_is_float64_all_the_way(spec, pictures):
    reference = reference_of(TwoHeads(), spec)
    single, double = reference.heads(pictures), reference.heads64(pictures)
    for name, each in double.items():
        assert each.dtype == np.float64
        assert 0 < np.abs(each - single[name]).max() < HEADS_TOLERANCE


def test_the_given_network_is_not_changed(spec, pictures):
    network = TwoHeads().train()
    before = {name: each.clone() for name, each in network.state_dict().items()}
    reference = reference_of(network, spec)
    first = reference.heads(pictures)
    reference.heads64(pictures)
    assert network.training
    assert all(torch.equal(before[name], each) for name, each in network.state_dict().items())
    assert {each.dtype for each in network.parameters()} == {torch.float32}
    np.testing.assert_array_equal(reference.heads(pictures)["class_logits"], first["class_logits"])
