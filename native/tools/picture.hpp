// Pictures from files: PNG and JPEG where their libraries are, and PPM.
#pragma once

#include <effdet.h>

#include <cstdint>
#include <string>
#include <vector>

struct LoadedPicture {
    int width = 0;
    int height = 0;
    effdet_pixel_format format = EFFDET_RGB;
    std::vector<std::uint8_t> pixels;

    effdet_image view() const { return {pixels.data(), width, height, 0, format, EFFDET_HOST}; }
};

// Throws std::runtime_error with a sentence. Photos are taken as they are stored: their EXIF
// orientation is not applied.
LoadedPicture load_picture(const std::string& path);
