// A runtime for tests: it runs no network, and its outputs depend only on the pictures. With it the
// rest of the library can be tested, also under tools in which no real runtime works
// (ThreadSanitizer).
#include "engine.hpp"
#include "failure.hpp"

namespace effdet {
namespace {

std::uint32_t mix(std::uint32_t value) {
    value ^= value >> 16;
    value *= 0x7feb352dU;
    value ^= value >> 15;
    value *= 0x846ca68bU;
    return value ^ value >> 16;
}

float share(std::uint32_t value) { return static_cast<float>(mix(value) >> 8) / 16777216.0F; }

class Fake final : public Engine {
public:
    explicit Fake(const Spec& spec) : spec_(spec) {
        library = "none";
        device = "cpu";
    }

    void run(const Batch& batch, Outputs& outputs) override {
        for (const OutputTensor& each : output_tensors(spec_)) {
            each.place(outputs, batch.count);
        }
        for (int image = 0; image < batch.count; ++image) {
            const std::uint8_t* pixels =
                batch.pixels + static_cast<std::size_t>(image) * batch.image_bytes;
            std::uint32_t seed = 2166136261U;
            for (std::size_t at = 0; at < batch.image_bytes; ++at) {
                seed = (seed ^ pixels[at]) * 16777619U;
            }
            if (spec_.output.nms == Nms::none) {
                fill_heads(seed, static_cast<std::size_t>(image), outputs);
            } else {
                fill_rows(seed, static_cast<std::size_t>(image), outputs);
            }
        }
    }

private:
    void fill_rows(std::uint32_t seed, std::size_t image, Outputs& outputs) const {
        const auto depth = static_cast<std::size_t>(spec_.output.max_detections);
        const auto side = static_cast<float>(spec_.input.graph_width());
        outputs.detected[image] = static_cast<std::int32_t>(depth);
        for (std::size_t row = 0; row < depth; ++row) {
            const std::size_t place = image * depth + row;
            const auto key = seed + static_cast<std::uint32_t>(row);
            for (std::size_t corner = 0; corner < 4; ++corner) {
                const float base = corner < 2 ? 0.0F : side / 2;
                outputs.boxes[place * 4 + corner] =
                    base + share(key * 4 + static_cast<std::uint32_t>(corner)) * side / 2;
            }
            outputs.scores[place] = 1.0F - static_cast<float>(row) / static_cast<float>(depth);
            outputs.classes[place] =
                static_cast<std::int32_t>(mix(key) % static_cast<std::uint32_t>(spec_.classes.size()));
        }
    }

    void fill_heads(std::uint32_t seed, std::size_t image, Outputs& outputs) const {
        const std::size_t logits = outputs.logits.size() / (outputs.regression.size() / 4) *
                                   spec_.anchor_count();
        for (std::size_t at = 0; at < logits; ++at) {
            outputs.logits[image * logits + at] =
                share(seed + static_cast<std::uint32_t>(at)) * 8 - 8;
        }
        const std::size_t codes = spec_.anchor_count() * 4;
        for (std::size_t at = 0; at < codes; ++at) {
            outputs.regression[image * codes + at] =
                share(~seed + static_cast<std::uint32_t>(at)) - 0.5F;
        }
    }

    const Spec spec_;
};

}  // namespace

std::unique_ptr<Engine> open_fake(const ModelFile& model, const EngineOptions&) {
    return std::make_unique<Fake>(model.spec);
}

}  // namespace effdet
