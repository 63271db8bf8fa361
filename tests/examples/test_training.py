"""Targets and losses equal those of effdet; an interrupted run ends like an uninterrupted one."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from assignment import assign
from batches import TrainingBatches, batch_loader, normalize
from effdet.anchors import AnchorLabeler, Anchors
from effdet.loss import loss_fn
from losses import (
    BOX_LOSS_WEIGHT,
    FOCAL_ALPHA,
    FOCAL_GAMMA,
    HUBER_DELTA,
    detection_loss,
    flatten_heads,
)
from safetensors import safe_open
from scenes import compose_scene
from train import (
    Phase,
    TrainingOptions,
    build_anchors,
    export_weights,
    learning_rate,
    restore_checkpoint,
    start,
    train,
)

CLASSES = 10
LEVELS = 5
CODE_TOLERANCE = 1e-5
"""Offsets and logarithms in FP32 whose operations are ordered differently."""
LOSS_RELATIVE_TOLERANCE = 1e-5
"""Sums of a hundred thousand FP32 terms in another order."""
TINY = TrainingOptions(phases=(Phase(2, 2, 128), Phase(2, 1, 192)), seed=3, warmup_steps=2)


@pytest.fixture(scope="module")
def labeler() -> AnchorLabeler:
    anchors = Anchors(3, 7, 3, [(1.0, 1.0), (1.4, 0.7), (0.7, 1.4)], 4.0, (128, 128))
    return AnchorLabeler(anchors, CLASSES, match_threshold=0.5)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in another order, as with another number of threads, round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_ground_truth(seed: int, counts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes [N, M, 4] as y1, x1, y2, x2 and labels [N, M], padded with zeros and -1."""
    generator = torch.Generator().manual_seed(seed)
    most = max(counts)
    low = torch.rand(len(counts), most, 2, generator=generator) * 100
    size = 6 + torch.rand(len(counts), most, 2, generator=generator) * 60
    boxes = torch.cat([low, low + size], dim=-1)
    labels = torch.randint(0, CLASSES, (len(counts), most), generator=generator)
    padding = torch.arange(most) >= torch.tensor(counts)[:, None]
    return boxes.masked_fill(padding.unsqueeze(-1), 0), labels.masked_fill(padding, -1)


def effdet_targets(labeler: AnchorLabeler, boxes: torch.Tensor, labels: torch.Tensor):
    """Return effdet's targets; effdet counts classes from 1, and -1 marks padding."""
    one_based = torch.where(labels >= 0, labels + 1, -1)
    return labeler.batch_label_anchors(list(boxes), list(one_based))


@pytest.mark.parametrize("seed", range(4))
def test_assignment_equals_effdets_labeler(labeler, seed):
    boxes, labels = random_ground_truth(seed, [5, 1, 9])
    ours = assign(labeler.anchors.boxes, boxes, labels)
    classes, codes, positives = effdet_targets(labeler, boxes, labels)
    flat_classes = torch.cat([level.reshape(3, -1) for level in classes], dim=1)
    flat_codes = torch.cat([level.reshape(3, -1, 4) for level in codes], dim=1)
    assert torch.equal(ours.classes, flat_classes)
    assert torch.equal(ours.positives, positives)
    assert (ours.codes - flat_codes).abs().max() < CODE_TOLERANCE


def test_every_box_even_a_tiny_one_has_an_anchor(labeler):
    boxes = torch.tensor([[[10.0, 10.0, 13.0, 12.0], [40.0, 40.0, 44.0, 43.0]]])
    targets = assign(labeler.anchors.boxes, boxes, torch.tensor([[7, 2]]))
    assert targets.positives.item() == 2
    assert sorted(targets.classes[targets.classes >= 0].tolist()) == [2, 7]


def test_a_picture_with_nothing_in_it_has_only_background(labeler):
    boxes, labels = torch.zeros(2, 3, 4), torch.full((2, 3), -1)
    targets = assign(labeler.anchors.boxes, boxes, labels)
    assert (targets.classes == -1).all()
    assert not targets.codes.any()


def test_losses_equal_effdets_and_so_do_their_gradients(labeler):
    boxes, labels = random_ground_truth(11, [6, 3])
    classes, codes, positives = effdet_targets(labeler, boxes, labels)
    torch.manual_seed(0)
    sides = [16, 8, 4, 2, 1]
    logits = [torch.randn(2, 9 * CLASSES, side, side, requires_grad=True) for side in sides]
    boxes_out = [torch.randn(2, 36, side, side, requires_grad=True) for side in sides]
    expected = loss_fn(
        logits,
        boxes_out,
        classes,
        codes,
        positives,
        num_classes=CLASSES,
        alpha=FOCAL_ALPHA,
        gamma=FOCAL_GAMMA,
        delta=HUBER_DELTA,
        box_loss_weight=BOX_LOSS_WEIGHT,
    )
    ours = detection_loss(logits, boxes_out, assign(labeler.anchors.boxes, boxes, labels), CLASSES)
    for value, reference in zip(ours, expected, strict=True):
        assert torch.allclose(value, reference, rtol=LOSS_RELATIVE_TOLERANCE, atol=0)
    leaves = [*logits, *boxes_out]
    for gradient, reference in zip(
        torch.autograd.grad(ours[0], leaves),
        torch.autograd.grad(expected[0], leaves),
        strict=True,
    ):
        assert torch.allclose(gradient, reference, rtol=1e-4, atol=1e-7)


def test_heads_are_flattened_in_the_order_of_the_anchors(labeler):
    # If every output of a head is its anchor's y1, the flattened outputs must be the anchors' y1.
    levels, first = [], 0
    for side in (16, 8, 4, 2, 1):
        rows = labeler.anchors.boxes[first : first + side * side * 9, 0]
        levels.append(rows.reshape(1, side, side, 9).permute(0, 3, 1, 2))
        first += side * side * 9
    assert torch.equal(flatten_heads(levels, 1)[0, :, 0], labeler.anchors.boxes[:, 0])


def test_a_batch_holds_consecutive_scenes_with_or_without_a_worker_process():
    anchors = build_anchors(TINY, 128)
    batches = TrainingBatches(anchors, batch_size=2, seed=9, size=128)
    alone = list(batch_loader(batches, 1, 3, workers=0))
    helped = list(batch_loader(batches, 1, 3, workers=1))
    for step, (one, other) in enumerate(zip(alone, helped, strict=True), start=1):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets.codes, other.targets.codes)
        for row in range(2):
            scene = compose_scene("train", 9, 2 * step + row, 128)
            assert np.array_equal(one.images[row].numpy(), scene.image)


def test_pictures_are_normalized_as_the_variant_expects():
    white = normalize(torch.full((1, 2, 2, 3), 255, dtype=torch.uint8))
    expected = [(1 - mean) / std for mean, std in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
    assert white.shape == (1, 3, 2, 2)
    assert torch.allclose(white[0, :, 0, 0], torch.tensor(expected), atol=1e-6)


def test_the_learning_rate_rises_during_warmup_and_then_falls_to_its_minimum():
    options = replace(TINY, phases=(Phase(100, 1, 128),), warmup_steps=10)
    rates = [learning_rate(options, step) for step in range(100)]
    assert rates[9] == options.peak_lr == max(rates)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(options, 100) == pytest.approx(options.peak_lr * options.final_lr_fraction)


@pytest.mark.usefixtures("one_thread")
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path):
    (tmp_path / "parted").mkdir()
    (tmp_path / "whole").mkdir()
    whole = train(start(TINY), TINY, tmp_path / "whole", workers=0)
    # Interrupted within a phase, then between two phases.
    train(start(TINY), TINY, tmp_path / "parted", until=1, workers=0)
    for until in (2, 4):
        saved = restore_checkpoint(tmp_path / "parted" / "checkpoint.pt", TINY)
        parted = train(saved, TINY, tmp_path / "parted", until=until, workers=0)
    assert parted.step == whole.step == TINY.steps
    for name, tensor in whole.average.items():
        assert torch.equal(parted.average[name], tensor), name
    weights = dict(whole.model.state_dict())
    assert all(torch.equal(parted.model.state_dict()[name], weights[name]) for name in weights)
    untrained = start(TINY).average
    assert not torch.equal(
        whole.average["class_net.predict.conv_pw.weight"],
        untrained["class_net.predict.conv_pw.weight"],
    )


def test_the_exported_file_says_what_it_is_and_holds_averaged_weights_in_half_precision(
    tmp_path: Path,
):
    average = start(TINY).average
    export_weights(average, TINY, tmp_path / "weights.safetensors")
    with safe_open(tmp_path / "weights.safetensors", framework="pt") as file:
        metadata = file.metadata()
        assert set(file.keys()) == set(average)
        for name, tensor in average.items():
            stored = file.get_tensor(name)
            expected = tensor.half() if tensor.is_floating_point() else tensor
            assert torch.equal(stored, expected)
    assert metadata["variant"] == "tf_efficientdet_d0"
    assert json.loads(metadata["labels"]) == list("0123456789")
    assert json.loads(metadata["category_ids"]) == list(range(1, 11))
    assert metadata["image_size"] == "192x192"
    training = json.loads(metadata["training"])
    assert training["seed"] == TINY.seed
    assert training["phases"] == [asdict(phase) for phase in TINY.phases]
