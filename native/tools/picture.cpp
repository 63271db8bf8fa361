#include "picture.hpp"

#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>

#if defined(EFFDET_WITH_PNG)
#include <png.h>
#endif
#if defined(EFFDET_WITH_JPEG)
#include <jpeglib.h>
#endif

namespace {

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

constexpr std::size_t kMostPixels = 80'000'000;

[[noreturn]] void refuse(const std::string& path, const std::string& what) {
    throw std::runtime_error("The picture '" + path + "' " + what + ".");
}

void make_room(LoadedPicture& picture, std::size_t width, std::size_t height,
               const std::string& path) {
    if (width == 0 || height == 0 || width > kMostPixels || width * height > kMostPixels) {
        refuse(path, "is " + std::to_string(width) + "x" + std::to_string(height) +
                         ", and at most 80 megapixels are decoded");
    }
    const std::size_t pixel = picture.format == EFFDET_RGBA ? 4 : 3;
    picture.width = static_cast<int>(width);
    picture.height = static_cast<int>(height);
    picture.pixels.resize(width * height * pixel);
}

#if defined(EFFDET_WITH_PNG)

// libpng reports errors with longjmp, which skips destructors: between setjmp and longjmp nothing
// may own memory. So each step is a function, and the caller owns what the step fills.
struct PngReading {
    png_structp png = nullptr;
    png_infop info = nullptr;
    std::string reason;
    ~PngReading() { png_destroy_read_struct(&png, &info, nullptr); }
};

void png_failed(png_structp png, png_const_charp reason) {
    auto* reading = static_cast<PngReading*>(png_get_error_ptr(png));
    reading->reason = reason;
    std::longjmp(png_jmpbuf(png), 1);
}

bool read_png_header(PngReading& reading, std::FILE* file) {
    if (setjmp(png_jmpbuf(reading.png)) != 0) {
        return false;
    }
    png_init_io(reading.png, file);
    png_read_info(reading.png, reading.info);
    // As in Python: palettes become colors, 16 bits become their high byte, gray becomes RGB.
    png_set_expand(reading.png);
    png_set_strip_16(reading.png);
    png_set_gray_to_rgb(reading.png);
    png_set_interlace_handling(reading.png);
    png_read_update_info(reading.png, reading.info);
    return true;
}

bool read_png_rows(PngReading& reading, std::vector<png_bytep>& rows) {
    if (setjmp(png_jmpbuf(reading.png)) != 0) {
        return false;
    }
    png_read_image(reading.png, rows.data());
    png_read_end(reading.png, nullptr);
    return true;
}

LoadedPicture load_png(const std::string& path, std::FILE* file) {
    PngReading reading;
    reading.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &reading, png_failed,
                                         [](png_structp, png_const_charp) {});
    reading.info = reading.png != nullptr ? png_create_info_struct(reading.png) : nullptr;
    if (reading.info == nullptr || !read_png_header(reading, file)) {
        refuse(path, "cannot be decoded: " + reading.reason);
    }
    LoadedPicture picture;
    picture.format = png_get_channels(reading.png, reading.info) == 4 ? EFFDET_RGBA : EFFDET_RGB;
    make_room(picture, png_get_image_width(reading.png, reading.info),
              png_get_image_height(reading.png, reading.info), path);
    std::vector<png_bytep> rows;
    rows.reserve(static_cast<std::size_t>(picture.height));
    const std::size_t stride = picture.pixels.size() / static_cast<std::size_t>(picture.height);
    for (int row = 0; row < picture.height; ++row) {
        rows.push_back(picture.pixels.data() + static_cast<std::size_t>(row) * stride);
    }
    if (!read_png_rows(reading, rows)) {
        refuse(path, "cannot be decoded: " + reading.reason);
    }
    return picture;
}

#endif

#if defined(EFFDET_WITH_JPEG)

struct JpegErrors {
    jpeg_error_mgr manager{};
    std::jmp_buf place{};
    char reason[JMSG_LENGTH_MAX] = "";
};

void jpeg_failed(j_common_ptr state) {
    auto* errors = reinterpret_cast<JpegErrors*>(state->err);
    state->err->format_message(state, errors->reason);
    std::longjmp(errors->place, 1);
}

bool read_jpeg_header(jpeg_decompress_struct& state, JpegErrors& errors, std::FILE* file) {
    if (setjmp(errors.place) != 0) {
        return false;
    }
    jpeg_create_decompress(&state);
    jpeg_stdio_src(&state, file);
    jpeg_read_header(&state, TRUE);
    state.out_color_space = JCS_RGB;
    jpeg_start_decompress(&state);
    return true;
}

bool read_jpeg_rows(jpeg_decompress_struct& state, JpegErrors& errors, LoadedPicture& picture) {
    if (setjmp(errors.place) != 0) {
        return false;
    }
    while (state.output_scanline < state.output_height) {
        JSAMPROW row = picture.pixels.data() +
                       std::size_t{state.output_scanline} * state.output_width * 3;
        jpeg_read_scanlines(&state, &row, 1);
    }
    jpeg_finish_decompress(&state);
    return true;
}

LoadedPicture load_jpeg(const std::string& path, std::FILE* file) {
    JpegErrors errors;
    jpeg_decompress_struct made{};
    made.err = jpeg_std_error(&errors.manager);
    errors.manager.error_exit = jpeg_failed;
    // Otherwise libjpeg would print its warnings about damaged data.
    errors.manager.output_message = [](j_common_ptr) {};
    const std::unique_ptr<jpeg_decompress_struct, void (*)(jpeg_decompress_struct*)> state(
        &made, jpeg_destroy_decompress);
    LoadedPicture picture;
    bool read = read_jpeg_header(made, errors, file);
    if (read) {
        make_room(picture, made.output_width, made.output_height, path);
        read = read_jpeg_rows(made, errors, picture);
    }
    if (!read) {
        refuse(path, std::string("cannot be decoded: ") + errors.reason);
    }
    return picture;
}

#endif

LoadedPicture load_ppm(const std::string& path, std::FILE* file) {
    LoadedPicture picture;
    unsigned width = 0;
    unsigned height = 0;
    unsigned levels = 0;
    if (std::fscanf(file, "P6 %9u %9u %9u", &width, &height, &levels) != 3 || levels != 255 ||
        std::fgetc(file) == EOF) {
        refuse(path, "is not a PPM file with 8 bits");
    }
    make_room(picture, width, height, path);
    if (std::fread(picture.pixels.data(), 1, picture.pixels.size(), file) !=
        picture.pixels.size()) {
        refuse(path, "is truncated");
    }
    return picture;
}

}  // namespace

LoadedPicture load_picture(const std::string& path) {
    const File file(std::fopen(path.c_str(), "rb"), std::fclose);
    unsigned char magic[4] = {};
    if (file == nullptr || std::fread(magic, 1, 4, file.get()) != 4) {
        refuse(path, "cannot be read");
    }
    std::rewind(file.get());
#if defined(EFFDET_WITH_PNG)
    if (std::memcmp(magic, "\x89PNG", 4) == 0) {
        return load_png(path, file.get());
    }
#endif
#if defined(EFFDET_WITH_JPEG)
    if (magic[0] == 0xFF && magic[1] == 0xD8) {
        return load_jpeg(path, file.get());
    }
#endif
    if (std::memcmp(magic, "P6", 2) == 0) {
        return load_ppm(path, file.get());
    }
    refuse(path, "has a format that this program was built without");
}
