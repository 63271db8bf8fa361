// The inner loops of the resize: weighted sums of pixels in fixed point, with SSE2 where the
// processor has it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "weights.hpp"

namespace effdet {

// Scales one row. `source` has 4 bytes per pixel, and the memory of one more pixel must follow,
// because it may be read; `target` has room for weights.first.size() pixels.
void mix_along(const std::uint8_t* source, const Weights& weights, std::uint8_t* target);

// Computes row `index` of the scaled picture as a weighted sum of rows. `first` is the first row in
// the sum; each row has `bytes` bytes, and there is no gap between rows.
void mix_across(const std::uint8_t* first, const Weights& weights, std::size_t index,
                std::size_t bytes, std::uint8_t* target);

}  // namespace effdet
