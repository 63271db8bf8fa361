// The inner loops of the resize: weighted sums of pixels in fixed point, for the machine at hand.
#pragma once

#include <cstddef>
#include <cstdint>

#include "weights.hpp"

namespace effdet {

// Scales one row. `source` has 4 bytes a pixel and room for one pixel behind its last; `target` has
// room for weights.first.size() pixels.
void mix_along(const std::uint8_t* source, const Weights& weights, std::uint8_t* target);

// Adds the rows that make pixel `index` of the scaled axis into one: rows of `bytes` bytes without a
// gap, of which `first` is the first that counts.
void mix_across(const std::uint8_t* first, const Weights& weights, std::size_t index,
                std::size_t bytes, std::uint8_t* target);

}  // namespace effdet
