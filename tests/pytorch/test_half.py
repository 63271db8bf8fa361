"""Our imitation of FP16 agrees with PyTorch's own float16 kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, silu

from effdet_deploy.artifact.classes import class_specs
from effdet_deploy.artifact.spec import HEAD_OUTPUTS, DetectorSpec, OutputSpec
from effdet_deploy.exporters.source import describe
from effdet_deploy.pytorch.graph import fold_for_inference
from effdet_deploy.pytorch.graph.pipeline import HeadsPipeline
from effdet_deploy.pytorch.half import HalfNetwork, Rounding, to_half_and_back
from effdet_deploy.pytorch.network import EfficientDet, get_config
from effdet_deploy.pytorch.reference import EagerReference
from effdet_deploy.synthetic import structured_pictures
from tests.networks import PYRAMIDS, conditioned

LITE0 = "tf_efficientdet_lite0"
ALIKE = (0.7, 1.4)
"""The limits of the ratio of two root mean square errors: of two ways to round a network."""
SENSITIVE_DB = (52.0, 45.0)
"""The least signal-to-noise ratios of class and box heads in FP16. Trained heads keep 53 dB and
more. Rounding cannot harm the constant part of a signal. Box codes have a mean of 0, so they have
no constant part, and box heads keep fewer dB. With BatchNorm scales of about 1, lite2 would keep
only 36 and 29 dB."""


def spec_of(network: EfficientDet) -> DetectorSpec:
    config = network.config
    classes = class_specs(config.num_classes, None, None)
    return describe(config, get_config(config.name), classes, OutputSpec(nms="none"))


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values.astype(np.float64)))))


class Functional(nn.Module):
    """Operators that are not modules, so no hook of a module sees them."""

    def forward(self, x: Tensor) -> Tensor:
        y = silu(x + 1.125) * 0.375
        y -= 0.75
        return torch.cat([y, max_pool2d(y, 1)])


def test_the_result_of_every_operator_is_rounded_as_float16_kernels_round_it() -> None:
    values = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    module = Functional()
    with torch.no_grad(), Rounding():
        rounded = module(to_half_and_back(values))
    assert torch.equal(rounded, module(values.half()).float())
    assert not torch.equal(rounded, to_half_and_back(module(values)))


def test_the_error_of_a_network_is_about_that_in_pytorchs_float16() -> None:
    network = conditioned(LITE0)
    spec = spec_of(network)
    batch = structured_pictures(1, 128, 128, seed=5)
    weights, _, whole = HalfNetwork(network, spec).effects(batch)
    pipeline = HeadsPipeline(fold_for_inference(network, spec.input), spec).eval()
    with torch.no_grad():
        pixels = pipeline.preprocess(torch.from_numpy(batch))
        exact = pipeline.network(pixels)
        half = pipeline.network.half()(pixels.half())
    for name, one, other in zip(HEAD_OUTPUTS, exact, half, strict=True):
        theirs = (other.float() - one).numpy().reshape(whole[name].shape)
        assert ALIKE[0] < rms(theirs) / rms(whole[name]) < ALIKE[1]
        assert ALIKE[0] < rms(theirs - weights[name]) / rms(whole[name] - weights[name]) < ALIKE[1]


def test_weights_that_a_file_keeps_in_float32_are_not_rounded() -> None:
    network = conditioned(LITE0)
    spec = spec_of(network)
    batch = structured_pictures(1, 128, 128, seed=5)
    rounded = HalfNetwork(network, spec).effects(batch)[0]
    kept = [
        f"{name}.conv"
        for name, module in fold_for_inference(network, spec.input).named_modules()
        if list(module.parameters(recurse=False)) or list(module.buffers(recurse=False))
    ]
    none = HalfNetwork(network, spec, kept).effects(batch)[0]
    some = HalfNetwork(network, spec, kept[:5]).effects(batch)[0]
    for name in HEAD_OUTPUTS:
        assert rms(none[name]) == 0
        assert 0 < rms(some[name]) != rms(rounded[name])


def test_values_too_large_for_float16_are_left_as_they_are() -> None:
    values = torch.tensor([1e5, -1e6, 1 / 3, 1e-9])
    assert to_half_and_back(values).tolist() == [1e5, -1e6, float(np.float16(1 / 3)), 0.0]


@pytest.mark.parametrize("name", [*PYRAMIDS, "tf_efficientdet_lite2"])
def test_random_weights_are_no_more_sensitive_to_float16_than_trained_ones(name: str) -> None:
    network = conditioned(name)
    spec = spec_of(network)
    batch = structured_pictures(1, 128, 128, seed=5)
    reference = EagerReference(network, spec)
    heads, (_, _, whole) = reference.heads(batch), reference.effects16(batch)
    for head, least in zip(HEAD_OUTPUTS, SENSITIVE_DB, strict=True):
        assert 20 * np.log10(rms(heads[head]) / rms(whole[head])) >= least
