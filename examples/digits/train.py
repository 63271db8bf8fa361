"""Train the digits detector: EfficientDet-D0 at 256x256 from scratch.

    python examples/digits/train.py --run RUN --phase 2000x4x256:all --export digits_d0.safetensors

RUN/checkpoint.pt is written every few hundred steps; ``--resume`` goes on from there and ends with
the same weights as a run that was never interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import torch
from batches import Batch, TrainingBatches, batch_loader, normalize
from batchnorm import Frozen, layers_to_freeze, measure_statistics
from losses import detection_loss
from safetensors.torch import save_file
from scenes import CATEGORY_IDS, CLASS_NAMES
from timm.layers import DropPath
from torch import Tensor, nn

from effdet_deploy.artifact.anchors import anchor_boxes
from effdet_deploy.artifact.spec import AnchorSpec, even_octaves
from effdet_deploy.pytorch.network import create_model, get_config

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

logger = logging.getLogger("digits.train")

VARIANT = "tf_efficientdet_d0"
_LOG_EVERY = 20
_STATISTICS_SCENES = 128
_STATISTICS_STEP = 1_000
"""The index of a batch whose scenes come after all scenes that a run trains on."""


@dataclass(frozen=True)
class Phase:
    """A part of the schedule with one batch size and one scene size (pixels, square).

    ``frozen`` says which BatchNorm layers keep the statistics measured when the phase begins.
    """

    steps: int
    batch_size: int
    size: int
    frozen: Frozen = "none"


@dataclass(frozen=True)
class TrainingOptions:
    """One training run; equal options give equal weights on one machine with one thread count.

    The schedule starts with small scenes and ends with full-size ones; a step with small scenes
    costs a third as much.
    """

    phases: tuple[Phase, ...]
    seed: int = 0
    peak_lr: float = 1.0e-3
    warmup_steps: int = 200
    final_lr_fraction: float = 0.01
    weight_decay: float = 0.02
    clip_norm: float = 10.0
    frozen_clip_norm: float = 1.0
    ema_decay: float = 0.999
    variant: str = VARIANT

    @property
    def steps(self) -> int:
        """Length of the whole schedule."""
        return sum(phase.steps for phase in self.phases)

    @property
    def final_size(self) -> int:
        """Scene size of the last phase, which is the detector's image size."""
        return self.phases[-1].size


@dataclass
class TrainingState:
    """The network in training, its running average, the optimizer, and the number of steps done."""

    model: nn.Module
    average: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    step: int = 0


def build_network(options: TrainingOptions, size: int) -> nn.Module:
    """Create the network for scenes of ``size``, with seeded weights and no stochastic depth.

    Stochastic depth regularizes long trainings on few pictures; here no picture is seen twice.
    """
    torch.manual_seed(options.seed)
    model = create_model(options.variant, num_classes=len(CLASS_NAMES), image_size=size)
    for module in model.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0
    return model.to(memory_format=torch.channels_last)


def build_anchors(options: TrainingOptions, size: int) -> Tensor:
    """Return the anchors ``[A, 4]`` (y1, x1, y2, x2 in pixels) for scenes of ``size``."""
    config = get_config(options.variant)
    grid = AnchorSpec(
        config.min_level,
        config.max_level,
        even_octaves(config.num_scales),
        config.aspect_ratios,
        config.anchor_scale,
    )
    return torch.tensor(anchor_boxes(grid, size, size))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return parameter groups that decay only convolution kernels.

    Biases, BatchNorm and fusion weights do not decay.
    """
    kernels = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [
        {"params": kernels, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def start(options: TrainingOptions, size: int | None = None) -> TrainingState:
    """Return the state before the first step, for the scene size of the first phase."""
    model = build_network(options, size or options.phases[0].size)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, options.weight_decay), lr=options.peak_lr, foreach=True
    )
    average = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return TrainingState(model, average, optimizer)


def learning_rate(options: TrainingOptions, step: int) -> float:
    """Return the rate of a step: linear warm-up, then a cosine to a fraction of the peak."""
    if step < options.warmup_steps:
        return options.peak_lr * (step + 1) / options.warmup_steps
    done = (step - options.warmup_steps) / max(1, options.steps - options.warmup_steps)
    cosine = (1 + math.cos(math.pi * min(1.0, done))) / 2
    return options.peak_lr * (options.final_lr_fraction + (1 - options.final_lr_fraction) * cosine)


def update_average(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    """Move the running average of weights and BatchNorm statistics towards the model."""
    state = model.state_dict()
    names = [name for name, tensor in state.items() if tensor.is_floating_point()]
    torch._foreach_lerp_(
        [average[name] for name in names], [state[name] for name in names], 1 - decay
    )
    for name in state.keys() - set(names):
        average[name].copy_(state[name])


def _as_tensors(state: TrainingState) -> dict[str, Any]:
    return {
        "step": state.step,
        "state_dict": state.model.state_dict(),
        "state_dict_ema": state.average,
        "optimizer": state.optimizer.state_dict(),
    }


def _from_tensors(saved: dict[str, Any], options: TrainingOptions, size: int) -> TrainingState:
    state = start(options, size)
    state.model.load_state_dict(saved["state_dict"])
    state.average = saved["state_dict_ema"]
    state.optimizer.load_state_dict(saved["optimizer"])
    state.step = saved["step"]
    return state


def save_checkpoint(state: TrainingState, options: TrainingOptions, path: Path) -> None:
    """Write everything that a resumed run needs; the file is written completely or not at all."""
    partial = path.with_suffix(".partial")
    torch.save({**_as_tensors(state), "options": asdict(options)}, partial)
    partial.replace(path)


def restore_checkpoint(path: Path, options: TrainingOptions) -> TrainingState:
    """Return the state in a checkpoint.

    Raises:
        ValueError: the checkpoint has other options, so going on would give other weights.
    """
    saved = torch.load(path, weights_only=True)
    if json.dumps(saved["options"]) != json.dumps(asdict(options)):
        raise ValueError(f"{path} was trained with other options: {saved['options']}.")
    return _from_tensors(saved, options, options.phases[0].size)


def export_weights(average: dict[str, Tensor], options: TrainingOptions, path: Path) -> None:
    """Write the averaged weights in FP16; the metadata has all that is needed to use them."""
    weights = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in average.items()
    }
    metadata = {
        "variant": options.variant,
        "labels": json.dumps(list(CLASS_NAMES)),
        "category_ids": json.dumps(list(CATEGORY_IDS)),
        "image_size": f"{options.final_size}x{options.final_size}",
        "training": json.dumps(asdict(options)),
    }
    save_file(weights, path, metadata=metadata)


def train_step(
    state: TrainingState, batch: Batch, options: TrainingOptions, clip_norm: float
) -> dict[str, Tensor]:
    """Do one optimizer step on a batch and return its losses and gradient norm."""
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(options, state.step)
    class_outputs, box_outputs = state.model(normalize(batch.images))
    total, class_loss, box_loss = detection_loss(
        class_outputs, box_outputs, batch.targets, len(CLASS_NAMES)
    )
    state.optimizer.zero_grad(set_to_none=True)
    total.backward()
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), clip_norm, foreach=True)
    state.optimizer.step()
    state.step += 1
    decay = min(options.ema_decay, (1 + state.step) / (10 + state.step))
    update_average(state.average, state.model, decay)
    return {"class": class_loss.detach(), "box": box_loss.detach(), "norm": norm}


def train(
    state: TrainingState,
    options: TrainingOptions,
    run: Path,
    *,
    until: int | None = None,
    workers: int = 1,
    worker_cpu: int | None = None,
    save_every: int = 250,
) -> TrainingState:
    """Train from ``state.step`` to ``until`` (default: the end of the schedule)."""
    last = options.steps if until is None else until
    begins = 0
    for phase in options.phases:
        ends = min(begins + phase.steps, last)
        if state.step < ends:
            state = _from_tensors(_as_tensors(state), options, phase.size)
            anchors = build_anchors(options, phase.size)
            batches = TrainingBatches(anchors, phase.batch_size, options.seed, phase.size)
            if state.step == begins and phase.frozen != "none":
                _measure_statistics(state, batches)
            state.model.train()
            for layer in layers_to_freeze(state.model, phase.frozen, phase.size):
                layer.eval()
            loader = batch_loader(batches, state.step, ends, workers, worker_cpu)
            clip = options.clip_norm if phase.frozen == "none" else options.frozen_clip_norm
            _train_phase(state, options, loader, clip, run / "checkpoint.pt", save_every)
        begins += phase.steps
    save_checkpoint(state, options, run / "checkpoint.pt")
    return state


def _measure_statistics(state: TrainingState, batches: TrainingBatches) -> None:
    """Measure BatchNorm statistics on training scenes; the average starts anew with them."""
    large = replace(batches, batch_size=_STATISTICS_SCENES)
    measure_statistics(state.model, normalize(large[_STATISTICS_STEP].images))
    for name, tensor in state.model.state_dict().items():
        state.average[name].copy_(tensor)


def _train_phase(
    state: TrainingState,
    options: TrainingOptions,
    loader: DataLoader[Batch],
    clip_norm: float,
    checkpoint: Path,
    save_every: int,
) -> None:
    recent: list[dict[str, Tensor]] = []
    began = time.perf_counter()
    for batch in loader:
        recent.append(train_step(state, batch, options, clip_norm))
        if len(recent) == _LOG_EVERY:
            took = (time.perf_counter() - began) / len(recent)
            _log_progress(state.step, options, recent, took)
            recent, began = [], time.perf_counter()
        if state.step % save_every == 0:
            save_checkpoint(state, options, checkpoint)


def _log_progress(
    step: int, options: TrainingOptions, recent: list[dict[str, Tensor]], took: float
) -> None:
    means = {key: float(torch.stack([row[key] for row in recent]).mean()) for key in recent[0]}
    logger.info(
        "step %5d/%d  class %.4f  box %.5f  norm %.2f  lr %.2e  %.3f s/step  left %.0f min",
        step,
        options.steps,
        means["class"],
        means["box"],
        means["norm"],
        learning_rate(options, step),
        took,
        (options.steps - step) * took / 60,
    )


def _phase(text: str) -> Phase:
    numbers, _, frozen = text.partition(":")
    steps, batch_size, size = (int(number) for number in numbers.split("x"))
    if frozen not in ("", *get_args(Frozen)):
        raise ValueError(f"Frozen is one of {', '.join(get_args(Frozen))}, not {frozen!r}.")
    return Phase(steps, batch_size, size, cast("Frozen", frozen or "none"))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument(
        "--phase",
        type=_phase,
        action="append",
        required=True,
        metavar="STEPSxBATCHxSIZE[:FROZEN]",
        help="a phase of the schedule; repeat the option for further phases",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peak-lr", type=float, default=TrainingOptions.peak_lr)
    parser.add_argument("--warmup-steps", type=int, default=TrainingOptions.warmup_steps)
    parser.add_argument("--until", type=int, help="stop at this step of the schedule")
    parser.add_argument("--threads", type=int, help="number of threads; changes the result")
    parser.add_argument("--workers", type=int, default=1, help="processes that compose scenes")
    parser.add_argument("--worker-cpu", type=int, help="core that the workers stay on")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--export", type=Path, help="write the averaged weights here at the end")
    return parser.parse_args()


def main() -> None:
    """Train, resume or export, depending on the command line."""
    arguments = _parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    options = TrainingOptions(
        phases=tuple(arguments.phase),
        seed=arguments.seed,
        peak_lr=arguments.peak_lr,
        warmup_steps=arguments.warmup_steps,
    )
    arguments.run.mkdir(parents=True, exist_ok=True)
    saved = arguments.run / "checkpoint.pt"
    state = restore_checkpoint(saved, options) if arguments.resume else start(options)
    state = train(
        state,
        options,
        arguments.run,
        until=arguments.until,
        workers=arguments.workers,
        worker_cpu=arguments.worker_cpu,
    )
    if arguments.export:
        export_weights(state.average, options, arguments.export)


if __name__ == "__main__":
    main()
