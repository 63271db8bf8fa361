// TensorRT 10 and 11, whose library is found while the program runs. This file is compiled with
// NVIDIA's header of one major version, and the library must have the same major version.
#include <NvInfer.h>

#include <algorithm>
#include <array>
#include <memory>
#include <mutex>
#include <utility>

#include "cuda.hpp"
#include "engine.hpp"
#include "failure.hpp"
#include "library.hpp"
#include "tensorrt_log.hpp"
#include "tensorrt_session.hpp"

namespace effdet {
namespace {

using Version = std::array<int, 3>;

constexpr const char* kRebuild = "Build it on this machine from its ONNX file, or install that "
                                 "release.";

Version parse_version(const std::string& text) {
    Version version{};
    std::size_t part = 0;
    for (const char each : text) {
        if (each == '.') {
            ++part;
        } else if (part < version.size() && each >= '0' && each <= '9' && version[part] < 100000) {
            version[part] = version[part] * 10 + (each - '0');
        }
    }
    return version;
}

std::string text_of(const Version& version) {
    return std::to_string(version[0]) + "." + std::to_string(version[1]) + "." +
           std::to_string(version[2]);
}

// TensorRT's library, whose objects are made by C functions.
class NvInfer {
public:
    explicit NvInfer(const std::string& given)
        : library_("TensorRT", given, "EFFDET_TENSORRT_LIBRARY",
                   {"libnvinfer.so." + std::to_string(NV_TENSORRT_MAJOR)}) {
        const std::int32_t number = library_.get<std::int32_t()>("getInferLibVersion")();
        version_ = {number / 10000, number / 100 % 100, number % 100};
        if (version_[0] != NV_TENSORRT_MAJOR) {
            throw Failure(EFFDET_MISSING,
                          "'" + library_.path() + "' is TensorRT " + text_of(version_) +
                              ", but this libeffdet was built for TensorRT " +
                              std::to_string(NV_TENSORRT_MAJOR) + ".",
                          "Build libeffdet with the headers of that release.");
        }
    }

    std::unique_ptr<nvinfer1::IRuntime> create_runtime(TensorRtLog& log) const {
        auto* create = library_.get<void*(void*, std::int32_t)>("createInferRuntime_INTERNAL");
        auto* made = static_cast<nvinfer1::IRuntime*>(
            create(static_cast<nvinfer1::ILogger*>(&log), NV_TENSORRT_VERSION));
        if (made == nullptr) {
            throw log.refused(EFFDET_MISSING, "start");
        }
        return std::unique_ptr<nvinfer1::IRuntime>(made);
    }

    const Version& version() const { return version_; }
    std::string description() const { return library_.path() + " " + text_of(version_); }

private:
    Library library_;
    Version version_{};
};

// Registers NVIDIA's plugins, which an engine with --nms plugin needs.
void register_plugins(TensorRtLog& log) {
    const Library plugins("TensorRT's plugins", "", "EFFDET_TENSORRT_PLUGIN_LIBRARY",
                          {"libnvinfer_plugin.so." + std::to_string(NV_TENSORRT_MAJOR)});
    plugins.get<bool(void*, const char*)>("initLibNvInferPlugins")(
        static_cast<nvinfer1::ILogger*>(&log), "");
}

void require_same_library(const ModelFile& model, const Version& found) {
    const EngineSpec& built = model.spec.engine;
    if (built.backend != "tensorrt") {
        throw Failure(EFFDET_BAD_MODEL,
                      "'" + model.path + "' was built with " + essence(built.backend) +
                          ", but libeffdet runs engines of TensorRT.",
                      "Build it with --backend tensorrt.");
    }
    const Version wanted = parse_version(built.version);
    const bool is_later = built.has("version-compatible") && found[0] == wanted[0] &&
                          found >= wanted;
    if (found != wanted && !is_later) {
        throw Failure(EFFDET_BAD_MODEL,
                      "'" + model.path + "' was built for TensorRT " + essence(built.version) +
                          ", but this is TensorRT " + text_of(found) + ".",
                      kRebuild);
    }
}

void require_same_gpu(const ModelFile& model, const Cuda& cuda) {
    const EngineSpec& built = model.spec.engine;
    const std::string& capability = cuda.compute_capability();
    bool fits = built.gpu.empty() ||
                (cuda.name() == built.gpu && capability == built.compute_capability);
    if (built.has("hardware-compatible=ampere+")) {
        fits = parse_version(capability)[0] >= 8;
    } else if (built.has("hardware-compatible=same-compute-capability")) {
        fits = capability == built.compute_capability;
    }
    if (!fits) {
        throw Failure(EFFDET_BAD_MODEL,
                      "'" + model.path + "' was built for " + essence(built.gpu) +
                          " (compute capability " + essence(built.compute_capability) +
                          "), but this is " + cuda.name() + " (" + capability + ").",
                      kRebuild);
    }
}

int device_of(const EngineOptions& options) {
    const int index = options.device.empty() ? 0 : cuda_index(options.device);
    if (index < 0) {
        throw Failure(options.device == "cpu" ? EFFDET_MISSING : EFFDET_INVALID_ARGUMENT,
                      "A TensorRT engine runs only on an NVIDIA GPU, not on '" +
                          essence(options.device) + "'.",
                      "Choose 'cuda' or 'cuda:1', or run the ONNX file.");
    }
    return index;
}

// One logger for the whole process, which is never destroyed: TensorRT keeps the first logger that
// it is given and writes to it for all engines, also after the engine that passed it is gone.
TensorRtLog& process_log() {
    static auto* log = new TensorRtLog;
    return *log;
}

class TensorRt final : public Engine {
public:
    TensorRt(const ModelFile& model, const EngineOptions& options)
        : cuda_(device_of(options)),
          infer_(options.library) {
        require_same_library(model, infer_.version());
        require_same_gpu(model, cuda_);
        library = infer_.description();
        device = "cuda:" + std::to_string(device_of(options));
        const Cuda::Current current(cuda_);
        runtime_ = infer_.create_runtime(log_);
        if (model.spec.output.nms == Nms::plugin) {
            register_plugins(log_);
        }
        // A version-compatible plan contains the code of its own runtime.
        runtime_->setEngineHostCodeAllowed(model.spec.engine.has("version-compatible"));
        engine_.reset(runtime_->deserializeCudaEngine(model.bytes->data(), model.bytes->size()));
        if (engine_ == nullptr) {
            throw log_.refused(EFFDET_BAD_MODEL, "load '" + model.path + "'");
        }
        require_fit(model);
        const BatchSpec& batch = model.spec.batch;
        graph_ = std::make_unique<TensorRtGraph>(TensorRtGraph{
            *engine_, log_, cuda_, input_sides(model.spec), input_bytes(model.spec),
            output_tensors(model.spec), batch.maximum, batch.minimum == batch.maximum});
        // The first session is created here, so that a lack of memory shows now and not at the
        // first run.
        idle_.push_back(std::make_unique<TensorRtSession>(*graph_));
    }

    ~TensorRt() override {
        try {
            const Cuda::Current current(cuda_);
            idle_.clear();
            graph_.reset();
            engine_.reset();
            runtime_.reset();
        } catch (const Failure&) {
            // The device is lost, and with it everything that would be released here.
        }
    }

    void run(const Batch& batch, Outputs& outputs) override {
        const Cuda::Current current(cuda_);
        std::unique_ptr<TensorRtSession> session = take();
        // If the run fails, the state of the session is unknown: it is destroyed and not reused.
        session->run(batch, outputs);
        const std::lock_guard lock(mutex_);
        idle_.push_back(std::move(session));
    }

    bool takes_device_memory() const override { return true; }

private:
    std::unique_ptr<TensorRtSession> take() {
        {
            const std::lock_guard lock(mutex_);
            if (!idle_.empty()) {
                std::unique_ptr<TensorRtSession> session = std::move(idle_.back());
                idle_.pop_back();
                return session;
            }
        }
        return std::make_unique<TensorRtSession>(*graph_);
    }

    void require_fit(const ModelFile& model) const {
        const std::vector<OutputTensor> outputs = output_tensors(model.spec);
        require_tensor(model, kInputName, nvinfer1::TensorIOMode::kINPUT,
                       model.spec.input.kind == InputKind::uint8 ? nvinfer1::DataType::kUINT8
                                                                 : nvinfer1::DataType::kFLOAT,
                       input_sides(model.spec));
        for (const OutputTensor& each : outputs) {
            require_tensor(model, each.name, nvinfer1::TensorIOMode::kOUTPUT,
                           each.floats != nullptr ? nvinfer1::DataType::kFLOAT
                                                  : nvinfer1::DataType::kINT32,
                           each.sides);
        }
        // Further outputs would need addresses, and further inputs would need values.
        const std::int32_t count = engine_->getNbIOTensors();
        if (count != static_cast<std::int32_t>(outputs.size()) + 1) {
            throw Failure(EFFDET_BAD_MODEL,
                          "The engine '" + model.path + "' has " + std::to_string(count) +
                              " inputs and outputs, but its spec names " +
                              std::to_string(outputs.size() + 1) + ".",
                          "Build the engine again; its spec belongs to another file.");
        }
    }

    void require_tensor(const ModelFile& model, const std::string& name,
                        nvinfer1::TensorIOMode mode, nvinfer1::DataType type,
                        const std::vector<std::int64_t>& sides) const {
        require_type(model, name, engine_->getTensorIOMode(name.c_str()) == mode);
        require_type(model, name, engine_->getTensorDataType(name.c_str()) == type);
        const nvinfer1::Dims dims = engine_->getTensorShape(name.c_str());
        require_shape(model, name, {dims.d, dims.d + std::max(dims.nbDims, 0)}, sides);
    }

    TensorRtLog& log_ = process_log();
    Cuda cuda_;
    NvInfer infer_;
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    std::unique_ptr<TensorRtGraph> graph_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<TensorRtSession>> idle_;
};

}  // namespace

std::unique_ptr<Engine> open_tensorrt(const ModelFile& model, const EngineOptions& options) {
    return std::make_unique<TensorRt>(model, options);
}

}  // namespace effdet
