#include "anchors.hpp"

namespace effdet {
namespace {

struct HalfSize {
    double y, x;
};

void add_level(const AnchorSpec& spec, int height, int width, int rows, int columns,
               std::vector<Anchor>& anchors) {
    // The two strides differ if a side is not a multiple of 2^level.
    const double stride_y = static_cast<double>(height) / rows;
    const double stride_x = static_cast<double>(width) / columns;
    std::vector<HalfSize> sizes;
    for (const double factor : spec.octave_scales) {
        for (const auto& [aspect_x, aspect_y] : spec.aspect_ratios) {
            sizes.push_back({spec.scale * stride_y * factor * aspect_y / 2,
                             spec.scale * stride_x * factor * aspect_x / 2});
        }
    }
    // numpy's arange steps by the difference of its first two values, which may be rounded.
    const double step_y = (stride_y / 2 + stride_y) - stride_y / 2;
    const double step_x = (stride_x / 2 + stride_x) - stride_x / 2;
    for (int row = 0; row < rows; ++row) {
        const double y = stride_y / 2 + row * step_y;
        for (int column = 0; column < columns; ++column) {
            const double x = stride_x / 2 + column * step_x;
            for (const HalfSize& half : sizes) {
                anchors.push_back({static_cast<float>(y - half.y), static_cast<float>(x - half.x),
                                   static_cast<float>(y + half.y), static_cast<float>(x + half.x)});
            }
        }
    }
}

}  // namespace

std::vector<Anchor> make_anchors(const AnchorSpec& spec, int height, int width) {
    std::vector<Anchor> anchors;
    int rows = height;
    int columns = width;
    for (int level = 0; level <= spec.max_level; ++level) {
        if (level >= spec.min_level) {
            add_level(spec, height, width, rows, columns, anchors);
        }
        rows = (rows + 1) / 2;
        columns = (columns + 1) / 2;
    }
    return anchors;
}

}  // namespace effdet
