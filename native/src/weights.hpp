// The pixels of an axis that make one pixel of the scaled axis, and their weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace effdet {

constexpr int kWeightBits = 22;

// Two weights, split for processors that multiply 16 bits: each has 15 low bits and the rest above
// them; the second weight's stand in the upper half of the word.
constexpr int kLowBits = 15;

struct WeightPair {
    std::int32_t low;
    std::int32_t high;
};

// Weights in fixed point for each pixel of the scaled axis: `count[i]` pixels from `first[i]` on,
// whose weights stand at weight[i * most]. The same weights stand in pairs at pair[i * most / 2]; an
// odd last one pairs with zero.
struct Weights {
    int most = 0;  // even
    std::vector<int> first;
    std::vector<int> count;
    std::vector<std::int32_t> weight;
    std::vector<WeightPair> pair;

    const std::int32_t* of(std::size_t index) const {
        return weight.data() + index * static_cast<std::size_t>(most);
    }
    const WeightPair* pairs_of(std::size_t index) const {
        return pair.data() + index * static_cast<std::size_t>(most) / 2;
    }
};

// A triangle of one pixel's width, or of the scale's where the axis shrinks: Pillow's BILINEAR.
Weights triangle_weights(int source, int target);

}  // namespace effdet
