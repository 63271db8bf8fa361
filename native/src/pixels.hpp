// A picture in the caller's memory, and its rows with four bytes per pixel whatever its format.
#pragma once

#include <effdet.h>

#include <cstddef>
#include <cstdint>

namespace effdet {

// A checked view: width and height are positive, and stride is in bytes and never 0.
struct Picture {
    const std::uint8_t* data;
    int width;
    int height;
    std::ptrdiff_t stride;
    effdet_pixel_format format;

    const std::uint8_t* row(int y) const { return data + y * stride; }
    bool is_bgr() const {
        return format == EFFDET_BGR || format == EFFDET_BGRA || format == EFFDET_BGRX;
    }
};

// How many bytes a pixel has; 0 if the number does not stand for a format.
int bytes_per_pixel(std::int32_t format);

// Checks a host picture; throws Failure with the number of the picture in the caller's array.
Picture checked_picture(const effdet_image& image, std::size_t number);

// Writes row y with 4 bytes per pixel: three channels in the picture's own order, and one byte
// without meaning. The order is put right later, when the picture has been scaled and is small.
void read_row(const Picture& picture, int y, std::uint8_t* target);

}  // namespace effdet
