#include "engine.hpp"

#include <algorithm>
#include <array>
#include <cctype>

#include "failure.hpp"

namespace effdet {
namespace {

using Open = std::unique_ptr<Engine> (*)(const ModelFile&, const EngineOptions&);

// If several runtimes run the same kind of file, the first in kBackends is used unless the caller
// names another.
struct Backend {
    const char* name;
    bool takes_engines;
    Open open;  // null if libeffdet was built without this runtime
};

constexpr std::array kBackends{
#if defined(EFFDET_WITH_FAKE)
    Backend{"fake", false, open_fake},
#endif
#if defined(EFFDET_WITH_ONNXRUNTIME)
    Backend{"onnxruntime", false, open_onnxruntime},
#else
    Backend{"onnxruntime", false, nullptr},
#endif
#if defined(EFFDET_WITH_OPENVINO)
    Backend{"openvino", false, open_openvino},
#else
    Backend{"openvino", false, nullptr},
#endif
#if defined(EFFDET_WITH_TENSORRT)
    Backend{"tensorrt", true, open_tensorrt},
#else
    Backend{"tensorrt", true, nullptr},
#endif
};

const Backend& named_backend(const std::string& name) {
    std::string known;
    for (const Backend& each : kBackends) {
        if (name == each.name) {
            return each;
        }
        known += (known.empty() ? "" : ", ") + std::string(each.name);
    }
    throw Failure(EFFDET_INVALID_ARGUMENT, "There is no backend '" + essence(name) + "'.",
                  "Choose one of " + known + ".");
}

const Backend& choose_backend(const ModelFile& model, const std::string& name) {
    if (!name.empty()) {
        return named_backend(name);
    }
    const auto takes = [&model](const Backend& each) {
        return each.open != nullptr && each.takes_engines == model.is_engine;
    };
    const auto* found = std::find_if(kBackends.begin(), kBackends.end(), takes);
    return found != kBackends.end() ? *found
                                    : named_backend(model.is_engine ? "tensorrt" : "onnxruntime");
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
    std::string text = "[";
    for (const std::int64_t side : shape) {
        text += (text.size() == 1 ? "" : ", ") + (side < 0 ? "N" : std::to_string(side));
    }
    return text + "]";
}

}  // namespace

std::size_t OutputTensor::values() const {
    std::size_t product = 1;
    for (const std::int64_t side : sides) {
        product *= static_cast<std::size_t>(side);
    }
    return product;
}

void* OutputTensor::place(Outputs& outputs, int count) const {
    const std::size_t size = values() * static_cast<std::size_t>(count);
    if (floats != nullptr) {
        (outputs.*floats).resize(size);
        return (outputs.*floats).data();
    }
    (outputs.*integers).resize(size);
    return (outputs.*integers).data();
}

std::vector<OutputTensor> output_tensors(const Spec& spec) {
    const std::int64_t depth = spec.output.max_detections;
    const auto anchors = static_cast<std::int64_t>(spec.anchor_count());
    if (spec.output.nms == Nms::none) {
        const auto classes = static_cast<std::int64_t>(spec.classes.size());
        return {{"class_logits", &Outputs::logits, nullptr, {anchors, classes}},
                {"box_regression", &Outputs::regression, nullptr, {anchors, 4}}};
    }
    return {{"num_detections", nullptr, &Outputs::detected, {1}},
            {"detection_boxes", &Outputs::boxes, nullptr, {depth, 4}},
            {"detection_scores", &Outputs::scores, nullptr, {depth}},
            {"detection_classes", nullptr, &Outputs::classes, {depth}}};
}

std::vector<std::int64_t> input_sides(const Spec& spec) {
    const std::int64_t height = spec.input.graph_height();
    const std::int64_t width = spec.input.graph_width();
    if (spec.input.kind == InputKind::uint8) {
        return {height, width, 3};
    }
    return {3, height, width};
}

std::size_t input_bytes(const Spec& spec) {
    const std::size_t value = spec.input.kind == InputKind::uint8 ? 1 : sizeof(float);
    return static_cast<std::size_t>(spec.input.graph_height()) *
           static_cast<std::size_t>(spec.input.graph_width()) * 3 * value;
}

std::unique_ptr<Engine> open_engine(const ModelFile& model, std::string& backend,
                                    const EngineOptions& options) {
    const Backend& chosen = choose_backend(model, backend);
    backend = chosen.name;
    if (chosen.takes_engines != model.is_engine) {
        throw Failure(EFFDET_BAD_MODEL,
                      "'" + model.path + "' holds " +
                          (model.is_engine ? "a TensorRT engine" : "an ONNX model") + ", which " +
                          chosen.name + " does not run.",
                      "Pass a file of the other kind, or another backend.");
    }
    if (chosen.open == nullptr) {
        throw Failure(EFFDET_MISSING,
                      "This libeffdet was built without " + std::string(chosen.name) + ".",
                      "Build libeffdet where the headers of " + std::string(chosen.name) +
                          " are: docs/native.md says how.");
    }
    if (!model.is_engine && model.spec.output.nms == Nms::plugin) {
        throw Failure(EFFDET_BAD_MODEL,
                      "'" + model.path +
                          "' ends in TensorRT's NMS plugin (--nms plugin), which no other "
                          "runtime has.",
                      "Build a TensorRT engine from it, or export it with --nms static.");
    }
    return chosen.open(model, options);
}

void require_shape(const ModelFile& model, const std::string& name,
                   const std::vector<std::int64_t>& found,
                   const std::vector<std::int64_t>& sides) {
    const auto fits = [](std::int64_t one, std::int64_t wanted) {
        return one < 0 || one == wanted;
    };
    // The first side is the batch, which may have any size in the spec's range.
    const bool right = found.size() == sides.size() + 1 &&
                       std::equal(found.begin() + 1, found.end(), sides.begin(), fits);
    if (!right) {
        std::vector<std::int64_t> wanted{-1};
        wanted.insert(wanted.end(), sides.begin(), sides.end());
        throw Failure(EFFDET_BAD_MODEL,
                      "The graph of '" + model.path + "' does not fit its spec: '" + name +
                          "' has the shape " + shape_text(found) + ", but the spec says " +
                          shape_text(wanted) + ".",
                      "Export the model again; its spec belongs to another file.");
    }
}

void require_type(const ModelFile& model, const std::string& name, bool fits) {
    if (!fits) {
        throw Failure(EFFDET_BAD_MODEL,
                      "The graph of '" + model.path + "' does not fit its spec: '" + name +
                          "' has another type than the spec says.",
                      "Export the model again; its spec belongs to another file.");
    }
}

int cuda_index(const std::string& device) {
    if (device == "cuda") {
        return 0;
    }
    const std::string digits = device.rfind("cuda:", 0) == 0 ? device.substr(5) : "";
    const bool numeric = !digits.empty() && digits.size() < 4 &&
                         std::all_of(digits.begin(), digits.end(), [](unsigned char each) {
                             return std::isdigit(each) != 0;
                         });
    return numeric ? std::stoi(digits) : -1;
}

std::string essence(const std::string& message) {
    constexpr std::size_t kLongest = 400;
    std::string text;
    for (const char each : message) {
        const bool blank = static_cast<unsigned char>(each) <= ' ' || each == 127;
        if (!blank) {
            text += each;
        } else if (!text.empty() && text.back() != ' ') {
            text += ' ';
        }
    }
    if (text.size() > kLongest) {
        text.resize(kLongest);
    }
    while (!text.empty() && (text.back() == ' ' || text.back() == '.')) {
        text.pop_back();
    }
    return text;
}

}  // namespace effdet
