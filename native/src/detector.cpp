#include "detector.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "failure.hpp"

namespace effdet {
namespace {

void require_finite(const std::vector<float>& values, const char* name) {
    const bool finite =
        std::all_of(values.begin(), values.end(), [](float each) { return std::isfinite(each); });
    if (!finite) {
        throw Failure(EFFDET_RUN_FAILED,
                      "The model's output '" + std::string(name) + "' holds NaN or infinite values.",
                      "Its numbers overflow: export it again with --fp32, or check the weights.");
    }
}

[[noreturn]] void refuse_outputs(const std::string& cause) {
    throw Failure(EFFDET_RUN_FAILED, cause,
                  "Export the model again; its spec belongs to another file.");
}

std::string size_text(int width, int height) {
    return std::to_string(width) + "x" + std::to_string(height);
}

}  // namespace

LoadedModel::LoadedModel(const std::string& path, std::string backend, const EngineOptions& options,
                   bool trust)
    : backend_(std::move(backend)) {
    const ModelFile model = open_model_file(path, trust);
    engine_ = open_engine(model, backend_, options);
    spec_ = model.spec;
    if (spec_.output.nms == Nms::none) {
        anchors_ = make_anchors(spec_.anchors, spec_.input.height, spec_.input.width);
    }
    description_ = describe(spec_, backend_, engine_->library, engine_->device);
}

void LoadedModel::detect(const effdet_image* images, std::size_t count, float threshold, void* stream,
                      effdet_row* rows, std::size_t depth, std::size_t* counts) const {
    const float floor = checked_threshold(threshold);
    Run run;
    run.batch.stream = stream;
    const auto most = static_cast<std::size_t>(spec_.batch.maximum);
    for (std::size_t first = 0; first < count; first += most) {
        const std::size_t size = std::min(most, count - first);
        prepare(images, first, size, run);
        engine_->run(run.batch, run.outputs);
        for (const OutputTensor& each : output_tensors(spec_)) {
            if (each.floats != nullptr) {
                require_finite(run.outputs.*each.floats, each.name);
            }
        }
        for (std::size_t image = 0; image < size; ++image) {
            effdet_row* target = rows + (first + image) * depth;
            std::size_t& found = counts[first + image];
            found = 0;
            for (const Detection& each : detections(run.outputs, image)) {
                effdet_row row;
                if (found < depth && to_picture(run.placements[image], each, row) &&
                    row.score >= floor) {
                    target[found++] = row;
                }
            }
        }
    }
}

float LoadedModel::checked_threshold(float asked) const {
    const auto floor = static_cast<float>(spec_.output.score_threshold);
    if (asked == 0) {
        return floor;
    }
    if (!(asked > 0 && asked <= 1)) {
        throw Failure(EFFDET_INVALID_ARGUMENT,
                      "The score threshold must be between 0 and 1, not " +
                          std::to_string(asked) + ".",
                      "Scores are probabilities: 0.3 is a common choice.");
    }
    if (asked < floor) {
        throw Failure(EFFDET_INVALID_ARGUMENT,
                      "The model gives no scores below " + std::to_string(floor) +
                          ", so a threshold of " + std::to_string(asked) + " is not possible.",
                      "Choose a higher one, or export the model with a lower --score-threshold.");
    }
    return asked;
}

void LoadedModel::prepare(const effdet_image* images, std::size_t first, std::size_t count,
                       Run& run) const {
    run.placements.clear();
    run.batch.frames.clear();
    run.batch.image_bytes = input_bytes(spec_);
    // If the graph needs more images than there are, the last one is repeated.
    run.batch.count = std::max(static_cast<int>(count), spec_.batch.minimum);
    const auto size = static_cast<std::size_t>(run.batch.count);
    const bool on_device = images[first].memory == EFFDET_CUDA;
    if (!on_device) {
        run.pixels.resize(size * run.batch.image_bytes);
    }
    for (std::size_t index = 0; index < size; ++index) {
        const std::size_t number = first + std::min(index, count - 1);
        const effdet_image& image = images[number];
        if ((image.memory == EFFDET_CUDA) != on_device) {
            throw Failure(EFFDET_INVALID_ARGUMENT,
                          "Picture " + std::to_string(number) +
                              " is in another kind of memory than the pictures before it.",
                          "Pass only pictures in one kind of memory in one call.");
        }
        if (on_device) {
            prepare_device(image, number, run);
        } else {
            prepare_host(image, number, run.pixels.data() + index * run.batch.image_bytes, run);
        }
    }
    run.batch.pixels = on_device ? nullptr : run.pixels.data();
}

void LoadedModel::prepare_host(const effdet_image& image, std::size_t number, std::uint8_t* target,
                            Run& run) const {
    const Picture picture = checked_picture(image, number);
    const InputSpec& input = spec_.input;
    if (input.takes_frames() &&
        (picture.width != input.source_width || picture.height != input.source_height)) {
        throw Failure(EFFDET_INVALID_ARGUMENT,
                      "Picture " + std::to_string(number) + " is " +
                          size_text(picture.width, picture.height) + ", but the model takes only " +
                          size_text(input.source_width, input.source_height) + ".",
                      "Export the model with --source-size for this size, or without it for any.");
    }
    if (input.frame_height > 0 &&
        (picture.width != input.frame_width || picture.height != input.frame_height)) {
        throw Failure(EFFDET_INVALID_ARGUMENT,
                      "Picture " + std::to_string(number) + " is " +
                          size_text(picture.width, picture.height) +
                          ", but the model is for DeepStream's frames of " +
                          size_text(input.frame_width, input.frame_height) + ".",
                      "Export the model without --target deepstream for any size.");
    }
    run.placements.push_back(place(input, picture.width, picture.height));
    fill_input(input, picture, run.placements.back(), target);
}

void LoadedModel::prepare_device(const effdet_image& image, std::size_t number, Run& run) const {
    const InputSpec& input = spec_.input;
    const auto refuse = [number](const std::string& cause, const char* remedy) {
        throw Failure(EFFDET_INVALID_ARGUMENT,
                      "Picture " + std::to_string(number) + " lies in device memory, and " + cause +
                          ".",
                      remedy);
    };
    if (!engine_->takes_device_memory()) {
        refuse("the " + backend_ + " backend takes host memory", "Copy it, or use TensorRT.");
    }
    if (image.data == nullptr || input.kind != InputKind::uint8) {
        refuse(image.data == nullptr ? "has no data" : "the model takes floats",
               "Pass bytes to a model that was exported with --input uint8.");
    }
    const int width = input.graph_width();
    const int height = input.graph_height();
    const std::int32_t format = input.bgr ? EFFDET_BGR : EFFDET_RGB;
    const bool tight = image.stride == 0 || image.stride == static_cast<std::ptrdiff_t>(width) * 3;
    if (image.width != width || image.height != height || image.format != format || !tight) {
        refuse("is not what the graph takes: " + size_text(width, height) + " " +
                   (input.bgr ? "BGR" : "RGB") + " without a gap between rows",
               "Scale it on the device, or export with --source-size.");
    }
    run.placements.push_back({width, height, width, height, 0, 0, 1.0, 1.0});
    run.batch.frames.push_back(image.data);
}

std::vector<Detection> LoadedModel::detections(const Outputs& outputs, std::size_t image) const {
    if (spec_.output.nms == Nms::none) {
        const std::size_t anchors = anchors_.size();
        return finish_heads(outputs.logits.data() + image * anchors * spec_.classes.size(),
                            outputs.regression.data() + image * anchors * 4, anchors_, spec_);
    }
    const auto depth = static_cast<std::size_t>(spec_.output.max_detections);
    const std::int32_t count = outputs.detected[image];
    if (count < 0 || static_cast<std::size_t>(count) > depth) {
        refuse_outputs("The model found " + std::to_string(count) + " boxes, but has room for " +
                       std::to_string(depth) + ".");
    }
    const auto classes = static_cast<std::int32_t>(spec_.classes.size());
    // A box is two (x, y) pairs or, with yxyx, two (y, x) pairs.
    const std::size_t x = spec_.output.yxyx ? 1 : 0;
    std::vector<Detection> found;
    for (std::size_t row = 0; row < static_cast<std::size_t>(count); ++row) {
        const std::size_t at = image * depth + row;
        const float* box = outputs.boxes.data() + at * 4;
        const std::int32_t label = outputs.classes[at];
        if (label < 0 || label >= classes) {
            refuse_outputs("The model found class " + std::to_string(label) +
                           ", but its spec names " + std::to_string(classes) + " classes.");
        }
        found.push_back({box[x], box[1 - x], box[x + 2], box[3 - x], outputs.scores[at], label});
    }
    return found;
}

}  // namespace effdet
