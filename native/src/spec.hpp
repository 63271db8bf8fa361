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
    // Mean and deviation on the 0-1 scale, and the letterbox colour; all in RGB order.
    std::array<float, 3> mean{};
    std::array<float, 3> deviation{};
    std::array<std::uint8_t, 3> fill{};
    Resize resize = Resize::letterbox;
    bool antialias = true;
    // Where set, frames of this size go in as they are, and boxes come out in their pixels.
    int source_height = 0;
    int source_width = 0;
    // Where set, only frames of this size have all of their picture seen, and boxes are clipped to it.
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
    std::string backend;  // empty where the file is no engine
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

// The sidecar of an artifact: its spec as JSON, or "" where it has none, and the artifact's SHA-256.
struct Sidecar {
    std::string spec;
    std::string sha256;
};

// Both throw Failure(EFFDET_BAD_MODEL) on anything that is not what effdet-deploy writes. `what`
// names the file in messages.
Spec parse_spec(const std::string& json, const std::string& what);
Sidecar parse_sidecar(const std::string& json, const std::string& what);

// One JSON object: what runs the model, and its spec.
std::string describe(const Spec& spec, const std::string& backend, const std::string& library,
                     const std::string& device);

const char* name_of(InputKind kind);
const char* name_of(Resize resize);
const char* name_of(Nms nms);

}  // namespace effdet
