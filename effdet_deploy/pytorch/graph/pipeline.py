"""DetectionPipeline: one module that takes images and gives detections."""

import torch
from torch import Tensor, nn

from effdet_deploy.artifact.anchors import anchor_centers, anchor_count
from effdet_deploy.artifact.spec import DetectorSpec
from effdet_deploy.errors import UsageError
from effdet_deploy.pytorch.graph.decode import (
    BoxDecoder,
    CandidateSelector,
    best_first,
    gather_rows,
)
from effdet_deploy.pytorch.graph.folded_heads import AnchorRows
from effdet_deploy.pytorch.graph.nms import CPU_BLOCKS, GreedyNms, OnnxNms, StaticNms
from effdet_deploy.pytorch.graph.preprocess import Preprocess
from effdet_deploy.pytorch.graph.resizing import FrameBoxes


class HeadsPipeline(nn.Module):
    """Preprocess and network: images in, flattened heads out (``--nms none``)."""

    def __init__(self, network: nn.Module, spec: DetectorSpec) -> None:
        super().__init__()
        self.preprocess = Preprocess(spec.input)
        self.network = network
        anchors = anchor_count(spec.anchors, spec.input.height, spec.input.width)
        self.class_logits = AnchorRows(anchors, spec.num_classes)
        self.box_regression = AnchorRows(anchors, 4)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images to ``class_logits`` ``[N,A,C]`` and ``box_regression`` ``[N,A,4]``."""
        class_rows, box_rows = self.network(self.preprocess(images))
        return self.class_logits(class_rows), self.box_regression(box_rows)


class Postprocess(nn.Module):
    """Flattened heads in, detections out."""

    axes: Tensor
    precedence: Tensor
    frame: Tensor

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__()
        output = spec.output
        self.select = CandidateSelector(output.candidates, spec.num_classes)
        anchors = anchor_centers(spec.anchors, spec.input.height, spec.input.width)
        self.decode = BoxDecoder(torch.from_numpy(anchors))
        self.is_greedy = output.nms == "static" and output.nms_form == "greedy"
        if self.is_greedy:
            self.nms: nn.Module = GreedyNms(output.iou_threshold, output.max_detections)
        elif output.nms == "static":
            blocks = 1 if output.nms_form == "matrix" else CPU_BLOCKS
            self.nms = StaticNms(output.iou_threshold, output.nms_steps, blocks)
        elif output.nms == "onnx":
            self.nms = OnnxNms(
                output.iou_threshold, 1 if output.class_agnostic else spec.num_classes
            )
        else:
            raise UsageError(
                f"--nms {output.nms} is not a form of NMS that the traced graph can contain.",
                "Choose static, onnx or none.",
            )
        self.class_agnostic = output.class_agnostic
        self.score_threshold = output.score_threshold
        self.max_detections = output.max_detections
        axes = [1, 0, 3, 2] if output.box_format == "xyxy" else [0, 1, 2, 3]
        self.register_buffer("axes", torch.tensor(axes), persistent=False)
        # Values to sort by: the best box has the largest value. All are positive and exact in FP32.
        precedence = torch.arange(output.candidates, 0, -1, dtype=torch.float32)
        self.register_buffer("precedence", precedence, persistent=False)
        limits = spec.input.frame_area
        self.to_frame: nn.Module = nn.Identity()
        if spec.input.source_size is not None:
            self.to_frame, limits = FrameBoxes(spec.input), (0, 0, *spec.input.source_size)
        self.clips = limits is not None
        frame = torch.tensor(limits or (0, 0, 0, 0), dtype=torch.float32)
        self.register_buffer("frame", frame, persistent=False)

    def forward(
        self, class_logits: Tensor, box_regression: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Map heads to num ``[N,1]``, boxes ``[N,D,4]``, scores and classes ``[N,D]``."""
        scores, anchor_index, classes = self.select(class_logits)
        boxes = self.decode(box_regression, anchor_index)
        # Boxes of one group suppress each other: those of a class, or all boxes. The product with
        # 0 gives zeros for any batch size.
        groups = classes * 0 if self.class_agnostic else classes
        strong = scores >= self.score_threshold
        if self.is_greedy:
            order = self.nms(boxes, strong * self.precedence, groups)
            count = scores.shape[1]
            rows = torch.clamp(count - order, max=count - 1).to(torch.int64)
        else:
            keep = self.nms(boxes, scores, groups) * strong
            if self.clips:
                # This comes after NMS: the frame's borders must not decide which boxes overlap.
                low, high = self.frame[:2], self.frame[2:]
                corners = self.to_frame(boxes).unflatten(2, (2, 2)).maximum(low).minimum(high)
                sides = corners[:, :, 1] - corners[:, :, 0]
                keep = keep * (sides[..., 0] * sides[..., 1] > 0)
                boxes = corners.flatten(2)
            order, rows = best_first(keep * self.precedence, self.max_detections)
        valid = order > 0
        boxes = gather_rows(boxes, rows)
        boxes = boxes.index_select(2, self.axes)
        return (
            valid.sum(dim=1, keepdim=True).to(torch.int32),
            torch.where(valid.unsqueeze(2), boxes, 0.0),
            torch.gather(scores, 1, rows) * valid,
            (torch.gather(classes, 1, rows) * valid).to(torch.int32),
        )


class DetectionPipeline(nn.Module):
    """The whole pipeline; docs/inputs-and-outputs.md describes its inputs and outputs."""

    def __init__(self, network: nn.Module, spec: DetectorSpec) -> None:
        super().__init__()
        self.heads = HeadsPipeline(network, spec)
        self.postprocess = Postprocess(spec)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Map images to the four detection outputs."""
        class_logits, box_regression = self.heads(images)
        return self.postprocess(class_logits, box_regression)


def create_pipeline(network: nn.Module, spec: DetectorSpec) -> nn.Module:
    """Make the module that ``spec.output`` describes, around a folded ``network``."""
    if spec.output.nms == "none":
        return HeadsPipeline(network, spec)
    return DetectionPipeline(network, spec)
