// The part of OpenCV that native/examples/cpp/camera.cpp uses, for a test: pictures are PPM files,
// and drawing prints what is drawn.
#pragma once

#include <cstddef>
#include <cstdio>
#include <initializer_list>
#include <string>
#include <vector>

namespace cv {

struct Point2f {
    Point2f(float left, float top) : x(left), y(top) {}
    float x;
    float y;
};

using Scalar = std::initializer_list<int>;

struct Step {
    std::size_t bytes = 0;
    operator std::size_t() const { return bytes; }
};

struct Mat {
    unsigned char* data = nullptr;
    int cols = 0;
    int rows = 0;
    Step step;
    std::vector<unsigned char> pixels;
};

enum { FONT_HERSHEY_SIMPLEX = 0 };

inline void rectangle(Mat&, Point2f from, Point2f to, Scalar, int) {
    std::printf("%.2f %.2f %.2f %.2f\n", static_cast<double>(from.x), static_cast<double>(from.y),
                static_cast<double>(to.x), static_cast<double>(to.y));
}

inline void putText(Mat&, const std::string& text, Point2f, int, double, Scalar, int) {
    std::printf("%s\n", text.c_str());
}

}  // namespace cv
