// Putting a picture into the network's input, and the way back to its pixels.
#pragma once

#include <cstdint>
#include <vector>

#include "heads.hpp"
#include "pixels.hpp"
#include "spec.hpp"

namespace effdet {

// Where a picture of width x height lies in the input: network = picture * scale + offset.
struct Placement {
    int width;
    int height;
    int content_width;
    int content_height;
    int left;
    int top;
    double scale_x;
    double scale_y;
};

Placement place(const InputSpec& input, int width, int height);

// Writes the picture, scaled and padded, as the graph takes it: `target` has room for one image.
// Throws Failure where the graph takes frames of one size and the picture has another.
void fill_input(const InputSpec& input, const Picture& picture, const Placement& placement,
                std::uint8_t* target);

// The detection in pixels of the picture, clipped to it. False where nothing of it lies inside.
bool to_picture(const Placement& placement, const Detection& found, effdet_row& row);

}  // namespace effdet
