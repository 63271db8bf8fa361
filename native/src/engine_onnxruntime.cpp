// ONNX Runtime, through its C interface, found while the program runs.
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "engine.hpp"
#include "failure.hpp"
#include "library.hpp"

namespace effdet {
namespace {

// The oldest interface with all the functions that are called here; later releases offer it as
// well.
constexpr std::uint32_t kApiVersion = 18;
static_assert(ORT_API_VERSION >= kApiVersion, "ONNX Runtime's headers are older than 1.18");

// The functions of ONNX Runtime, looked up in its library.
class Api {
public:
    explicit Api(const std::string& given)
        : library_("ONNX Runtime", given, "EFFDET_ONNXRUNTIME_LIBRARY",
                   {"libonnxruntime.so.1", "libonnxruntime.so"}) {
        const OrtApiBase* base = library_.get<decltype(OrtGetApiBase)>("OrtGetApiBase")();
        version_ = base->GetVersionString();
        // GetApi returns null if the library is older than this interface.
        api_ = base->GetApi(kApiVersion);
        if (api_ == nullptr) {
            throw Failure(EFFDET_MISSING,
                          "'" + library_.path() + "' is ONNX Runtime " + version_ +
                              ", but at least 1.18 is needed.",
                          "Install a newer ONNX Runtime.");
        }
    }

    const OrtApi* operator->() const { return api_; }
    std::string description() const { return library_.path() + " " + version_; }

    void check(OrtStatus* status, effdet_status kind, const std::string& doing) const {
        if (status == nullptr) {
            return;
        }
        const std::string said = essence(api_->GetErrorMessage(status));
        api_->ReleaseStatus(status);
        const bool no_memory = said.find("allocate") != std::string::npos ||
                               said.find("bad_alloc") != std::string::npos;
        throw Failure(no_memory ? EFFDET_NO_MEMORY : kind,
                      "ONNX Runtime " + version_ + " could not " + doing + ": " + said + ".",
                      no_memory ? "Use a smaller batch, or free some memory."
                                : "Get the file again or export it again.");
    }

private:
    Library library_;
    std::string version_;
    const OrtApi* api_;
};

template <typename Thing>
struct Release {
    const Api* api;
    void (*OrtApi::*release)(Thing*);
    void operator()(Thing* thing) const { ((*api).operator->()->*release)(thing); }
};

template <typename Thing>
using Owned = std::unique_ptr<Thing, Release<Thing>>;

class OnnxRuntime final : public Engine {
public:
    OnnxRuntime(const ModelFile& model, const EngineOptions& options)
        : api_(options.library),
          environment_(nullptr, {&api_, &OrtApi::ReleaseEnv}),
          session_(nullptr, {&api_, &OrtApi::ReleaseSession}),
          memory_(nullptr, {&api_, &OrtApi::ReleaseMemoryInfo}),
          outputs_(output_tensors(model.spec)),
          is_bytes_(model.spec.input.kind == InputKind::uint8),
          sides_(input_sides(model.spec)) {
        library = api_.description();
        OrtEnv* environment = nullptr;
        // ONNX Runtime must not write to the console: its functions return errors as a status.
        check(api_->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "effdet", &environment), "start");
        environment_.reset(environment);
        open_session(model, options);
        OrtMemoryInfo* memory = nullptr;
        check(api_->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory), "start");
        memory_.reset(memory);
        require_fit(model);
        names_.reserve(outputs_.size());
        for (const OutputTensor& each : outputs_) {
            names_.push_back(each.name);
        }
    }

    void run(const Batch& batch, Outputs& outputs) override {
        const auto input = tensor(const_cast<std::uint8_t*>(batch.pixels),
                                  static_cast<std::size_t>(batch.count) * batch.image_bytes,
                                  batch.count, sides_,
                                  is_bytes_ ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8
                                            : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
        // ONNX Runtime writes into memory that is allocated here, and checks the shapes as it
        // writes.
        std::vector<Owned<OrtValue>> owned;
        std::vector<OrtValue*> values;
        for (const OutputTensor& each : outputs_) {
            owned.push_back(tensor(each.place(outputs, batch.count),
                                   each.bytes() * static_cast<std::size_t>(batch.count),
                                   batch.count, each.sides,
                                   each.floats != nullptr ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
                                                          : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32));
            values.push_back(owned.back().get());
        }
        const OrtValue* inputs[] = {input.get()};
        const char* input_names[] = {kInputName};
        api_.check(api_->Run(session_.get(), nullptr, input_names, inputs, 1, names_.data(),
                             names_.size(), values.data()),
                   EFFDET_RUN_FAILED, "run the model");
    }

private:
    void check(OrtStatus* status, const std::string& doing) const {
        api_.check(status, EFFDET_BAD_MODEL, doing);
    }

    Owned<OrtValue> tensor(void* data, std::size_t bytes, int count,
                           const std::vector<std::int64_t>& sides,
                           ONNXTensorElementDataType type) const {
        std::vector<std::int64_t> shape{count};
        shape.insert(shape.end(), sides.begin(), sides.end());
        OrtValue* value = nullptr;
        check(api_->CreateTensorWithDataAsOrtValue(memory_.get(), data, bytes, shape.data(),
                                                   shape.size(), type, &value),
              "take a tensor");
        return {value, {&api_, &OrtApi::ReleaseValue}};
    }

    void open_session(const ModelFile& model, const EngineOptions& options) {
        const int gpu = cuda_index(options.device);
        if (!options.device.empty() && options.device != "cpu" && gpu < 0) {
            throw Failure(EFFDET_INVALID_ARGUMENT,
                          "ONNX Runtime has no device '" + essence(options.device) + "' here.",
                          "Choose 'cpu', 'cuda' or 'cuda:1'.");
        }
        const bool offered = offers_cuda();
        if (gpu >= 0 && !offered) {
            throw Failure(EFFDET_MISSING,
                          "The device '" + options.device +
                              "' was asked for, but this ONNX Runtime runs only on the CPU.",
                          "Install its GPU build (onnxruntime-gpu), or choose the device 'cpu'.");
        }
        if (gpu >= 0 || (options.device.empty() && offered)) {
            try {
                create_session(model, options, std::max(gpu, 0));
                return;
            } catch (const Failure&) {
                // If the caller named a GPU, the CPU does not take its place.
                if (gpu >= 0) {
                    throw;
                }
            }
        }
        create_session(model, options, -1);
    }

    bool offers_cuda() const {
        char** providers = nullptr;
        int count = 0;
        check(api_->GetAvailableProviders(&providers, &count), "list its providers");
        const bool found = std::any_of(providers, providers + count, [](const char* each) {
            return std::string(each) == "CUDAExecutionProvider";
        });
        check(api_->ReleaseAvailableProviders(providers, count), "list its providers");
        return found;
    }

    void create_session(const ModelFile& model, const EngineOptions& options, int gpu) {
        OrtSessionOptions* made = nullptr;
        check(api_->CreateSessionOptions(&made), "start");
        const Owned<OrtSessionOptions> settings(made, {&api_, &OrtApi::ReleaseSessionOptions});
        check(api_->SetSessionLogSeverityLevel(made, ORT_LOGGING_LEVEL_FATAL), "start");
        if (options.threads > 0) {
            check(api_->SetIntraOpNumThreads(made, options.threads), "take the threads");
        }
        if (gpu >= 0) {
            add_cuda(made, gpu);
        }
        OrtSession* session = nullptr;
        check(api_->CreateSession(environment_.get(), model.path.c_str(), made, &session),
              "load '" + model.path + "'");
        session_.reset(session);
        device = gpu >= 0 ? "cuda:" + std::to_string(gpu) : "cpu";
    }

    void add_cuda(OrtSessionOptions* settings, int gpu) const {
        OrtCUDAProviderOptionsV2* made = nullptr;
        api_.check(api_->CreateCUDAProviderOptions(&made), EFFDET_MISSING, "start CUDA");
        const Owned<OrtCUDAProviderOptionsV2> provider(
            made, {&api_, &OrtApi::ReleaseCUDAProviderOptions});
        const std::string index = std::to_string(gpu);
        // CUDA's default for FP32 is TF32, which has only 10 bits of mantissa.
        const char* keys[] = {"device_id", "use_tf32"};
        const char* values[] = {index.c_str(), "0"};
        api_.check(api_->UpdateCUDAProviderOptions(made, keys, values, 2), EFFDET_MISSING,
                   "start CUDA");
        api_.check(api_->SessionOptionsAppendExecutionProvider_CUDA_V2(settings, made),
                   EFFDET_MISSING, "start CUDA");
    }

    void require_fit(const ModelFile& model) const {
        OrtAllocator* allocator = nullptr;
        check(api_->GetAllocatorWithDefaultOptions(&allocator), "start");
        std::size_t inputs = 0;
        std::size_t outputs = 0;
        check(api_->SessionGetInputCount(session_.get(), &inputs), "describe the model");
        check(api_->SessionGetOutputCount(session_.get(), &outputs), "describe the model");
        bool has_input = false;
        for (std::size_t index = 0; index < inputs; ++index) {
            char* name = nullptr;
            check(api_->SessionGetInputName(session_.get(), index, allocator, &name),
                  "describe the model");
            has_input = inputs == 1 && std::string(name) == kInputName;
            check(api_->AllocatorFree(allocator, name), "describe the model");
        }
        require_type(model, kInputName, has_input);
        require_tensor(model, kInputName, true, 0, sides_,
                       is_bytes_ ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8
                                 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
        for (const OutputTensor& each : outputs_) {
            require_tensor(model, each.name, false, output_index(model, each.name, outputs),
                           each.sides,
                           each.floats != nullptr ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
                                                  : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32);
        }
    }

    std::size_t output_index(const ModelFile& model, const std::string& wanted,
                             std::size_t outputs) const {
        OrtAllocator* allocator = nullptr;
        check(api_->GetAllocatorWithDefaultOptions(&allocator), "start");
        for (std::size_t index = 0; index < outputs; ++index) {
            char* name = nullptr;
            check(api_->SessionGetOutputName(session_.get(), index, allocator, &name),
                  "describe the model");
            const bool found = wanted == name;
            check(api_->AllocatorFree(allocator, name), "describe the model");
            if (found) {
                return index;
            }
        }
        throw Failure(EFFDET_BAD_MODEL,
                      "The graph of '" + model.path + "' has no output '" + wanted + "'.",
                      "Export the model again; its spec belongs to another file.");
    }

    void require_tensor(const ModelFile& model, const std::string& name, bool is_input,
                        std::size_t index, const std::vector<std::int64_t>& sides,
                        ONNXTensorElementDataType wanted) const {
        OrtTypeInfo* made = nullptr;
        check(is_input ? api_->SessionGetInputTypeInfo(session_.get(), index, &made)
                       : api_->SessionGetOutputTypeInfo(session_.get(), index, &made),
              "describe the model");
        const Owned<OrtTypeInfo> type(made, {&api_, &OrtApi::ReleaseTypeInfo});
        const OrtTensorTypeAndShapeInfo* info = nullptr;
        check(api_->CastTypeInfoToTensorInfo(made, &info), "describe the model");
        require_type(model, name, info != nullptr);
        ONNXTensorElementDataType found = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
        check(api_->GetTensorElementType(info, &found), "describe the model");
        require_type(model, name, found == wanted);
        std::size_t rank = 0;
        check(api_->GetDimensionsCount(info, &rank), "describe the model");
        std::vector<std::int64_t> shape(rank);
        check(api_->GetDimensions(info, shape.data(), rank), "describe the model");
        require_shape(model, name, shape, sides);
    }

    Api api_;
    Owned<OrtEnv> environment_;
    Owned<OrtSession> session_;
    Owned<OrtMemoryInfo> memory_;
    std::vector<OutputTensor> outputs_;
    std::vector<const char*> names_;
    bool is_bytes_;
    std::vector<std::int64_t> sides_;
};

}  // namespace

std::unique_ptr<Engine> open_onnxruntime(const ModelFile& model, const EngineOptions& options) {
    return std::make_unique<OnnxRuntime>(model, options);
}

}  // namespace effdet
