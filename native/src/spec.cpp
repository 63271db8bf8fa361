#include "spec.hpp"

#include <algorithm>
#include <cmath>

#include "json_fields.hpp"

namespace effdet {
namespace {

// Every EfficientDet is far inside these bounds, and within them nothing overflows or fills memory.
constexpr int kNewestVersion = 2;
constexpr int kLargestSide = 16384;
constexpr int kHighestLevel = 16;
constexpr int kMostRows = 100'000;
constexpr int kMostCandidates = 10'000'000;
constexpr int kLargestBatch = 4096;
constexpr std::size_t kMostClasses = 100'000;
constexpr std::size_t kMostAnchors = 50'000'000;
constexpr std::int64_t kLargestCategory = 2147483647;

template <typename Value>
struct Choice {
    const char* name;
    Value value;
};

constexpr std::array<Choice<InputKind>, 3> kInputKinds{{{"uint8", InputKind::uint8},
                                                        {"float255", InputKind::float255},
                                                        {"normalized", InputKind::normalized}}};
constexpr std::array<Choice<Resize>, 3> kResizes{{{"letterbox", Resize::letterbox},
                                                  {"center", Resize::center},
                                                  {"stretch", Resize::stretch}}};
constexpr std::array<Choice<Nms>, 4> kNms{{{"static", Nms::fixed},
                                           {"onnx", Nms::onnx},
                                           {"plugin", Nms::plugin},
                                           {"none", Nms::none}}};
constexpr std::array<Choice<bool>, 2> kChannels{{{"rgb", false}, {"bgr", true}}};
constexpr std::array<Choice<bool>, 2> kBoxFormats{{{"xyxy", false}, {"yxyx", true}}};
constexpr std::array<Choice<bool>, 2> kInterpolations{{{"antialias", true}, {"linear", false}}};

template <typename Value, std::size_t Count>
Value choose(const Fields& fields, const char* name, const char* fallback,
             const std::array<Choice<Value>, Count>& choices) {
    const std::string given = fields.text_or(name, fallback);
    std::string known;
    for (const auto& each : choices) {
        if (given == each.name) {
            return each.value;
        }
        known += (known.empty() ? "one of " : ", ") + std::string(each.name);
    }
    refuse_field(fields.path(name), known);
}

template <typename Value, std::size_t Count>
const char* name_in(const std::array<Choice<Value>, Count>& choices, Value value) {
    for (const auto& each : choices) {
        if (each.value == value) {
            return each.name;
        }
    }
    return "";
}

template <typename Value>
std::array<Value, 3> triple(const Fields& fields, const char* name, std::array<Value, 3> fallback,
                            double least, double most) {
    if (!fields.has(name)) {
        return fallback;
    }
    const Json& values = fields.list(name, 3, 3);
    std::array<Value, 3> read{};
    for (std::size_t index = 0; index < 3; ++index) {
        read[index] = static_cast<Value>(
            number_in(values[index], fields.path(name) + "[]", least, most));
    }
    return read;
}

int side(const Json& value, const std::string& path) {
    return static_cast<int>(integer_in(value, path, 1, kLargestSide));
}

InputSpec read_input(const Fields& fields) {
    InputSpec input;
    input.height = static_cast<int>(fields.integer("height", 1, kLargestSide));
    input.width = static_cast<int>(fields.integer("width", 1, kLargestSide));
    input.kind = choose(fields, "kind", "uint8", kInputKinds);
    input.bgr = choose(fields, "channel_order", "rgb", kChannels);
    if (fields.has("mean") && fields.list("mean", 1, 4).size() != 3) {
        throw Failure(EFFDET_BAD_MODEL,
                      "The network takes gray or RGBA pictures, but libeffdet prepares RGB and BGR.",
                      "Run the model with effdet_deploy.load in Python.");
    }
    input.mean = triple<float>(fields, "mean", {0.485F, 0.456F, 0.406F}, -1e3, 1e3);
    input.deviation = triple<float>(fields, "std", {0.229F, 0.224F, 0.225F}, 1e-6, 1e3);
    input.fill = triple<std::uint8_t>(fields, "fill", {124, 116, 104}, 0, 255);
    input.resize = choose(fields, "resize", "letterbox", kResizes);
    input.antialias = choose(fields, "interpolation", "antialias", kInterpolations);
    // trained_on is folded into the graph, so it is not needed here; its value is only checked.
    choose(fields, "trained_on", "rgb", kChannels);
    if (fields.has("frame_size")) {
        const Json& size = fields.list("frame_size", 2, 2);
        input.frame_height = side(size[0], fields.path("frame_size") + "[]");
        input.frame_width = side(size[1], fields.path("frame_size") + "[]");
    }
    if (fields.has("source_size")) {
        const Json& size = fields.list("source_size", 2, 2);
        input.source_height = side(size[0], fields.path("source_size") + "[]");
        input.source_width = side(size[1], fields.path("source_size") + "[]");
        if (input.kind != InputKind::uint8) {
            refuse_field(fields.path("kind"), "uint8 where source_size is set");
        }
    }
    return input;
}

// Version 1 of the spec has the number of scales, which divide an octave evenly; version 2 has the
// scales themselves.
std::vector<double> read_octaves(const Fields& fields) {
    std::vector<double> scales;
    if (fields.has("octave_scales")) {
        for (const Json& each : fields.list("octave_scales", 1, 64)) {
            scales.push_back(number_in(each, fields.path("octave_scales") + "[]", 1e-4, 1e4));
        }
        return scales;
    }
    const std::int64_t count = fields.integer("num_scales", 1, 64);
    for (std::int64_t octave = 0; octave < count; ++octave) {
        scales.push_back(std::pow(2.0, static_cast<double>(octave) / static_cast<double>(count)));
    }
    return scales;
}

AnchorSpec read_anchors(const Fields& fields) {
    AnchorSpec anchors;
    anchors.min_level = static_cast<int>(fields.integer("min_level", 0, kHighestLevel));
    anchors.max_level =
        static_cast<int>(fields.integer("max_level", anchors.min_level, kHighestLevel));
    anchors.octave_scales = read_octaves(fields);
    if (fields.text_or("order", "octaves-first") != "octaves-first") {
        refuse_field(fields.path("order"), "octaves-first");
    }
    anchors.scale = fields.number("scale", 1e-6, 1e6);
    for (const Json& each : fields.list("aspect_ratios", 1, 64)) {
        const std::string path = fields.path("aspect_ratios") + "[]";
        if (!each.is_array() || each.size() != 2) {
            refuse_field(path, "a pair of numbers");
        }
        anchors.aspect_ratios.emplace_back(number_in(each[0], path, 1e-6, 1e6),
                                           number_in(each[1], path, 1e-6, 1e6));
    }
    return anchors;
}

std::vector<ClassSpec> read_classes(const Fields& fields) {
    std::vector<ClassSpec> classes;
    for (const Json& each : fields.list("classes", 1, kMostClasses)) {
        const Fields one(each, fields.path("classes") + "[]");
        classes.push_back({one.text("name"), static_cast<std::int32_t>(one.integer(
                                                 "category_id", -kLargestCategory, kLargestCategory))});
    }
    return classes;
}

OutputSpec read_output(const Fields& fields) {
    OutputSpec output;
    output.nms = choose(fields, "nms", "static", kNms);
    output.score_threshold = fields.number_or("score_threshold", 0.01, 0, 1);
    output.iou_threshold = fields.number_or("iou_threshold", 0.5, 0, 1);
    output.candidates = static_cast<int>(fields.integer_or("candidates", 1000, 1, kMostCandidates));
    output.max_detections = static_cast<int>(fields.integer_or("max_detections", 100, 1, kMostRows));
    output.yxyx = choose(fields, "box_format", "xyxy", kBoxFormats);
    if (fields.has("class_agnostic")) {
        output.class_agnostic = fields.boolean("class_agnostic");
    }
    if (fields.has("soft_nms")) {
        refuse_field(fields.path("soft_nms"), "null: libeffdet finishes raw heads with hard NMS");
    }
    return output;
}

BatchSpec read_batch(const Fields& fields) {
    BatchSpec batch;
    batch.minimum = static_cast<int>(fields.integer_or("minimum", 1, 1, kLargestBatch));
    batch.maximum = static_cast<int>(fields.integer_or("maximum", 1, batch.minimum, kLargestBatch));
    batch.optimum = static_cast<int>(
        fields.integer_or("optimum", batch.minimum, batch.minimum, batch.maximum));
    return batch;
}

std::vector<ExternalFile> read_external(const Fields& fields) {
    std::vector<ExternalFile> files;
    for (const Json& each : fields.list("external_files", 0, 1024)) {
        const Fields one(each, fields.path("external_files") + "[]");
        files.push_back({one.text("name", 255),
                         static_cast<std::uint64_t>(one.integer("size", 0, INT64_MAX)),
                         one.text("sha256", 64)});
    }
    return files;
}

EngineSpec read_engine(const Fields& fields) {
    EngineSpec engine;
    engine.backend = fields.text("backend");
    engine.version = fields.text("version");
    engine.gpu = fields.text_or("gpu", "");
    engine.compute_capability = fields.text_or("compute_capability", "");
    if (fields.has("traits")) {
        for (const Json& each : fields.list("traits", 0, 256)) {
            if (!each.is_string()) {
                refuse_field(fields.path("traits") + "[]", "a text");
            }
            engine.traits.push_back(each.get<std::string>());
        }
    }
    return engine;
}

void require_consistent(const Spec& spec) {
    if (spec.anchor_count() > kMostAnchors) {
        refuse_field("spec.anchors", "fewer than " + std::to_string(kMostAnchors) + " anchors");
    }
    if (spec.anchor_count() * spec.classes.size() > 16 * kMostAnchors) {
        refuse_field("spec.classes", "a shorter list for an input of this size");
    }
}

}  // namespace

bool EngineSpec::has(const std::string& trait) const {
    return std::find(traits.begin(), traits.end(), trait) != traits.end();
}

std::size_t Spec::anchor_count() const {
    std::size_t cells = 0;
    auto rows = static_cast<std::size_t>(input.height);
    auto columns = static_cast<std::size_t>(input.width);
    for (int level = 0; level <= anchors.max_level; ++level) {
        if (level >= anchors.min_level) {
            cells += rows * columns;
        }
        rows = (rows + 1) / 2;
        columns = (columns + 1) / 2;
    }
    return cells * anchors.octave_scales.size() * anchors.aspect_ratios.size();
}

Spec parse_spec(const std::string& json, const std::string& what) {
    const Json document = parse_json(json, what);
    const Fields fields(document, "spec");
    if (fields.integer_or("version", 1, 0, INT64_MAX) > kNewestVersion) {
        throw Failure(EFFDET_BAD_MODEL,
                      what + " has a spec of a newer version than this libeffdet reads (" +
                          std::to_string(kNewestVersion) + ").",
                      "Update libeffdet.");
    }
    Spec spec;
    spec.variant = fields.text("variant");
    spec.input = read_input(fields.object("input"));
    spec.anchors = read_anchors(fields.object("anchors"));
    spec.classes = read_classes(fields);
    spec.output = fields.has("output") ? read_output(fields.object("output"))
                                       : OutputSpec{};
    if (fields.has("batch")) {
        spec.batch = read_batch(fields.object("batch"));
    }
    if (fields.has("external_files")) {
        spec.external_files = read_external(fields);
    }
    if (fields.has("engine")) {
        spec.engine = read_engine(fields.object("engine"));
    }
    spec.document = json;
    require_consistent(spec);
    return spec;
}

Sidecar parse_sidecar(const std::string& json, const std::string& what) {
    const Json document = parse_json(json, what);
    const Fields fields(document, "sidecar");
    Sidecar sidecar;
    sidecar.sha256 = fields.text_or("sha256", "");
    if (fields.has("spec")) {
        sidecar.spec = document["spec"].dump();
    }
    return sidecar;
}

std::string describe(const Spec& spec, const std::string& backend, const std::string& library,
                     const std::string& device) {
    Json document = {{"libeffdet", EFFDET_VERSION},
                     {"backend", backend},
                     {"library", library},
                     {"device", device},
                     {"spec", Json::parse(spec.document)}};
    return document.dump(-1, ' ', false, Json::error_handler_t::replace);
}

const char* name_of(InputKind kind) { return name_in(kInputKinds, kind); }
const char* name_of(Resize resize) { return name_in(kResizes, resize); }
const char* name_of(Nms nms) { return name_in(kNms, nms); }

}  // namespace effdet
