"""From the heads to candidate boxes: selection and box decoding."""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn


class CandidateSelector(nn.Module):
    """Picks the K best (anchor, class) pairs.

    The K anchors with the best single class hold the K best pairs: a pair outside them is beaten
    by K better ones. Two small top-K replace one over anchors x classes.
    """

    def __init__(self, candidates: int, num_classes: int) -> None:
        super().__init__()
        self.candidates = candidates
        self.num_classes = num_classes

    def forward(self, class_logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map logits ``[N,A,C]`` to scores, anchor indices and classes, each ``[N,K]``.

        Scores are after the sigmoid, best first.
        """
        anchors = torch.topk(class_logits.amax(dim=2), min(self.candidates, class_logits.shape[1]))
        rows = anchors.indices.unsqueeze(2).expand(-1, -1, self.num_classes)
        pairs = torch.gather(class_logits, 1, rows).flatten(1)
        best = torch.topk(pairs, self.candidates)
        row = torch.div(best.indices, self.num_classes, rounding_mode="trunc")
        anchor_index = torch.gather(anchors.indices, 1, row)
        return best.values.sigmoid(), anchor_index, best.indices - row * self.num_classes


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
        codes = torch.gather(box_regression, 1, anchor_index.unsqueeze(2).expand(-1, -1, 4))
        anchors = F.embedding(anchor_index, self.anchors)
        size = anchors[..., 2:]
        center = codes[..., :2] * size + anchors[..., :2]
        half = codes[..., 2:].exp() * size * 0.5
        return torch.cat([center - half, center + half], dim=2)
