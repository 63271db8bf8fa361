#pragma once

#include <utility>

#include "imgproc.hpp"

namespace cv {

// A "video" of one frame, in BGR as OpenCV gives it, with a gap after every row.
class VideoCapture {
   public:
    void open(int) {}
    void open(const char* path) { path_ = path; }
    bool read(Mat& frame) {
        std::FILE* file = path_ == nullptr ? nullptr : std::fopen(std::exchange(path_, nullptr), "rb");
        if (file == nullptr) {
            return false;
        }
        const bool is_ppm = std::fscanf(file, "P6 %d %d 255", &frame.cols, &frame.rows) == 2;
        std::fgetc(file);
        const auto columns = static_cast<std::size_t>(frame.cols);
        frame.step.bytes = 3 * columns + 16;
        frame.pixels.assign(frame.step.bytes * static_cast<std::size_t>(frame.rows), 0);
        frame.data = frame.pixels.data();
        for (std::size_t row = 0; is_ppm && row < static_cast<std::size_t>(frame.rows); ++row) {
            unsigned char* pixel = frame.data + row * frame.step.bytes;
            if (std::fread(pixel, 3, columns, file) != columns) {
                return false;
            }
            for (std::size_t column = 0; column < columns; ++column, pixel += 3) {
                std::swap(pixel[0], pixel[2]);
            }
        }
        std::fclose(file);
        return is_ppm;
    }

   private:
    const char* path_ = nullptr;
};

}  // namespace cv
