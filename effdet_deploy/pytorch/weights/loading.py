"""From a variant and weights, as the user names them, to a model with its weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effdet_deploy.errors import UsageError, WeightsError
from effdet_deploy.pytorch.network.config import ModelConfig
from effdet_deploy.pytorch.network.efficientdet import EfficientDet
from effdet_deploy.pytorch.network.random_weights import randomize
from effdet_deploy.pytorch.network.registry import (
    SCALED,
    get_config,
    list_models,
)
from effdet_deploy.pytorch.weights.adoption import NAME, adopt_module
from effdet_deploy.pytorch.weights.agreement import settle
from effdet_deploy.pytorch.weights.anchor_evidence import with_anchors
from effdet_deploy.pytorch.weights.checkpoint import (
    Checkpoint,
    CheckpointMetadata,
    read_checkpoint,
    require_finite,
    state_dict_sha256,
)
from effdet_deploy.pytorch.weights.download import fetch
from effdet_deploy.pytorch.weights.fitting import (
    agreed_variant,
    head_grid,
    infer_in_chans,
    infer_num_classes,
    load_state,
    written_variant,
)
from effdet_deploy.pytorch.weights.given import GivenModule, find_network
from effdet_deploy.pytorch.weights.origins import EFFDET, origin_of
from effdet_deploy.pytorch.weights.translation import in_our_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from effdet_deploy.pytorch.weights.download import Progress
    from effdet_deploy.pytorch.weights.origins.settings import Settings

PRETRAINED = "pretrained"
RANDOM = "random"


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, and the facts about its weights.

    ``config`` is the model's configuration, ``base_config`` that of its variant. ``labels`` and
    ``category_ids`` have one entry per class, or are None if the checkpoint has none.
    ``weights_sha256`` is the hash of the loaded weights, which does not depend on the container.
    ``source`` says in a few words where the weights came from, without directories. ``origin`` is
    the project that made the network. ``assumed`` are sentences about what the file does not say,
    and ``notes`` are sentences about what was taken from the file. ``given`` is the module in
    memory from which the model was made. If it is in an effdet bench (a wrapper with NMS),
    ``max_detections`` is how many detections the bench gives, and ``soft_nms`` says whether the
    bench uses soft-NMS.
    """

    model: EfficientDet
    config: ModelConfig
    base_config: ModelConfig
    labels: tuple[str, ...] | None
    category_ids: tuple[int, ...] | None
    weights_sha256: str
    source: str
    origin: str = EFFDET
    assumed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    given: GivenModule | None = None
    max_detections: int | None = None
    soft_nms: bool = False


def build_model(
    variant: str | None,
    weights: str = PRETRAINED,
    *,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    overrides: Mapping[str, Any] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    seed: int = 0,
    origin: str | None = None,
    progress: Progress | None = None,
) -> LoadedModel:
    """Build the model that the options and the checkpoint describe together.

    Fields that no option sets come from the checkpoint's metadata and tensors, and then from the
    variant. Contradictions are an error; only the image size may be chosen freely, because weights
    do not depend on it.

    Args:
        variant: a full or short name; may be None if the checkpoint names it.
        weights: ``pretrained``, ``random``, a path, or an http(s) URL.
        num_classes: the number of classes without background.
        image_size: (height, width) or one number for a square.
        overrides: any other config fields.
        preprocessing: config fields about preprocessing, which have options of their own.
        seed: the seed of ``random``.
        origin: the project that made the checkpoint; None recognizes it by the weights' names.
        progress: called during a download.

    Raises:
        UsageError: a variant or field is unknown, a value is out of range, options contradict each
            other, or the variant has no published weights.
        WeightsError: the checkpoint is unusable or belongs to another model.
        DownloadError: the weights could not be downloaded.
    """
    chosen = {"num_classes": num_classes, "image_size": image_size, **(preprocessing or {})}
    options = _joined(chosen, overrides or {})
    is_published = weights == PRETRAINED
    if weights in (RANDOM, PRETRAINED):
        if variant is None:
            raise UsageError("No variant was named.", "Pass --variant, such as --variant d0.")
        base = get_config(variant)
        if weights == RANDOM:
            model = EfficientDet(base.replace(options))
            randomize(model, seed)
            loaded = _loaded(model, base, CheckpointMetadata(), f"random weights, seed {seed}")
            return dataclasses.replace(loaded, notes=_about_scale(model.config))
        variant, weights = base.name, published_url(base)
        if options.get("num_classes", base.num_classes) != base.num_classes:
            raise UsageError(
                f"The published weights of {base.name} have {base.num_classes} classes, not "
                f"{options['num_classes']}.",
                "Leave --num-classes out, or pass --weights with a checkpoint of your own.",
            )
    path = fetch(weights, progress) if "://" in weights else Path(weights)
    loaded = _from_checkpoint(read_checkpoint(path), path, variant, options, origin)
    # Published weights belong to the variant, so nothing about them is assumed.
    return dataclasses.replace(loaded, assumed=()) if is_published else loaded


def loaded_module(module: nn.Module, preprocessing: Mapping[str, Any] | None = None) -> LoadedModel:
    """Take a model in memory, ours or effdet's, alone or in a bench or another wrapper.

    ``preprocessing`` are config fields about its training, which do not change the network.

    Raises:
        UsageError: ``module`` is something else, or has parts that our network lacks.
        WeightsError: the weights are not finite, or no configuration has the bench's anchors.
    """
    given = find_network(module)
    model, notes = adopt_module(given)
    require_finite(model.state_dict(), NAME)
    loaded = _loaded(model, get_config(model.config.name), CheckpointMetadata(), NAME)
    rows = None if given.bench is None else int(given.bench.max_det_per_image)
    soft = bool(getattr(given.bench, "soft_nms", False))
    loaded = dataclasses.replace(loaded, config=model.config.replace(preprocessing or {}))
    return dataclasses.replace(loaded, notes=notes, given=given, max_detections=rows, soft_nms=soft)


def _about_scale(config: ModelConfig) -> tuple[str, ...]:
    """Describe the network that a coefficient such as ``phi:2.5`` stands for."""
    if not config.name.startswith(SCALED):
        return ()
    height, width = config.image_size
    said = (
        f"By EfficientDet's equations, {config.name} has {config.fpn_channels} channels in "
        f"{config.fpn_cell_repeats} pyramid cells, {config.box_class_repeats} repeats in the heads "
        f"and {height}x{width} pixels; its backbone is the nearest EfficientNet, "
        f"{config.backbone_name}. "
        "It has no trained weights: these are random."
    )
    return (said,)


def published_url(config: ModelConfig) -> str:
    """Return the URL of the published weights of ``config``.

    Raises:
        UsageError: the variant has none; the message names the variants that have some.
    """
    if not config.url:
        published = ", ".join(name for name in list_models() if get_config(name).url)
        raise UsageError(
            f"There are no published weights for {config.name}.",
            f"Pass --weights PATH or --weights random, or choose one of: {published}.",
        )
    return config.url


def _joined(chosen: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the config fields that were chosen; a field chosen twice must have one value."""
    options = dict(overrides)
    for field, value in chosen.items():
        if value is None:
            continue
        if field in options and _as_tuple(options[field]) != _as_tuple(value):
            raise UsageError(
                f"{field} is {value} as an option, but {options[field]} in --config.",
                "Set it only once.",
            )
        options[field] = value
    return options


def _as_tuple(value: Any) -> Any:
    """Return an image size as two numbers; a single number is the side of a square."""
    return tuple(value) if isinstance(value, list | tuple) else (value, value)


def _from_checkpoint(
    checkpoint: Checkpoint,
    path: Path,
    variant: str | None,
    options: Mapping[str, Any],
    origin: str | None,
) -> LoadedModel:
    """Build the model of a checkpoint, which decides all fields that no option sets."""
    project = origin_of(checkpoint.state_dict, origin)
    beside = project.settings.beside(path) if project and project.settings else None
    settings = beside or checkpoint.settings
    metadata = checkpoint.metadata
    written, passed_over = written_variant(checkpoint, settings, variant)
    if project is None or written is not None:
        variant = agreed_variant(checkpoint, written, settings, variant)
    if project is not None:
        checkpoint, variant = in_our_names(checkpoint, project, variant)
    base = get_config(variant or "")
    said = {
        "num_classes": infer_num_classes(checkpoint.state_dict),
        "in_chans": infer_in_chans(checkpoint.state_dict),
        "image_size": metadata.image_size,
    }
    fields = {field: value for field, value in said.items() if value is not None}
    config = base.replace({**(project.overrides if project else {}), **fields, **options})
    config, notes = _with_evidence(config, settings, fields, options, checkpoint)
    notes = (*passed_over, *notes)
    model = EfficientDet(config)
    load_state(model, checkpoint.state_dict, checkpoint.name)
    metadata = _with_names(checkpoint, settings, config.num_classes)
    nested = f", its {checkpoint.nested_under}" if checkpoint.nested_under else ""
    source = f"{checkpoint.name} ({checkpoint.container}{nested})"
    assumed: tuple[str, ...] = ()
    stated = {**options, **(settings.fields if settings else {})}
    if project is not None:
        assumed = beside.assumed if beside else project.assumed
        source, stated = f"{source} of {project.name}", {**project.overrides, **stated}
    elif checkpoint.anchors is None:
        assumed = (_assumed_anchors(config),)
    whose = project.name if project else config.name
    assumed = (*_assumed_preprocessing(config, whose, stated), *assumed)
    loaded = _loaded(model, base, metadata, source)
    return dataclasses.replace(
        loaded,
        origin=project.name if project else EFFDET,
        assumed=assumed,
        notes=notes,
    )


def _with_names(
    checkpoint: Checkpoint, settings: Settings | None, num_classes: int
) -> CheckpointMetadata:
    """Return the metadata with the class names that are stored beside the weights, if they fit."""
    metadata, names = checkpoint.metadata, checkpoint.class_names
    if settings is not None and not metadata.labels:
        metadata = dataclasses.replace(metadata, labels=settings.labels)
    for key, values in (("labels", metadata.labels), ("category_ids", metadata.category_ids)):
        if values is not None and len(values) != num_classes:
            raise WeightsError(
                f"'{checkpoint.name}' has {num_classes} classes but {len(values)} {key} in "
                "its metadata.",
                "Write the file again with one entry per class.",
            )
    if len(names) == num_classes + 1 and names[0] == "background":
        names = names[1:]
    if metadata.labels is None and len(names) == num_classes:
        metadata = dataclasses.replace(metadata, labels=names)
    return metadata


def _assumed_preprocessing(
    config: ModelConfig, whose: str, stated: Mapping[str, Any]
) -> tuple[str, ...]:
    """Say which fields are taken from the project or variant because nothing else states them."""
    colors = "gray" if config.in_chans == 1 else config.trained_on.upper()
    fields = {
        "resize": f"{config.resize} of {colors} pictures",
        "interpolation": f"scaled by the filter '{config.interpolation}'",
        "fill_color": f"filled with {config.fill_color}",
        "mean": f"mean {config.mean}",
        "std": f"std {config.std}",
    }
    taken = ", ".join(text for field, text in fields.items() if field not in stated)
    return (f"The preprocessing is that of {whose}: {taken}.",) if taken else ()


def _assumed_anchors(config: ModelConfig) -> str:
    return (
        f"The anchors are those of {config.name}: scale {config.anchor_scale:g}, "
        f"{config.num_scales} octave scales, {len(config.aspect_ratios)} aspect ratios."
    )


def _with_evidence(
    config: ModelConfig,
    settings: Settings | None,
    fields: Mapping[str, Any],
    options: Mapping[str, Any],
    checkpoint: Checkpoint,
) -> tuple[ModelConfig, tuple[str, ...]]:
    """Change ``config`` to what settings and anchors beside the weights state.

    ``fields`` are the values in ``config`` that come from the weights' shapes and from metadata.

    Raises:
        WeightsError: the statements contradict one another, the weights or an option.
    """
    notes: tuple[str, ...] = ()
    said = dict(fields)
    if settings is not None:
        config, notes = _with_settings(config, settings, fields, options, checkpoint)
        said |= settings.fields
    if (size := fields.get("image_size")) is not None and config.image_size != size:
        asked = f"image_size is {config.image_size}, as requested"
        notes += (f"{asked}; the metadata in '{checkpoint.name}' are for {size}.",)
    if checkpoint.anchors is None:
        return config, notes
    before = config
    grid = head_grid(checkpoint.state_dict)
    config, more = with_anchors(config, checkpoint.anchors.numpy(), options, checkpoint.name, grid)
    for field in said.keys() - options.keys():
        one, other = getattr(before, field), getattr(config, field)
        if one != other:
            raise WeightsError(
                f"'{checkpoint.name}' contradicts itself: its {field} is {one} according to the "
                f"settings beside the weights, but {other} according to its anchors.",
                _how_to_choose(field),
            )
    return config, (*notes, *more)


def _how_to_choose(field: str) -> str:
    """Return a remedy that says how the user can choose the value of a field."""
    if field in ("image_size", "num_classes"):
        return f"Choose one of these values with --{field.replace('_', '-')}."
    return f"Choose one of these values as {field} in --config FILE.json."


def _with_settings(
    config: ModelConfig,
    settings: Settings,
    fields: Mapping[str, Any],
    options: Mapping[str, Any],
    checkpoint: Checkpoint,
) -> tuple[ModelConfig, tuple[str, ...]]:
    """Change ``config`` to the settings beside the weights, and check that the heads agree."""
    where = f"the settings in '{settings.source}'"
    decided = {**fields, **options}
    for field, both in settings.contradictions.items():
        if field in ModelConfig.__dataclass_fields__ and field not in decided:
            raise WeightsError(f"{field} has the values {both} in {where}.", _how_to_choose(field))
    scored = infer_num_classes(checkpoint.state_dict)
    classes = settings.fields.get("num_classes", scored)
    possible, stated = {scored}, dict(settings.fields)
    remedy = f"Put the right settings file beside the weights, or move '{settings.source}' away."
    if settings.is_inside and scored is not None:
        # Some trainings count the background as a class. If the user states the number of classes,
        # the heads must have that number, so the settings may have any.
        possible |= {scored + 1} | ({classes} if "num_classes" in options else set())
        remedy = f"If the heads are right, pass --num-classes {scored}."
        stated.pop("num_classes", None)
    if scored is not None and classes not in possible:
        raise WeightsError(
            f"{where[0].upper()}{where[1:]} say {classes} classes, but the heads of "
            f"'{checkpoint.name}' have {scored}.",
            remedy,
        )
    config, notes = settle(config, stated, decided, where)
    read = () if settings.is_inside else (f"'{settings.source}' beside the weights was read.",)
    return config, (*read, *notes)


def _loaded(
    model: EfficientDet, base: ModelConfig, metadata: CheckpointMetadata, source: str
) -> LoadedModel:
    return LoadedModel(
        model=model.eval(),
        config=model.config,
        base_config=base,
        labels=metadata.labels,
        category_ids=metadata.category_ids,
        weights_sha256=state_dict_sha256(model.state_dict()),
        source=source,
    )
