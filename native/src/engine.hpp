// The interface of the runtimes, which run graphs. A runtime is a class derived from Engine in a
// source file engine_*.cpp. Elsewhere in comments, an engine is a file that TensorRT built.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "model_file.hpp"

namespace effdet {

struct EngineOptions {
    std::string library;
    std::string device;  // "" means that the runtime chooses
    int threads = 0;     // 0 means that the runtime chooses
};

// A batch of `count` images for the graph's only input, `image_bytes` bytes per image. They lie one
// after another at `pixels` in host memory; if `pixels` is null, at frames[i] in device memory.
struct Batch {
    const std::uint8_t* pixels = nullptr;
    std::vector<const void*> frames;
    int count = 0;
    std::size_t image_bytes = 0;
    void* stream = nullptr;  // the caller's CUDA stream; null takes one of the runtime's own
};

// The graph's outputs in host memory, for `count` images: a graph with NMS fills the first four
// lists, a graph with raw heads the last two.
struct Outputs {
    std::vector<std::int32_t> detected;  // [count]
    std::vector<float> boxes;            // [count, max_detections, 4]
    std::vector<float> scores;           // [count, max_detections]
    std::vector<std::int32_t> classes;   // [count, max_detections]
    std::vector<float> logits;           // [count, anchors, classes]
    std::vector<float> regression;       // [count, anchors, 4]
};

// An output that the graph must have: its name, the list in Outputs that takes it, and its shape.
struct OutputTensor {
    const char* name;
    std::vector<float> Outputs::*floats;  // null if the values are whole numbers
    std::vector<std::int32_t> Outputs::*integers;
    std::vector<std::int64_t> sides;  // without the batch

    std::size_t values() const;
    std::size_t bytes() const { return values() * 4; }
    // Makes room for `count` images and returns the address to write them to.
    void* place(Outputs& outputs, int count) const;
};

std::vector<OutputTensor> output_tensors(const Spec& spec);
// The shape of the graph's input, without the batch.
std::vector<std::int64_t> input_sides(const Spec& spec);
std::size_t input_bytes(const Spec& spec);

constexpr const char* kInputName = "images";

class Engine {
public:
    Engine() = default;
    virtual ~Engine() = default;
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    // May be called by several threads at once. Throws Failure.
    virtual void run(const Batch& batch, Outputs& outputs) = 0;

    virtual bool takes_device_memory() const { return false; }

    std::string library;  // what was loaded, with its version
    std::string device;   // where it runs: "cpu", "cuda:0"
};

// Opens the model in the runtime called `backend`. If `backend` is "", chooses the first runtime
// that takes this kind of file and writes its name to `backend`. Throws Failure.
std::unique_ptr<Engine> open_engine(const ModelFile& model, std::string& backend,
                                    const EngineOptions& options);

std::unique_ptr<Engine> open_onnxruntime(const ModelFile& model, const EngineOptions& options);
std::unique_ptr<Engine> open_openvino(const ModelFile& model, const EngineOptions& options);
std::unique_ptr<Engine> open_tensorrt(const ModelFile& model, const EngineOptions& options);
std::unique_ptr<Engine> open_fake(const ModelFile& model, const EngineOptions& options);

// Refuses a graph whose tensors are not those of its spec; -1 is a side that is not fixed.
void require_shape(const ModelFile& model, const std::string& name,
                   const std::vector<std::int64_t>& found, const std::vector<std::int64_t>& sides);
void require_type(const ModelFile& model, const std::string& name, bool fits);

// The number N of "cuda:N" or "cuda"; -1 for another device.
int cuda_index(const std::string& device);

// A runtime's message in a form that can end a sentence: one short line without control characters.
std::string essence(const std::string& message);

}  // namespace effdet
