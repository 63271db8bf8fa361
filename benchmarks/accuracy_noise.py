"""Measure the noise in the heads when different layers are INT8, quantized in different ways."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from clipping import METHODS
from precisions import KINDS, RECIPES, Setting, by_default, only, quantizer
from store import tell

from effdet_deploy.artifact.spec import HEAD_OUTPUTS
from effdet_deploy.evaluation.cocoset import find_pictures
from effdet_deploy.onnxgraph.raw_heads import head_node
from effdet_deploy.onnxgraph.running import graph_inputs, run_graph
from effdet_deploy.parity.metrics import TensorErrors, tensor_errors
from effdet_deploy.precision.int8.convolutions import int8_share
from effdet_deploy.precision.int8.quantizer import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from precisions import How, Take

    Cells = dict[str, dict[str, float]]

IMAGES = 16
"""Number of pictures. They are from the val split, which calibration does not use."""
NEAREST = RECIPES["least error, nearest"]


def noise_tables(setting: Setting) -> Iterator[tuple[str, Callable[[], Cells]]]:
    """Yield the name of each table and the function that measures it."""
    yield "kinds", partial(_by_kind, setting)
    yield "recipes", partial(_by_recipe, setting)


def _by_kind(setting: Setting) -> Cells:
    rows = {f"{kind} alone": only(kind) for kind in KINDS}
    rows |= {"the default": by_default, "every convolution": only(*KINDS)}
    return _measured(setting, "openvino", NEAREST, rows)


def _by_recipe(setting: Setting) -> Cells:
    cells: Cells = {}
    for name, how in RECIPES.items():
        cells |= _measured(setting, "openvino", how, {name: by_default})
    for ranges, method in (("least error", None), ("min-max", METHODS["min-max"])):
        for target in ("tensorrt", "onnxruntime"):
            name = f"{ranges}, compensated, bias corrected, laid out for {target}"
            cells |= _measured(setting, target, (method, Recipe()), {name: by_default})
    return cells


def _measured(setting: Setting, target: str, how: How, rows: dict[str, Take]) -> Cells:
    """Return share of work in INT8 and noise of each row; ``rows`` says which layers are INT8."""
    made = quantizer(setting, how, target)
    images = find_pictures(setting.val, IMAGES).letterboxed(setting.spec.input)
    batches = list(graph_inputs(images, setting.spec))
    heads = [head_node(made.model.graph, name).output[0] for name in HEAD_OUTPUTS]
    exact = list(run_graph(made.model, heads, batches, threads=1))
    can_take = made.layout.can_take
    cells: Cells = {}
    for name, takes in rows.items():
        names = [each.name for each in made.convolutions if takes(each) and can_take(each)]
        errors = _errors(exact, list(run_graph(made.quantized(names), heads, batches, threads=1)))
        cells[name] = {"share": int8_share(made.convolutions, names)} | errors
        tell(f"{name}: {errors}")
    return cells


def _errors(exact: list[list[Any]], mine: list[list[Any]]) -> dict[str, float]:
    """Return the heads' signal-to-noise ratio in dB over all pictures, after removing the means."""
    found = {}
    for head, name in enumerate(("class", "box")):
        mean = np.mean([each[head].mean() for each in exact])
        total = TensorErrors()
        for one, other in zip(exact, mine, strict=True):
            total += tensor_errors(one[head] - mean, other[head] - mean)
        found[name] = round(total.snr_db, 1)
    return found
