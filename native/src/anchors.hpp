// The anchor grid, in the order of the network's outputs.
#pragma once

#include <vector>

#include "spec.hpp"

namespace effdet {

struct Anchor {
    float ymin, xmin, ymax, xmax;  // network pixels
};

// Levels fine to coarse, then rows, columns, octave scales and aspect ratios, as in effdet.
std::vector<Anchor> make_anchors(const AnchorSpec& spec, int height, int width);

}  // namespace effdet
