// The resize on this processor gives Pillow's bytes. They are compared by their hash, which
// tests/native/test_resize.py computes from Pillow, so this test needs no Python and also runs in
// an emulator.
#include "resize.hpp"

#include "check.hpp"
#include "sha256.hpp"

namespace {

struct Shape {
    int width, height, new_width, new_height;
};

constexpr Shape kShapes[] = {{1, 1, 7, 5},       {97, 301, 41, 128},  {640, 480, 512, 384},
                             {31, 25, 195, 3},   {60, 100, 40, 60},   {60, 101, 40, 60},
                             {2000, 3, 160, 1},  {5, 2000, 1, 128},   {128, 128, 128, 128},
                             {200, 50, 200, 20}, {50, 200, 20, 200},  {333, 77, 1000, 231}};
constexpr const char* kPillow =
    "2ea25a66fb149011a788e0d5f6753f3632c56e51760bd4bd906ac38ae3918d76";

std::vector<std::uint8_t> noise(int width, int height) {
    std::vector<std::uint8_t> pixels(static_cast<std::size_t>(width) *
                                     static_cast<std::size_t>(height) * 3);
    for (std::size_t at = 0; at < pixels.size(); ++at) {
        const std::uint32_t mixed = static_cast<std::uint32_t>(at + 1) * 2654435761U;
        pixels[at] = static_cast<std::uint8_t>((mixed ^ mixed >> 15) >> 11);
    }
    return pixels;
}

}  // namespace

int main() {
    std::vector<std::uint8_t> all;
    for (const Shape& shape : kShapes) {
        const auto pixels = noise(shape.width, shape.height);
        const effdet::Picture picture{pixels.data(), shape.width, shape.height,
                                      std::ptrdiff_t{shape.width} * 3, EFFDET_RGB};
        const auto scaled = effdet::resize_antialias(picture, shape.new_width, shape.new_height);
        for (std::size_t at = 0; at < scaled.pixels.size(); ++at) {
            if (at % 4 != 3) {
                all.push_back(scaled.pixels[at]);
            }
        }
    }
    EQUAL(effdet::sha256(all.data(), all.size()), kPillow);
    return check::result("resize");
}
