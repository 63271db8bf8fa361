"""Training batches: scenes that are composed during training, and the targets of their anchors."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch
from assignment import Targets, assign
from scenes import compose_scene
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_NO_BOX = -1


@dataclass(frozen=True)
class Batch:
    """``images`` uint8 ``[N, H, W, 3]`` RGB and the anchor targets of the batch."""

    images: Tensor
    targets: Targets


def normalize(images: Tensor) -> Tensor:
    """Turn uint8 ``[N, H, W, 3]`` into the float32 ``[N, 3, H, W]`` the network takes."""
    mean, std = (torch.tensor(values) * 255 for values in (_IMAGENET_MEAN, _IMAGENET_STD))
    return ((images - mean) / std).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class TrainingBatches(Dataset[Batch]):
    """Batches of training scenes made with ``seed``; batch i begins at scene i * batch_size."""

    anchors: Tensor
    batch_size: int
    seed: int
    size: int

    def __getitem__(self, step: int) -> Batch:
        first = step * self.batch_size
        scenes = [
            compose_scene("train", self.seed, index, self.size)
            for index in range(first, first + self.batch_size)
        ]
        most = max(1, *(len(scene.boxes) for scene in scenes))
        boxes = torch.zeros(self.batch_size, most, 4)
        labels = torch.full((self.batch_size, most), _NO_BOX)
        for row, scene in enumerate(scenes):
            count = len(scene.boxes)
            boxes[row, :count] = torch.from_numpy(scene.boxes[:, [1, 0, 3, 2]])
            labels[row, :count] = torch.from_numpy(scene.labels)
        images = torch.from_numpy(np.stack([scene.image for scene in scenes]))
        return Batch(images, assign(self.anchors, boxes, labels))


def batch_loader(
    batches: TrainingBatches, first: int, last: int, workers: int, worker_cpu: int | None = None
) -> DataLoader[Batch]:
    """Yield batches ``first`` to ``last - 1`` in order; the number of workers does not matter.

    ``worker_cpu`` keeps the workers on one core, so that they do not disturb the network's core.
    """

    def pin(_: int) -> None:
        if worker_cpu is not None:
            os.sched_setaffinity(0, {worker_cpu})

    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(first, last),
        num_workers=workers,
        worker_init_fn=pin,
        prefetch_factor=8 if workers else None,
    )
