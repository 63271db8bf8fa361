#pragma once

#include "imgproc.hpp"

namespace cv {

inline int waitKey(int) { return -1; }
inline void imshow(const char*, const Mat&) {}

}  // namespace cv
