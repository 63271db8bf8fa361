#include "pixels.hpp"

#include <cstring>
#include <string>

#include "failure.hpp"

namespace effdet {
namespace {

// A longer side is a mistake of the caller: no camera has it, and the fixed-point weights of the
// resize would become too small.
constexpr std::int32_t kLongestSide = 1 << 20;

// Pillow's alpha_composite over opaque white, in Pillow's own fixed-point arithmetic.
std::uint8_t over_white(std::uint8_t level, std::uint8_t alpha) {
    constexpr unsigned kBits = 7;
    if (alpha == 0) {
        return 255;
    }
    const unsigned blended = (level * unsigned{alpha} + 255u * (255u - alpha)) << kBits;
    const unsigned rounded = blended + (0x80u << kBits);
    return static_cast<std::uint8_t>((((rounded >> 8) + rounded) >> 8) >> kBits);
}

void spread_color(const std::uint8_t* source, int width, std::uint8_t* target) {
    // The fourth byte belongs to the next pixel. Behind the last pixel there may be no memory to
    // read.
    for (int x = 0; x + 1 < width; ++x, source += 3, target += 4) {
        std::memcpy(target, source, 4);
    }
    std::memcpy(target, source, 3);
}

void blend_color(const std::uint8_t* source, int width, std::uint8_t* target) {
    for (int x = 0; x < width; ++x, source += 4, target += 4) {
        for (int channel = 0; channel < 3; ++channel) {
            target[channel] = over_white(source[channel], source[3]);
        }
    }
}

void copy_gray(const std::uint8_t* source, int width, std::uint8_t* target) {
    for (int x = 0; x < width; ++x, target += 4) {
        std::memset(target, source[x], 4);
    }
}

[[noreturn]] void refuse(std::size_t number, const std::string& cause, const char* remedy) {
    throw Failure(EFFDET_INVALID_ARGUMENT, "Picture " + std::to_string(number) + " " + cause + ".",
                  remedy);
}

}  // namespace

int bytes_per_pixel(std::int32_t format) {
    switch (format) {
        case EFFDET_RGB:
        case EFFDET_BGR:
            return 3;
        case EFFDET_RGBA:
        case EFFDET_BGRA:
        case EFFDET_RGBX:
        case EFFDET_BGRX:
            return 4;
        case EFFDET_GRAY:
            return 1;
        default:
            return 0;
    }
}

Picture checked_picture(const effdet_image& image, std::size_t number) {
    const int pixel = bytes_per_pixel(image.format);
    if (pixel == 0) {
        refuse(number, "has the pixel format " + std::to_string(image.format),
               "Pass a value of effdet_pixel_format.");
    }
    if (image.data == nullptr) {
        refuse(number, "has no data", "Point data at its first row.");
    }
    if (image.width < 1 || image.height < 1 || image.width > kLongestSide ||
        image.height > kLongestSide) {
        refuse(number,
               "is " + std::to_string(image.width) + "x" + std::to_string(image.height) + " pixels",
               "Pass a picture with 1 to 1048576 pixels per side.");
    }
    const std::ptrdiff_t tight = static_cast<std::ptrdiff_t>(image.width) * pixel;
    const std::ptrdiff_t stride = image.stride == 0 ? tight : image.stride;
    // A negative stride is allowed, but rows must not overlap.
    if (stride > -tight && stride < tight) {
        refuse(number,
               "has a stride of " + std::to_string(stride) + " bytes, and its rows have " +
                   std::to_string(tight),
               "Pass the bytes from one row to the next, or 0 for rows without a gap.");
    }
    return {static_cast<const std::uint8_t*>(image.data), image.width, image.height, stride,
            static_cast<effdet_pixel_format>(image.format)};
}

void read_row(const Picture& picture, int y, std::uint8_t* target) {
    const std::uint8_t* source = picture.row(y);
    switch (picture.format) {
        case EFFDET_RGB:
        case EFFDET_BGR:
            return spread_color(source, picture.width, target);
        case EFFDET_RGBA:
        case EFFDET_BGRA:
            return blend_color(source, picture.width, target);
        case EFFDET_RGBX:
        case EFFDET_BGRX:
            std::memcpy(target, source, static_cast<std::size_t>(picture.width) * 4);
            return;
        case EFFDET_GRAY:
            return copy_gray(source, picture.width, target);
    }
}

}  // namespace effdet
