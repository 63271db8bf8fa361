// The inner loops of the resize: weighted sums of pixels in fixed point, for the machine at hand.
#pragma once

#include <cstddef>
#include <cstdint>

#include "weights.hpp"

namespace effdet {

// Scales one row. `source` has 4 bytes a pixel and room for one pixel behind its last; `target` has
// room for weights.first.size() pixels.
void mix_along(const std::uint8_t* source, const Weights& weights, std::uint8_t* target);

// Adds `count` rows of `bytes` bytes, which begin `stride` bytes apart, into one.
void mix_across(const std::uint8_t* first, std::size_t stride, int count,
                const std::int32_t* weight, std::size_t bytes, std::uint8_t* target);

}  // namespace effdet
