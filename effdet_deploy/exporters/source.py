"""Where the model comes from: a variant and weights, or a module in memory."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from effdet_deploy.artifact.classes import class_specs
from effdet_deploy.artifact.spec import PLUGIN_CANDIDATES, DetectorSpec, OutputSpec
from effdet_deploy.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from effdet_deploy.artifact.labels import Labels
    from effdet_deploy.exporters.options import ExportOptions
    from effdet_deploy.progress import Progress
    from effdet_deploy.pytorch.weights.loading import LoadedModel


def load_source(
    variant_or_model: str | nn.Module | None, options: ExportOptions, progress: Progress
) -> LoadedModel:
    """Build the network with its weights.

    Raises:
        UsageError: a model in memory together with options that would change it.
        WeightsError: the weights are unusable or of another model.
    """
    from effdet_deploy.pytorch.weights.loading import build_model, loaded_module

    if variant_or_model is None or isinstance(variant_or_model, str):
        progress("loading the weights")
        loaded = build_model(
            variant_or_model,
            options.weights,
            num_classes=options.num_classes,
            image_size=options.image_size,
            overrides=options.overrides,
            seed=options.seed,
            origin=options.origin,
            progress=partial(_tell_download, progress, _address(variant_or_model, options)),
        )
        progress(f"the weights are {loaded.source}")
        return loaded
    changes = (options.num_classes, options.image_size, options.overrides or None)
    if options.weights != "pretrained" or any(each is not None for each in changes):
        raise UsageError(
            "weights, num_classes, image_size and overrides cannot change a model in memory.",
            "Create the model with them, or pass a variant's name and weights.",
        )
    return loaded_module(variant_or_model)


def _address(variant: str | None, options: ExportOptions) -> str:
    """Return where weights would be downloaded from; without the query, which may hold a key."""
    from effdet_deploy.pytorch.network import get_config
    from effdet_deploy.pytorch.weights.loading import PRETRAINED, published_url

    if "://" in options.weights:
        return urlunsplit((*urlsplit(options.weights)[:3], "", ""))
    if variant is None or options.weights != PRETRAINED:
        return ""
    return published_url(get_config(variant))


def _tell_download(progress: Progress, address: str, done: int, total: int | None) -> None:
    size = f", {total / 1e6:.1f} MB" if total else ""
    progress(f"downloading {address}{size}: {done / 1e6:.1f} MB there")


def specification_of(
    source: LoadedModel, options: ExportOptions, labels: Labels | None
) -> DetectorSpec:
    """Describe the artifact that ``options`` ask for; the graph's own facts come later.

    ``labels`` name its classes; where there are none, those of the weights do.
    """
    from effdet_deploy.pytorch.graph import describe

    number = source.config.num_classes
    said: tuple[str, ...] = ()
    if labels is None:
        classes = class_specs(number, source.labels, source.category_ids)
    else:
        classes, said = labels.classes(number, options.labels_by)
    return describe(
        source.config,
        source.base_config,
        classes,
        OutputSpec(
            nms=options.nms,
            score_threshold=options.score_threshold,
            iou_threshold=options.iou_threshold,
            candidates=PLUGIN_CANDIDATES if options.nms == "plugin" else options.candidates,
            max_detections=options.max_detections,
            nms_steps=options.nms_steps,
            box_format=options.box_format,
            nms_form="matrix" if options.target == "tensorrt" else "blocks",
        ),
        input_kind=options.input_kind,
        channel_order=options.channel_order,
        precision=options.precision_spec,
        batch=options.batch,
        weights_sha256=source.weights_sha256,
        parameters=sum(each.numel() for each in source.model.parameters()),
        command=options.command,
        origin=source.origin,
        assumed=(*source.assumed, *said),
    )
