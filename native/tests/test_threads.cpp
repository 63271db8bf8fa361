// Eight threads with five hundred runs each on one handle find the rows that a single thread finds.
#include <effdet.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "check.hpp"
#include "tiny_model.hpp"

namespace {

constexpr int kThreads = 8;
constexpr int kRuns = 500;
constexpr int kPictures = 5;
constexpr int kWidth = 31;
constexpr int kHeight = 23;

std::vector<std::uint8_t> picture(int number) {
    std::vector<std::uint8_t> pixels(kWidth * kHeight * 3);
    for (std::size_t at = 0; at < pixels.size(); ++at) {
        pixels[at] = static_cast<std::uint8_t>(at * (static_cast<std::size_t>(number) + 3) % 251);
    }
    return pixels;
}

using Rows = std::vector<effdet_row>;

Rows rows_of(effdet_detector* detector, const std::vector<std::uint8_t>& pixels) {
    const effdet_image image{pixels.data(), kWidth, kHeight, 0, EFFDET_RGB, EFFDET_HOST};
    Rows rows(20);
    std::size_t count = 0;
    if (effdet_detect(detector, &image, 1, nullptr, rows.data(), rows.size(), &count) !=
        EFFDET_OK) {
        return {};
    }
    rows.resize(count);
    return rows;
}

bool same(const Rows& one, const Rows& other) {
    return one.size() == other.size() &&
           std::memcmp(one.data(), other.data(), one.size() * sizeof(effdet_row)) == 0;
}

// effdet_last_error gives every thread its own error.
bool errors_stay_apart(effdet_detector* detector, int thread) {
    effdet_image image{"", 1, 1, 0, 100 + thread, EFFDET_HOST};
    Rows rows(20);
    std::size_t count = 0;
    return effdet_detect(detector, &image, 1, nullptr, rows.data(), 20, &count) ==
               EFFDET_INVALID_ARGUMENT &&
           std::string(effdet_last_error()).find(std::to_string(100 + thread)) !=
               std::string::npos;
}

void many_threads(const std::string& output) {
    const tiny::Folder folder;
    tiny::Spec spec;
    spec.output = output;
    const std::string path = folder.write("tiny.onnx", tiny::onnx(spec.json()));
    effdet_detector* detector = nullptr;
    EQUAL(effdet_open(path.c_str(), nullptr, &detector), EFFDET_OK);
    std::vector<Rows> expected;
    for (int number = 0; number < kPictures; ++number) {
        expected.push_back(rows_of(detector, picture(number)));
        HOLDS(expected.back().size() > 2);
    }
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int thread = 0; thread < kThreads; ++thread) {
        threads.emplace_back([&, thread] {
            for (int run = 0; run < kRuns; ++run) {
                const int number = (run + thread) % kPictures;
                wrong += same(rows_of(detector, picture(number)),
                              expected[static_cast<std::size_t>(number)])
                             ? 0
                             : 1;
                wrong += run % 50 != 0 || errors_stay_apart(detector, thread) ? 0 : 1;
            }
        });
    }
    for (std::thread& each : threads) {
        each.join();
    }
    EQUAL(wrong.load(), 0);
    effdet_close(detector);
}

}  // namespace

int main() {
    many_threads(R"("max_detections": 20)");
    return check::result("threads");
}
