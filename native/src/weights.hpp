// For each pixel of a scaled axis: the pixels that it is computed from, and their weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace effdet {

constexpr int kWeightBits = 22;

// Two weights, split for processors that multiply numbers of 16 bits. `low` holds the low 15 bits
// of both weights and `high` the bits above; the second weight is in the upper half of the word.
constexpr int kLowBits = 15;

struct WeightPair {
    std::int32_t low;
    std::int32_t high;
};

// Weights in fixed point. Pixel i of the scaled axis is computed from `count[i]` pixels, which
// begin at pixel `first[i]`; their weights begin at weight[i * most]. The same weights in pairs
// begin at pair[i * most / 2]; if their number is odd, the last one is paired with zero.
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

// The weights of Pillow's BILINEAR: a triangle, which grows with the scale where the axis shrinks.
Weights triangle_weights(int source, int target);

}  // namespace effdet
