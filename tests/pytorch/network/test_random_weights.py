from __future__ import annotations

import pytest
import torch

from effdet_deploy.pytorch.network import create_model
from effdet_deploy.pytorch.network.random_weights import randomize
from effdet_deploy.pytorch.weights.checkpoint import state_dict_sha256
from tests.networks import conditioned
from tests.pytorch.network.peers import outputs, unseen_images

NAME = "tf_efficientdet_lite0"


def weights_hash(seed: int = 0, image_size: int = 128) -> str:
    network = create_model(NAME, image_size=image_size)
    randomize(network, seed)
    return state_dict_sha256(network.state_dict())


def test_the_weights_follow_from_the_seed_alone():
    torch.manual_seed(1)
    first = weights_hash()
    torch.manual_seed(2)
    assert weights_hash() == first
    assert weights_hash(seed=1) != first


def test_earlier_weights_of_the_network_change_nothing():
    network = create_model(NAME, image_size=128)
    randomize(network, seed=1)
    randomize(network, seed=0)
    assert state_dict_sha256(network.state_dict()) == weights_hash(seed=0)


def test_weights_do_not_depend_on_the_number_of_threads_and_do_not_change_it():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        single = weights_hash()
        torch.set_num_threads(3)
        assert weights_hash() == single
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_torch_generator_is_left_as_it_was():
    network = create_model(NAME, image_size=128)
    state = torch.get_rng_state()
    randomize(network)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("image_size", [(128, 128), (128, 256)])
def test_logits_and_box_codes_have_a_spread_on_pictures_never_seen(image_size):
    network = conditioned(NAME, image_size)
    maps = outputs(network, unseen_images(network, 4))
    classes, boxes = maps[: len(maps) // 2], maps[len(maps) // 2 :]
    # Every picture is checked by itself: one large spread would hide that others have none.
    for index in range(4):
        logits = torch.cat([level[index].flatten() for level in classes])
        codes = torch.cat([level[index].flatten() for level in boxes])
        assert 1.0 <= logits.std() <= 2.5
        assert -4.0 <= logits.mean() <= -2.0
        assert 0.2 <= codes.std() <= 0.8
        # The decoder computes exp of the codes and does not clip them.
        assert codes.abs().max() <= 5.0


def test_detections_depend_on_the_picture():
    network = conditioned(NAME)
    first, second = outputs(network, unseen_images(network, 2))[0]
    assert (first - second).std() >= 0.5


def test_no_parameter_is_all_zeros_or_ones_which_would_hide_a_mistake():
    for key, value in conditioned("tf_efficientdet_d0").state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        assert not torch.equal(value, torch.zeros_like(value)), key
        assert not torch.equal(value, torch.ones_like(value)), key


def test_weights_of_a_large_network_are_scaled_at_a_smaller_size(monkeypatch):
    from effdet_deploy.pytorch.network import random_weights as conditioning

    monkeypatch.setattr(conditioning, "MAX_SIDE", 128)
    assert weights_hash(image_size=256) == weights_hash(image_size=128)
