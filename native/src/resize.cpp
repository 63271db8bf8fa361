#include "resize.hpp"

#include <algorithm>
#include <cmath>

#include "mix.hpp"
#include "weights.hpp"

namespace effdet {
namespace {

std::size_t row_bytes(int width) { return static_cast<std::size_t>(width) * 4; }

Scaled blank(int width, int height) {
    Scaled image{width, height, {}};
    image.pixels.resize(row_bytes(width) * static_cast<std::size_t>(height));
    return image;
}

// Scales the picture's rows from `first` to `last` (exclusive) to another width.
Scaled scale_rows(const Picture& picture, int first, int last, int width) {
    Scaled scaled = blank(width, last - first);
    if (width == picture.width) {
        for (int y = first; y < last; ++y) {
            read_row(picture, y, scaled.row(y - first));
        }
        return scaled;
    }
    const Weights weights = triangle_weights(picture.width, width);
    // Room for one more pixel, because the inner loop reads two pixels at a time.
    std::vector<std::uint8_t> line(row_bytes(picture.width + 1));
    for (int y = first; y < last; ++y) {
        read_row(picture, y, line.data());
        mix_along(line.data(), weights, scaled.row(y - first));
    }
    return scaled;
}

// Scales to another height; the first row of `image` is row `first` of the picture.
Scaled scale_columns(const Scaled& image, int first, const Weights& weights, int height) {
    Scaled scaled = blank(image.width, height);
    for (int y = 0; y < height; ++y) {
        const auto place = static_cast<std::size_t>(y);
        mix_across(image.row(weights.first[place] - first), weights, place,
                   row_bytes(image.width), scaled.row(y));
    }
    return scaled;
}

Scaled rows_first(const Picture& picture, int width, int height) {
    if (height == picture.height) {
        return scale_rows(picture, 0, height, width);
    }
    const Weights weights = triangle_weights(picture.height, height);
    const int first = weights.first.front();
    const int last = weights.first.back() + weights.count.back();
    return scale_columns(scale_rows(picture, first, last, width), first, weights, height);
}

Scaled columns_first(const Picture& picture, int width, int height) {
    const Weights weights = triangle_weights(picture.height, height);
    const Scaled whole = scale_rows(picture, 0, picture.height, picture.width);
    const Scaled shrunk = scale_columns(whole, 0, weights, height);
    const Picture view{shrunk.pixels.data(), shrunk.width, shrunk.height,
                       static_cast<std::ptrdiff_t>(row_bytes(shrunk.width)), EFFDET_RGBX};
    return scale_rows(view, 0, height, width);
}

// Two neighbors and their shares in OpenCV's fixed point with 11 bits.
struct Neighbours {
    int first;
    int second;
    int share_first;
    int share_second;
};

constexpr int kShareBits = 11;

std::vector<Neighbours> neighbours(int source, int target) {
    std::vector<Neighbours> found(static_cast<std::size_t>(target));
    const double scale = 1.0 / (static_cast<double>(target) / source);
    for (int index = 0; index < target; ++index) {
        const auto place = static_cast<float>((index + 0.5) * scale - 0.5);
        int first = static_cast<int>(std::floor(place));
        float share = place - static_cast<float>(first);
        if (first < 0) {
            first = 0;
            share = 0;
        }
        if (first >= source - 1) {
            first = source - 1;
            share = 0;
        }
        const auto whole = static_cast<float>(1 << kShareBits);
        found[static_cast<std::size_t>(index)] = {
            first, std::min(first + 1, source - 1),
            static_cast<int>(std::lrint((1.0F - share) * whole)),
            static_cast<int>(std::lrint(share * whole))};
    }
    return found;
}

void mix_neighbours(const std::uint8_t* line, const std::vector<Neighbours>& columns, int* sums) {
    for (const Neighbours& each : columns) {
        const std::uint8_t* left = line + static_cast<std::ptrdiff_t>(each.first) * 4;
        const std::uint8_t* right = line + static_cast<std::ptrdiff_t>(each.second) * 4;
        for (int channel = 0; channel < 4; ++channel) {
            *sums++ = left[channel] * each.share_first + right[channel] * each.share_second;
        }
    }
}

}  // namespace

Scaled resize_antialias(const Picture& picture, int width, int height) {
    // The order of the two passes is that of Pillow 13. It changes the result, because levels are
    // rounded between the passes. Pillow 12 and older always scale the rows first.
    const int fewer_rows = picture.height - height;
    const int fewer_columns = picture.width - width;
    const bool by_columns = fewer_rows > 0 && fewer_rows > 2 * fewer_columns;
    return by_columns ? columns_first(picture, width, height)
                      : rows_first(picture, width, height);
}

Scaled resize_linear(const Picture& picture, int width, int height) {
    const std::vector<Neighbours> columns = neighbours(picture.width, width);
    const std::vector<Neighbours> rows = neighbours(picture.height, height);
    Scaled scaled = blank(width, height);
    const std::size_t bytes = row_bytes(width);
    std::vector<std::uint8_t> line(row_bytes(picture.width));
    std::vector<int> upper(bytes);
    std::vector<int> lower(bytes);
    for (int y = 0; y < height; ++y) {
        const Neighbours& row = rows[static_cast<std::size_t>(y)];
        read_row(picture, row.first, line.data());
        mix_neighbours(line.data(), columns, upper.data());
        read_row(picture, row.second, line.data());
        mix_neighbours(line.data(), columns, lower.data());
        std::uint8_t* target = scaled.row(y);
        for (std::size_t at = 0; at < bytes; ++at) {
            // The two shares of 11 bits added 22 bits; OpenCV drops them in three steps: 4, 16, 2.
            const int above = (row.share_first * (upper[at] >> 4)) >> 16;
            const int below = (row.share_second * (lower[at] >> 4)) >> 16;
            target[at] = static_cast<std::uint8_t>(std::min((above + below + 2) >> 2, 255));
        }
    }
    return scaled;
}

}  // namespace effdet
