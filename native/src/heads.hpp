// From raw heads to detections: the best candidates, their boxes, and greedy NMS.
#pragma once

#include <vector>

#include "anchors.hpp"
#include "spec.hpp"

namespace effdet {

// A detection in network pixels, unclipped, corners in x, y order.
struct Detection {
    float x1, y1, x2, y2;
    float score;
    std::int32_t class_index;
};

// Finishes one image: logits [A,C] and regression [A,4] (ty, tx, th, tw) of a graph that was
// exported with --nms none. Best score first, at most spec.output.max_detections.
std::vector<Detection> finish_heads(const float* logits, const float* regression,
                                    const std::vector<Anchor>& anchors, const Spec& spec);

}  // namespace effdet
