// Fits a picture into the network's input, and maps detections back to the picture's pixels.
#pragma once

#include <cstdint>
#include <vector>

#include "heads.hpp"
#include "pixels.hpp"
#include "spec.hpp"

namespace effdet {

// Where a picture of width x height lies in the input: scaled to content_width x content_height,
// with its corner at (left, top). So network pixel = picture pixel * scale + (left, top).
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

// Writes the picture, scaled and padded, in the form that the graph takes; `target` must have room
// for one image. Throws Failure if the graph takes only frames of one size and the picture has
// another size.
void fill_input(const InputSpec& input, const Picture& picture, const Placement& placement,
                std::uint8_t* target);

// Writes the detection in pixels of the picture, clipped to the picture. Returns false if the box
// lies outside the picture.
bool to_picture(const Placement& placement, const Detection& found, effdet_row& row);

}  // namespace effdet
