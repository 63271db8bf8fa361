// Scaling pictures to the network's size, bit for bit as the Python package does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "pixels.hpp"

namespace effdet {

// An image of 4 bytes a pixel, as read_row writes them; rows without a gap.
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

// Pillow's Image.resize(..., BILINEAR): a triangle as wide as the scale where it shrinks.
Scaled resize_antialias(const Picture& picture, int width, int height);

// OpenCV's INTER_LINEAR on 8 bits: four neighbours whatever the scale. Within one level of OpenCV,
// whose vector code rounds otherwise on some processors.
Scaled resize_linear(const Picture& picture, int width, int height);

}  // namespace effdet
