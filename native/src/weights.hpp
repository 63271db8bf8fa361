// Which pixels of an axis make one pixel of the scaled axis, and with what weights.
#pragma once

#include <cstdint>
#include <vector>

namespace effdet {

constexpr int kWeightBits = 22;

// Weights in fixed point for each pixel of the scaled axis: `count[i]` pixels from `first[i]` on,
// whose weights stand at weight[i * most].
struct Weights {
    int most = 0;
    std::vector<int> first;
    std::vector<int> count;
    std::vector<std::int32_t> weight;

    const std::int32_t* of(int index) const {
        return weight.data() + static_cast<std::size_t>(index) * static_cast<std::size_t>(most);
    }
};

// A triangle of one pixel's width, or of the scale's where the axis shrinks: Pillow's BILINEAR.
Weights triangle_weights(int source, int target);

}  // namespace effdet
