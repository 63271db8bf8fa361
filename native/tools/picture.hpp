// Reads pictures from files: PPM always, PNG and JPEG if the program was built with their
// libraries.
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

// Throws std::runtime_error, whose message is one sentence. The EXIF orientation of a photo is not
// applied.
LoadedPicture load_picture(const std::string& path);
