// Internal functions of the library for tests in Python: preparing the graph's input, scaling, and
// finishing raw heads. They are part of libeffdet_testing, never of libeffdet.
#include <effdet.h>

#include <exception>

#include "anchors.hpp"
#include "engine.hpp"
#include "heads.hpp"
#include "letterbox.hpp"
#include "resize.hpp"
#include "spec.hpp"

extern "C" {

// Writes a picture as the input that `spec` (JSON) describes. Returns 0, or 1 after an exception.
EFFDET_API int effdet_testing_input(const char* spec, const effdet_image* image, void* target) {
    try {
        const effdet::Spec read = effdet::parse_spec(spec, "the spec");
        const effdet::Picture picture = effdet::checked_picture(*image, 0);
        effdet::fill_input(read.input, picture,
                           effdet::place(read.input, picture.width, picture.height),
                           static_cast<std::uint8_t*>(target));
        return 0;
    } catch (const std::exception&) {
        return 1;
    }
}

// Writes a picture scaled to another size, as RGB.
EFFDET_API int effdet_testing_resize(const effdet_image* image, int width, int height,
                                     int antialias, std::uint8_t* target) {
    const effdet::Picture picture = effdet::checked_picture(*image, 0);
    const effdet::Scaled scaled = antialias != 0
                                      ? effdet::resize_antialias(picture, width, height)
                                      : effdet::resize_linear(picture, width, height);
    const std::size_t red = picture.is_bgr() ? 2 : 0;
    for (std::size_t at = 0; at < scaled.pixels.size() / 4; ++at) {
        target[at * 3] = scaled.pixels[at * 4 + red];
        target[at * 3 + 1] = scaled.pixels[at * 4 + 1];
        target[at * 3 + 2] = scaled.pixels[at * 4 + 2 - red];
    }
    return 0;
}

// Finishes raw heads [A,C] and [A,4]: writes rows in network pixels, not clipped, and returns their
// number. `rows` must have room for the spec's max_detections.
EFFDET_API int effdet_testing_finish(const char* spec, const float* logits, const float* regression,
                                     effdet_row* rows) {
    const effdet::Spec read = effdet::parse_spec(spec, "the spec");
    const auto anchors = effdet::make_anchors(read.anchors, read.input.height, read.input.width);
    int count = 0;
    for (const effdet::Detection& each :
         effdet::finish_heads(logits, regression, anchors, read)) {
        rows[count++] = {each.x1, each.y1, each.x2, each.y2, each.score, each.class_index};
    }
    return count;
}

}  // extern "C"
