// Scales pictures to the network's size, with the same result as the Python package to the bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "pixels.hpp"

namespace effdet {

// An image with 4 bytes per pixel, as read_row writes them, and without a gap between rows.
struct Scaled {
    int width = 0;
    int height = 0;
    std::vector<std::uint8_t> pixels;

    const std::uint8_t* row(int y) const {
        return pixels.data() + static_cast<std::size_t>(y) * static_cast<std::size_t>(width) * 4;
    }
    std::uint8_t* row(int y) {
        return pixels.data() + static_cast<std::size_t>(y) * static_cast<std::size_t>(width) * 4;
    }
};

// Pillow's Image.resize(..., BILINEAR): weights that form a triangle, which grows with the scale
// where the picture shrinks.
Scaled resize_antialias(const Picture& picture, int width, int height);

// OpenCV's INTER_LINEAR on 8 bits: four neighbors whatever the scale. The result differs by at
// most one level from OpenCV's, whose vector code rounds differently on some processors.
Scaled resize_linear(const Picture& picture, int width, int height);

}  // namespace effdet
