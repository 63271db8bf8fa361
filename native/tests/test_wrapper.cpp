// effdet.hpp gives the same rows as the C interface, and exceptions in place of statuses.
#include <effdet.hpp>

#include <type_traits>

#include "check.hpp"
#include "tiny_model.hpp"

static_assert(std::is_move_constructible_v<effdet::Detector>);
static_assert(!std::is_copy_constructible_v<effdet::Detector>);

int main() {
    const tiny::Folder folder;
    tiny::Spec spec;
    spec.batch = R"("minimum": 2, "optimum": 3, "maximum": 3)";
    effdet::Detector first(folder.write("tiny.onnx", tiny::onnx(spec.json())));
    const effdet::Detector detector(std::move(first));
    EQUAL(detector.info().batch_maximum, 3);
    EQUAL(detector.class_name(0), "square");

    // Seven pictures need three runs of the model. The last run has one picture, which is repeated
    // because the smallest batch is two.
    std::vector<std::vector<std::uint8_t>> pixels;
    std::vector<effdet::Image> images;
    for (int number = 0; number < 7; ++number) {
        pixels.emplace_back(40 * 30 * 3, static_cast<std::uint8_t>(30 * number));
        images.emplace_back(pixels.back().data(), 40, 30);
    }
    const auto together = detector.detect(images);
    EQUAL(together.size(), std::size_t{7});
    for (std::size_t number = 0; number < together.size(); ++number) {
        const auto alone = detector.detect(images[number]);
        EQUAL(alone.size(), together[number].size());
        EQUAL(alone.at(0).x1, together[number].at(0).x1);
        for (const effdet::Row& row : detector.detect(images[number], 0.5F)) {
            HOLDS(row.score >= 0.5F);
        }
    }
    try {
        detector.detect(effdet::Image(nullptr, 1, 1));
        HOLDS(false);
    } catch (const effdet::Error& error) {
        EQUAL(error.status(), EFFDET_INVALID_ARGUMENT);
        CONTAINS(error.what(), "has no data");
    }
    try {
        const effdet::Detector absent("/nowhere/model.onnx");
        HOLDS(false);
    } catch (const effdet::Error& error) {
        EQUAL(error.status(), EFFDET_BAD_MODEL);
    }
    return check::result("wrapper");
}
