#include "heads.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

namespace effdet {
namespace {

// The indices of the `most` largest values, largest first. Of equal values the earlier is first.
template <typename Value>
std::vector<std::size_t> best(const std::vector<Value>& values, std::size_t most) {
    std::vector<std::size_t> places(values.size());
    std::iota(places.begin(), places.end(), std::size_t{0});
    const auto better = [&values](std::size_t one, std::size_t other) {
        return values[one] != values[other] ? values[one] > values[other] : one < other;
    };
    if (most < places.size()) {
        std::nth_element(places.begin(), places.begin() + static_cast<std::ptrdiff_t>(most),
                         places.end(), better);
        places.resize(most);
    }
    std::sort(places.begin(), places.end(), better);
    return places;
}

struct Candidate {
    std::size_t anchor;
    std::size_t class_index;
    float logit;
};

// The best K (anchor, class) pairs, where K is `most`. Only the K anchors with the highest single
// logits are searched: if K anchors have a higher logit than all logits of another anchor, K pairs
// are better than every pair of that anchor.
std::vector<Candidate> top_candidates(const float* logits, std::size_t anchors, std::size_t classes,
                                      std::size_t most) {
    std::vector<float> highest(anchors);
    for (std::size_t anchor = 0; anchor < anchors; ++anchor) {
        const float* row = logits + anchor * classes;
        highest[anchor] = *std::max_element(row, row + classes);
    }
    std::vector<std::size_t> chosen = best(highest, most);
    std::sort(chosen.begin(), chosen.end());
    std::vector<float> pairs;
    pairs.reserve(chosen.size() * classes);
    for (const std::size_t anchor : chosen) {
        const float* row = logits + anchor * classes;
        pairs.insert(pairs.end(), row, row + classes);
    }
    std::vector<Candidate> candidates;
    for (const std::size_t pair : best(pairs, most)) {
        candidates.push_back({chosen[pair / classes], pair % classes, pairs[pair]});
    }
    return candidates;
}

// Faster R-CNN's box coding without variances, as in effdet, in float32 as in effdet-deploy.
Detection decode(const float* code, const Anchor& anchor) {
    const float height = anchor.ymax - anchor.ymin;
    const float width = anchor.xmax - anchor.xmin;
    const float half_height = std::exp(code[2]) * height / 2;
    const float half_width = std::exp(code[3]) * width / 2;
    const float y = code[0] * height + (anchor.ymin + anchor.ymax) / 2;
    const float x = code[1] * width + (anchor.xmin + anchor.xmax) / 2;
    return {x - half_width, y - half_height, x + half_width, y + half_height, 0, 0};
}

float iou(const Detection& one, const Detection& other) {
    const float width = std::max(std::min(one.x2, other.x2) - std::max(one.x1, other.x1), 0.0F);
    const float height = std::max(std::min(one.y2, other.y2) - std::max(one.y1, other.y1), 0.0F);
    const float inner = width * height;
    const float own = (one.x2 - one.x1) * (one.y2 - one.y1);
    const float others = (other.x2 - other.x1) * (other.y2 - other.y1);
    // The result is NaN for two boxes without area; NaN suppresses nothing.
    return inner / (own + others - inner);
}

bool survives(const Detection& candidate, const std::vector<Detection>& kept,
              const OutputSpec& output) {
    const auto threshold = static_cast<float>(output.iou_threshold);
    return std::none_of(kept.begin(), kept.end(), [&](const Detection& each) {
        const bool rivals =
            output.class_agnostic || each.class_index == candidate.class_index;
        return rivals && iou(each, candidate) > threshold;
    });
}

}  // namespace

std::vector<Detection> finish_heads(const float* logits, const float* regression,
                                    const std::vector<Anchor>& anchors, const Spec& spec) {
    const auto floor = static_cast<float>(spec.output.score_threshold);
    const auto depth = static_cast<std::size_t>(spec.output.max_detections);
    std::vector<Detection> kept;
    for (const Candidate& each :
         top_candidates(logits, anchors.size(), spec.classes.size(),
                        static_cast<std::size_t>(spec.output.candidates))) {
        const float score = 1.0F / (1.0F + std::exp(-each.logit));
        // Candidates come best first: after one below the floor, all others are below it too.
        if (!(score >= floor) || kept.size() == depth) {
            break;
        }
        Detection found = decode(regression + each.anchor * 4, anchors[each.anchor]);
        found.score = score;
        found.class_index = static_cast<std::int32_t>(each.class_index);
        if (survives(found, kept, spec.output)) {
            kept.push_back(found);
        }
    }
    return kept;
}

}  // namespace effdet
