// The part of effdet-deploy's DetectorSpec that running a model needs.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace effdet {

enum class InputKind { uint8, float255, normalized };
enum class Resize { letterbox, center, stretch };
enum class Nms { fixed, onnx, plugin, none };

struct InputSpec {
    int height = 0;
    int width = 0;
    InputKind kind = InputKind::uint8;
    bool bgr = false;
    // Mean and deviation on the 0-1 scale, and the letterbox color; all in RGB order.
    std::array<float, 3> mean{};
    std::array<float, 3> deviation{};
    std::array<std::uint8_t, 3> fill{};
    Resize resize = Resize::letterbox;
    bool antialias = true;
    // If set, the graph takes frames of this size as they are, and gives boxes in their pixels.
    int source_height = 0;
    int source_width = 0;
    // If set, the graph expects DeepStream's frames of this size and clips boxes to them.
    int frame_height = 0;
    int frame_width = 0;

    bool takes_frames() const { return source_height > 0; }
    int graph_height() const { return takes_frames() ? source_height : height; }
    int graph_width() const { return takes_frames() ? source_width : width; }
};

struct AnchorSpec {
    int min_level = 0;
    int max_level = 0;
    std::vector<double> octave_scales;
    std::vector<std::pair<double, double>> aspect_ratios;  // (width, height)
    double scale = 0;
};

struct ClassSpec {
    std::string name;
    std::int32_t category = 0;
};

struct OutputSpec {
    Nms nms = Nms::fixed;
    double score_threshold = 0.01;
    double iou_threshold = 0.5;
    int candidates = 1000;
    int max_detections = 100;
    bool yxyx = false;
    bool class_agnostic = false;
};

struct BatchSpec {
    int minimum = 1;
    int optimum = 1;
    int maximum = 1;
};

struct ExternalFile {
    std::string name;
    std::uint64_t size = 0;
    std::string sha256;
};

struct EngineSpec {
    std::string backend;  // empty if the file is not an engine
    std::string version;
    std::string gpu;
    std::string compute_capability;
    std::vector<std::string> traits;

    bool has(const std::string& trait) const;
};

struct Spec {
    std::string variant;
    InputSpec input;
    AnchorSpec anchors;
    std::vector<ClassSpec> classes;
    OutputSpec output;
    BatchSpec batch;
    std::vector<ExternalFile> external_files;
    EngineSpec engine;
    std::string document;  // the JSON it was read from

    std::size_t anchor_count() const;
};

// What the sidecar FILE.json of a model file says: the spec as JSON, and the model file's SHA-256.
// A value that the sidecar does not have is "".
struct Sidecar {
    std::string spec;
    std::string sha256;
};

// Both functions throw Failure(EFFDET_BAD_MODEL) if the text is not what effdet-deploy writes.
// `what` names the file in messages.
Spec parse_spec(const std::string& json, const std::string& what);
Sidecar parse_sidecar(const std::string& json, const std::string& what);

// One JSON object: the backend, library and device that run the model, and the model's spec.
std::string describe(const Spec& spec, const std::string& backend, const std::string& library,
                     const std::string& device);

const char* name_of(InputKind kind);
const char* name_of(Resize resize);
const char* name_of(Nms nms);

}  // namespace effdet
