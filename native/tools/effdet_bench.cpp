// effdet-bench MODEL PICTURE: measures the time from a picture in memory to its boxes.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>

#include "arguments.hpp"
#include "picture.hpp"

namespace {

constexpr const char* kUsage =
    "usage: effdet-bench [options] MODEL PICTURE\n"
    "\n"
    "Decodes the picture once and runs the detector on it: 5 times without counting, then --runs\n"
    "times. Prints the median and the fastest tenth in milliseconds: letterbox, network and NMS\n"
    "together.\n"
    "\n"
    "  --runs N              number of runs that count (default 50)\n";
constexpr int kWarmUp = 5;

double milliseconds(const effdet::Detector& detector, const effdet::Image& image) {
    const auto start = std::chrono::steady_clock::now();
    const auto rows = detector.detect(image);
    const auto end = std::chrono::steady_clock::now();
    return std::chrono::duration<double, std::milli>(end - start).count();
}

}  // namespace

int main(int count, char** values) {
    try {
        const Arguments arguments = read_arguments(count, values);
        if (arguments.help) {
            std::cout << kUsage << kSharedOptions;
            return 0;
        }
        if (arguments.files.size() != 2 || arguments.runs < 1) {
            std::cerr << kUsage << kSharedOptions;
            return 2;
        }
        const effdet::Detector detector(arguments.files[0], arguments.options);
        const LoadedPicture picture = load_picture(arguments.files[1]);
        const effdet::Image image(picture.pixels.data(), picture.width, picture.height,
                                  picture.format);
        for (int run = 0; run < kWarmUp; ++run) {
            milliseconds(detector, image);
        }
        std::vector<double> times;
        times.reserve(static_cast<std::size_t>(arguments.runs));
        for (int run = 0; run < arguments.runs; ++run) {
            times.push_back(milliseconds(detector, image));
        }
        std::sort(times.begin(), times.end());
        const effdet_info info = detector.info();
        std::printf("%dx%d, %s on %s: median %.2f ms, fastest tenth %.2f ms, %d runs\n",
                    picture.width, picture.height, info.backend, info.device,
                    times[times.size() / 2], times[times.size() / 10], arguments.runs);
        return 0;
    } catch (const std::invalid_argument& error) {
        std::cerr << "error: " << error.what() << '\n';
        return 2;
    } catch (const std::exception& error) {
        std::cerr << "error: " << error.what() << '\n';
        return 5;
    }
}
