#include "letterbox.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "resize.hpp"

namespace effdet {
namespace {

std::size_t bytes_of(int width, int height) {
    return static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3;
}

// Writes a row of 4 bytes per pixel with 3 bytes per pixel; `swap` exchanges red and blue.
void pack_row(const std::uint8_t* source, int width, bool swap, std::uint8_t* target) {
    const int first = swap ? 2 : 0;
    for (int x = 0; x < width; ++x, source += 4, target += 3) {
        target[0] = source[first];
        target[1] = source[1];
        target[2] = source[2 - first];
    }
}

void fill_color(const InputSpec& input, int begin, int end, std::uint8_t* row) {
    for (int x = begin; x < end; ++x) {
        for (std::size_t channel = 0; channel < 3; ++channel) {
            row[static_cast<std::size_t>(x) * 3 + channel] =
                input.fill[input.bgr ? 2 - channel : channel];
        }
    }
}

// Writes [H,W,3] bytes: the scaled picture in its place and the letterbox color around it.
void fill_canvas(const InputSpec& input, const Picture& picture, const Placement& placement,
                 std::uint8_t* canvas) {
    const Scaled scaled =
        input.antialias
            ? resize_antialias(picture, placement.content_width, placement.content_height)
            : resize_linear(picture, placement.content_width, placement.content_height);
    const int right = placement.left + placement.content_width;
    const int bottom = placement.top + placement.content_height;
    for (int y = 0; y < input.height; ++y) {
        std::uint8_t* row = canvas + bytes_of(input.width, y);
        if (y < placement.top || y >= bottom) {
            fill_color(input, 0, input.width, row);
            continue;
        }
        fill_color(input, 0, placement.left, row);
        pack_row(scaled.row(y - placement.top), placement.content_width,
                 input.bgr != picture.is_bgr(),
                 row + static_cast<std::size_t>(placement.left) * 3);
        fill_color(input, right, input.width, row);
    }
}

void copy_frame(const InputSpec& input, const Picture& picture, std::uint8_t* target) {
    std::vector<std::uint8_t> line(static_cast<std::size_t>(picture.width) * 4);
    for (int y = 0; y < picture.height; ++y) {
        read_row(picture, y, line.data());
        pack_row(line.data(), picture.width, input.bgr != picture.is_bgr(),
                 target + bytes_of(picture.width, y));
    }
}

// For each of a channel's 256 levels, the network's input value: float32 arithmetic as in Python.
std::array<float, 256> level_values(const InputSpec& input, std::size_t channel) {
    std::array<float, 256> values{};
    const float mean = input.mean[channel] * 255.0F;
    const float deviation = input.deviation[channel] * 255.0F;
    for (std::size_t level = 0; level < values.size(); ++level) {
        const auto value = static_cast<float>(level);
        values[level] = input.kind == InputKind::normalized ? (value - mean) / deviation : value;
    }
    return values;
}

// Writes [H,W,3] bytes as [3,H,W] floats.
void to_planes(const InputSpec& input, const std::vector<std::uint8_t>& canvas,
               std::uint8_t* target) {
    const std::size_t pixels = canvas.size() / 3;
    std::vector<float> plane(pixels);
    for (std::size_t channel = 0; channel < 3; ++channel) {
        const auto values = level_values(input, input.bgr ? 2 - channel : channel);
        for (std::size_t at = 0; at < pixels; ++at) {
            plane[at] = values[canvas[at * 3 + channel]];
        }
        std::memcpy(target + channel * pixels * sizeof(float), plane.data(),
                    pixels * sizeof(float));
    }
}

float clipped(float value, int limit) {
    return std::min(std::max(value, 0.0F), static_cast<float>(limit));
}

}  // namespace

Placement place(const InputSpec& input, int width, int height) {
    if (input.takes_frames()) {
        return {width, height, width, height, 0, 0, 1.0, 1.0};
    }
    const double across = static_cast<double>(input.width) / width;
    const double down = static_cast<double>(input.height) / height;
    if (input.resize == Resize::stretch) {
        return {width, height, input.width, input.height, 0, 0, across, down};
    }
    const double scale = std::min(across, down);
    // The scaled size is truncated, as in effdet; a side that would vanish keeps one pixel.
    Placement placement{width, height, 0, 0, 0, 0, scale, scale};
    placement.content_width = std::max(1, static_cast<int>(std::floor(width * scale)));
    placement.content_height = std::max(1, static_cast<int>(std::floor(height * scale)));
    if (input.resize == Resize::center) {
        placement.left = (input.width - placement.content_width) / 2;
        placement.top = (input.height - placement.content_height) / 2;
    }
    return placement;
}

void fill_input(const InputSpec& input, const Picture& picture, const Placement& placement,
                std::uint8_t* target) {
    if (input.takes_frames()) {
        copy_frame(input, picture, target);
    } else if (input.kind == InputKind::uint8) {
        fill_canvas(input, picture, placement, target);
    } else {
        std::vector<std::uint8_t> canvas(bytes_of(input.width, input.height));
        fill_canvas(input, picture, placement, canvas.data());
        to_planes(input, canvas, target);
    }
}

bool to_picture(const Placement& placement, const Detection& found, effdet_row& row) {
    const auto across = static_cast<float>(1.0 / placement.scale_x);
    const auto down = static_cast<float>(1.0 / placement.scale_y);
    const auto left = static_cast<float>(placement.left);
    const auto top = static_cast<float>(placement.top);
    row.x1 = clipped((found.x1 - left) * across, placement.width);
    row.y1 = clipped((found.y1 - top) * down, placement.height);
    row.x2 = clipped((found.x2 - left) * across, placement.width);
    row.y2 = clipped((found.y2 - top) * down, placement.height);
    row.score = found.score;
    row.class_index = found.class_index;
    return row.x1 < row.x2 && row.y1 < row.y2;
}

}  // namespace effdet
