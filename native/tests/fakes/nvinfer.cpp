// A fake of the part of TensorRT that libeffdet calls, with the stub header. Its "engine" finds
// four boxes, whose score is the picture's first byte divided by 255.
#include <NvInfer.h>

#include <cstring>
#include <map>

#include "recorder.hpp"

namespace {

constexpr int kDepth = 4;
constexpr int kSide = 128;

nvinfer1::ILogger* logger = nullptr;

bool tell(const char* name) {
    const bool succeeds = recorder().note(name);
    if (!succeeds && logger != nullptr) {
        logger->log(nvinfer1::ILogger::Severity::kERROR, "[fake.cpp] the fake\nwas told to fail.");
    }
    return succeeds;
}

nvinfer1::Dims shape_of(const std::string& name, std::int64_t batch) {
    if (name == "images") {
        return {4, {batch, kSide, kSide, 3}};
    }
    if (name == "detection_boxes") {
        return {3, {batch, kDepth, 4}};
    }
    return {2, {batch, name == "num_detections" ? 1 : kDepth}};
}

class Context final : public nvinfer1::IExecutionContext {
public:
    Context() { recorder().count(1); }
    ~Context() override { recorder().count(-1); }

    bool setTensorAddress(const char* name, void* address) noexcept override {
        addresses_[name] = address;
        return tell("setTensorAddress");
    }
    bool setInputShape(const char*, const nvinfer1::Dims& dims) noexcept override {
        batch_ = dims.d[0];
        return tell("setInputShape");
    }
    nvinfer1::Dims getTensorShape(const char* name) const noexcept override {
        return shape_of(name, tell("getTensorShape") ? batch_ : -1);
    }
    bool enqueueV3(cudaStream_t) noexcept override {
        const bool refuses_recording = recorder().is_recording && !tell("recording");
        if (refuses_recording || !tell("enqueueV3")) {
            return false;
        }
        recorder().queue([this] { compute(); });
        return true;
    }

private:
    void compute() {
        const auto* pixels = static_cast<const std::uint8_t*>(addresses_["images"]);
        for (std::int64_t image = 0; image < batch_; ++image) {
            static_cast<std::int32_t*>(addresses_["num_detections"])[image] = kDepth;
            for (std::int64_t row = image * kDepth; row < (image + 1) * kDepth; ++row) {
                const float box[] = {1, 2, 30, 40};
                std::memcpy(static_cast<float*>(addresses_["detection_boxes"]) + row * 4, box,
                            sizeof box);
                static_cast<float*>(addresses_["detection_scores"])[row] =
                    static_cast<float>(pixels[image * kSide * kSide * 3]) / 255;
                static_cast<std::int32_t*>(addresses_["detection_classes"])[row] = 1;
            }
        }
    }

    std::map<std::string, void*> addresses_;
    std::int64_t batch_ = 0;
};

class FakeEngine final : public nvinfer1::ICudaEngine {
public:
    FakeEngine() { recorder().count(1); }
    ~FakeEngine() override { recorder().count(-1); }

    std::int32_t getNbIOTensors() const noexcept override { return 5; }
    nvinfer1::TensorIOMode getTensorIOMode(const char* name) const noexcept override {
        return std::strcmp(name, "images") == 0 ? nvinfer1::TensorIOMode::kINPUT
                                                : nvinfer1::TensorIOMode::kOUTPUT;
    }
    nvinfer1::DataType getTensorDataType(const char* name) const noexcept override {
        const std::string asked = name;
        if (!tell("getTensorDataType")) {
            return nvinfer1::DataType::kHALF;
        }
        return asked == "images"                                             ? nvinfer1::DataType::kUINT8
               : asked == "num_detections" || asked == "detection_classes" ? nvinfer1::DataType::kINT32
                                                                             : nvinfer1::DataType::kFLOAT;
    }
    nvinfer1::Dims getTensorShape(const char* name) const noexcept override {
        return shape_of(name, -1);
    }
    nvinfer1::IExecutionContext* createExecutionContext() noexcept override {
        return tell("createExecutionContext") ? new Context : nullptr;
    }
};

class Runtime final : public nvinfer1::IRuntime {
public:
    Runtime() { recorder().count(1); }
    ~Runtime() override { recorder().count(-1); }

    void setEngineHostCodeAllowed(bool) noexcept override { tell("setEngineHostCodeAllowed"); }
    nvinfer1::ICudaEngine* deserializeCudaEngine(const void*, std::size_t) noexcept override {
        return tell("deserializeCudaEngine") ? new FakeEngine : nullptr;
    }
};

}  // namespace

extern "C" {

std::int32_t getInferLibVersion() { return tell("getInferLibVersion") ? NV_TENSORRT_VERSION : 110100; }

void* createInferRuntime_INTERNAL(void* log, std::int32_t version) {
    logger = static_cast<nvinfer1::ILogger*>(log);
    return tell("createInferRuntime") && version == NV_TENSORRT_VERSION
               ? static_cast<nvinfer1::IRuntime*>(new Runtime)
               : nullptr;
}

}  // extern "C"
