"""From the heads to candidate boxes: selection and box decoding."""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from effdet_deploy.artifact.spec import TENSORRT_MAX_TOPK

_STRUCK_OUT = -3e38
"""A mask below all scores, but finite: infinities in a layer look like errors in a comparison."""


def best_first(
    values: Tensor, count: int, at_once: int = TENSORRT_MAX_TOPK, struck_out: float = _STRUCK_OUT
) -> tuple[Tensor, Tensor]:
    """Return the ``count`` largest of ``values`` ``[N,n]`` and their indices, best first.

    Among equal values the lower index is first if the runtime's TopK orders them so. TensorRT's
    TopK finds at most ``at_once`` values. More values take further rounds, in which the values
    found so far are masked by index: masking by value would also mask equal values that were not
    found yet.
    """
    best, indices = torch.topk(values, min(count, at_once))
    found, places = [best], [indices]
    for taken in range(at_once, count, at_once):
        values = values.scatter(1, indices, struck_out)
        best, indices = torch.topk(values, min(count - taken, at_once))
        found.append(best)
        places.append(indices)
    if len(found) == 1:
        return best, indices
    return torch.cat(found, dim=1), torch.cat(places, dim=1)


def gather_rows(table: Tensor, rows: Tensor) -> Tensor:
    """Return the rows ``[N,k]`` of every image's ``table`` ``[N,n,m]``, as ``[N,k,m]``."""
    return torch.gather(table, 1, rows.unsqueeze(2).expand(-1, -1, table.shape[2]))


class CandidateSelector(nn.Module):
    """Picks the K best (anchor, class) pairs.

    The K best pairs belong to the K anchors whose best class scores highest: a pair of any other
    anchor is beaten by K better pairs. So two small TopK replace one over anchors x classes.
    """

    def __init__(self, candidates: int, num_classes: int) -> None:
        super().__init__()
        self.candidates = candidates
        self.num_classes = num_classes

    def forward(self, class_logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map logits ``[N,A,C]`` to scores, anchor indices and classes, all ``[N,K]``.

        Scores are after the sigmoid, best first.
        """
        _, anchors = best_first(
            class_logits.amax(dim=2), min(self.candidates, class_logits.shape[1])
        )
        pairs = gather_rows(class_logits, anchors).flatten(1)
        best, pair = best_first(pairs, self.candidates)
        row = torch.div(pair, self.num_classes, rounding_mode="trunc")
        anchor_index = torch.gather(anchors, 1, row)
        return best.sigmoid(), anchor_index, pair - row * self.num_classes


class BoxDecoder(nn.Module):
    """Decodes box codes of selected anchors.

    Source: Faster R-CNN's box coder without variances, as effdet uses it.
    """

    anchors: Tensor

    def __init__(self, anchors: Tensor) -> None:
        super().__init__()
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, box_regression: Tensor, anchor_index: Tensor) -> Tensor:
        """Map codes ``[N,A,4]`` (ty,tx,th,tw) and indices ``[N,K]`` to boxes ``[N,K,4]``.

        Boxes are yxyx in network pixels, not clipped.
        """
        codes = gather_rows(box_regression, anchor_index)
        anchors = F.embedding(anchor_index, self.anchors)
        size = anchors[..., 2:]
        center = codes[..., :2] * size + anchors[..., :2]
        half = codes[..., 2:].exp() * size * 0.5
        return torch.cat([center - half, center + half], dim=2)
