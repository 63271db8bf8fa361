// OpenVINO, through its C interface, on the CPU, in the precision that the file states. Its library
// is found while the program runs.
#include <openvino/c/openvino.h>

#include <cstring>
#include <memory>
#include <mutex>
#include <utility>

#include "engine.hpp"
#include "failure.hpp"
#include "library.hpp"

namespace effdet {
namespace {

// OpenVINO does not refuse newer opsets and IR versions: it reads a file as if it had the newest
// ones that OpenVINO knows.
constexpr std::uint64_t kNewestOpset = 28;
constexpr std::uint64_t kNewestIrVersion = 14;

// The functions of OpenVINO that are called here, with the types that its headers declare.
struct Api {
    explicit Api(const std::string& given)
        : library("OpenVINO", given, "EFFDET_OPENVINO_LIBRARY", {"libopenvino_c.so"}) {}

    Library library;

#define EFFDET_OV(name) decltype(::name)* name = library.get<decltype(::name)>(#name)
    EFFDET_OV(ov_get_last_err_msg);
    EFFDET_OV(ov_free);
    EFFDET_OV(ov_get_openvino_version);
    EFFDET_OV(ov_version_free);
    EFFDET_OV(ov_core_create);
    EFFDET_OV(ov_core_free);
    EFFDET_OV(ov_core_read_model);
    EFFDET_OV(ov_core_compile_model);
    EFFDET_OV(ov_model_free);
    EFFDET_OV(ov_model_inputs_size);
    EFFDET_OV(ov_model_const_input_by_name);
    EFFDET_OV(ov_model_const_output_by_name);
    EFFDET_OV(ov_model_reshape_single_input);
    EFFDET_OV(ov_port_get_partial_shape);
    EFFDET_OV(ov_port_get_element_type);
    EFFDET_OV(ov_output_const_port_free);
    EFFDET_OV(ov_partial_shape_create_static);
    EFFDET_OV(ov_partial_shape_free);
    EFFDET_OV(ov_compiled_model_create_infer_request);
    EFFDET_OV(ov_compiled_model_free);
    EFFDET_OV(ov_infer_request_set_input_tensor);
    EFFDET_OV(ov_infer_request_infer);
    EFFDET_OV(ov_infer_request_get_tensor);
    EFFDET_OV(ov_infer_request_free);
    EFFDET_OV(ov_tensor_create_from_host_ptr);
    EFFDET_OV(ov_tensor_get_byte_size);
    EFFDET_OV(ov_tensor_data);
    EFFDET_OV(ov_tensor_free);
    EFFDET_OV(ov_shape_create);
    EFFDET_OV(ov_shape_free);
#undef EFFDET_OV

    void check(ov_status_e status, effdet_status kind, const std::string& doing) const {
        if (status == ov_status_e::OK) {
            return;
        }
        const char* said = ov_get_last_err_msg();
        throw Failure(kind,
                      "OpenVINO could not " + doing + ": " +
                          essence(said != nullptr ? said : "it gave no reason") + ".",
                      "Run the model with ONNX Runtime, or export it again.");
    }
};

template <typename Thing>
using Owned = std::unique_ptr<Thing, void (*)(Thing*)>;

// A compiled model and its inference requests. A request serves one run at a time.
class Compiled {
public:
    Compiled(const Api& api, Owned<ov_compiled_model_t> model)
        : api_(api), model_(std::move(model)) {}

    Owned<ov_infer_request_t> take() {
        {
            const std::lock_guard lock(mutex_);
            if (!idle_.empty()) {
                Owned<ov_infer_request_t> request = std::move(idle_.back());
                idle_.pop_back();
                return request;
            }
        }
        ov_infer_request_t* made = nullptr;
        api_.check(api_.ov_compiled_model_create_infer_request(model_.get(), &made),
                   EFFDET_RUN_FAILED, "create a request");
        return {made, api_.ov_infer_request_free};
    }

    void give_back(Owned<ov_infer_request_t> request) {
        const std::lock_guard lock(mutex_);
        idle_.push_back(std::move(request));
    }

private:
    const Api& api_;
    Owned<ov_compiled_model_t> model_;
    std::mutex mutex_;
    std::vector<Owned<ov_infer_request_t>> idle_;
};

class OpenVino final : public Engine {
public:
    OpenVino(const ModelFile& model, const EngineOptions& options)
        : api_(options.library),
          core_(nullptr, api_.ov_core_free),
          outputs_(output_tensors(model.spec)),
          is_bytes_(model.spec.input.kind == InputKind::uint8),
          is_ranged_(model.spec.batch.minimum != model.spec.batch.maximum),
          sides_(input_sides(model.spec)),
          threads_(options.threads),
          path_(model.path) {
        require_known(model, options.device);
        library = api_.library.path() + version();
        device = "cpu";
        ov_core_t* core = nullptr;
        api_.check(api_.ov_core_create(&core), EFFDET_MISSING, "start");
        core_.reset(core);
        require_fit(model);
        compiled_for(model.spec.batch.minimum);
    }

    void run(const Batch& batch, Outputs& outputs) override {
        Compiled& compiled = compiled_for(batch.count);
        Owned<ov_infer_request_t> request = compiled.take();
        const Owned<ov_tensor_t> input = tensor(batch);
        check(api_.ov_infer_request_set_input_tensor(request.get(), input.get()), "take a tensor");
        check(api_.ov_infer_request_infer(request.get()), "run the model");
        for (const OutputTensor& each : outputs_) {
            copy_out(request.get(), each, batch.count, outputs);
        }
        // A run that fails does not come here: the state of its request is unknown, so the request
        // is not used again.
        compiled.give_back(std::move(request));
    }

private:
    void check(ov_status_e status, const std::string& doing) const {
        api_.check(status, EFFDET_RUN_FAILED, doing);
    }

    std::string version() const {
        ov_version_t found{};
        if (api_.ov_get_openvino_version(&found) != ov_status_e::OK) {
            return "";
        }
        std::string text = " " + std::string(found.buildNumber);
        api_.ov_version_free(&found);
        return text;
    }

    Owned<ov_tensor_t> tensor(const Batch& batch) const {
        std::vector<std::int64_t> sides{batch.count};
        sides.insert(sides.end(), sides_.begin(), sides_.end());
        ov_shape_t shape{};
        check(api_.ov_shape_create(static_cast<std::int64_t>(sides.size()), sides.data(), &shape),
              "take a shape");
        ov_tensor_t* made = nullptr;
        const ov_status_e status = api_.ov_tensor_create_from_host_ptr(
            is_bytes_ ? U8 : F32, shape, const_cast<std::uint8_t*>(batch.pixels), &made);
        api_.ov_shape_free(&shape);
        check(status, "take a tensor");
        return {made, api_.ov_tensor_free};
    }

    void copy_out(const ov_infer_request_t* request, const OutputTensor& output, int count,
                  Outputs& outputs) const {
        ov_tensor_t* made = nullptr;
        check(api_.ov_infer_request_get_tensor(request, output.name, &made), "give an output");
        const Owned<ov_tensor_t> found(made, api_.ov_tensor_free);
        std::size_t bytes = 0;
        check(api_.ov_tensor_get_byte_size(made, &bytes), "give an output");
        const std::size_t wanted = output.bytes() * static_cast<std::size_t>(count);
        if (bytes != wanted) {
            throw Failure(EFFDET_RUN_FAILED,
                          "The output '" + std::string(output.name) + "' has " +
                              std::to_string(bytes) + " bytes where " + std::to_string(wanted) +
                              " are expected.",
                          "Export the model again; its spec belongs to another file.");
        }
        void* data = nullptr;
        check(api_.ov_tensor_data(made, &data), "give an output");
        std::memcpy(output.place(outputs, count), data, bytes);
    }

    // OpenVINO is faster if it knows the shapes. So a model with a range of batch sizes is compiled
    // for one image, and for any number of images only when the first larger batch comes.
    Compiled& compiled_for(int count) {
        const bool one = count == 1;
        const std::lock_guard lock(mutex_);
        std::unique_ptr<Compiled>& compiled = one ? for_one_ : for_many_;
        if (compiled == nullptr) {
            compiled = std::make_unique<Compiled>(api_, compile(one && is_ranged_));
        }
        return *compiled;
    }

    Owned<ov_model_t> read() const {
        ov_model_t* made = nullptr;
        api_.check(api_.ov_core_read_model(core_.get(), path_.c_str(), nullptr, &made),
                   EFFDET_BAD_MODEL, "load '" + path_ + "'");
        return {made, api_.ov_model_free};
    }

    Owned<ov_compiled_model_t> compile(bool for_one_image) const {
        const Owned<ov_model_t> model = read();
        if (for_one_image) {
            std::vector<std::int64_t> sides{1};
            sides.insert(sides.end(), sides_.begin(), sides_.end());
            ov_partial_shape_t shape{};
            check(api_.ov_partial_shape_create_static(static_cast<std::int64_t>(sides.size()),
                                                      sides.data(), &shape),
                  "take a shape");
            const ov_status_e status = api_.ov_model_reshape_single_input(model.get(), shape);
            api_.ov_partial_shape_free(&shape);
            check(status, "take the shape of one image");
        }
        ov_compiled_model_t* made = nullptr;
        const std::string threads = std::to_string(threads_);
        // Without the hint OpenVINO computes in BF16 on CPUs that have it, whatever the file says.
        const ov_status_e status =
            threads_ > 0
                ? api_.ov_core_compile_model(core_.get(), model.get(), "CPU", 6, &made,
                                             "INFERENCE_PRECISION_HINT", "f32", "PERFORMANCE_HINT",
                                             "LATENCY", "INFERENCE_NUM_THREADS", threads.c_str())
                : api_.ov_core_compile_model(core_.get(), model.get(), "CPU", 4, &made,
                                             "INFERENCE_PRECISION_HINT", "f32", "PERFORMANCE_HINT",
                                             "LATENCY");
        api_.check(status, EFFDET_BAD_MODEL, "compile '" + path_ + "'");
        return {made, api_.ov_compiled_model_free};
    }

    static void require_known(const ModelFile& model, const std::string& device) {
        if (!device.empty() && device != "cpu") {
            throw Failure(cuda_index(device) >= 0 ? EFFDET_MISSING : EFFDET_INVALID_ARGUMENT,
                          "OpenVINO runs only on the CPU here, not on '" + essence(device) + "'.",
                          "Choose the device 'cpu', or another backend.");
        }
        if (model.onnx.opset > kNewestOpset || model.onnx.ir_version > kNewestIrVersion) {
            throw Failure(EFFDET_BAD_MODEL,
                          "'" + model.path + "' has opset " + std::to_string(model.onnx.opset) +
                              " and IR version " + std::to_string(model.onnx.ir_version) +
                              ", which are newer than those known here.",
                          "Export the model again with --opset 20.");
        }
    }

    void require_fit(const ModelFile& model) const {
        const Owned<ov_model_t> graph = read();
        std::size_t inputs = 0;
        check(api_.ov_model_inputs_size(graph.get(), &inputs), "describe the model");
        require_type(model, kInputName, inputs == 1);
        ov_output_const_port_t* port = nullptr;
        api_.check(api_.ov_model_const_input_by_name(graph.get(), kInputName, &port),
                   EFFDET_BAD_MODEL, "find the input 'images'");
        require_port(model, kInputName, port, sides_, is_bytes_ ? U8 : F32);
        for (const OutputTensor& each : outputs_) {
            api_.check(api_.ov_model_const_output_by_name(graph.get(), each.name, &port),
                       EFFDET_BAD_MODEL, "find the output '" + std::string(each.name) + "'");
            require_port(model, each.name, port, each.sides, each.floats != nullptr ? F32 : I32);
        }
    }

    void require_port(const ModelFile& model, const std::string& name,
                      ov_output_const_port_t* given, const std::vector<std::int64_t>& sides,
                      ov_element_type_e wanted) const {
        const Owned<ov_output_const_port_t> port(given, api_.ov_output_const_port_free);
        ov_element_type_e type = wanted;
        check(api_.ov_port_get_element_type(given, &type), "describe the model");
        require_type(model, name, type == wanted);
        ov_partial_shape_t shape{};
        check(api_.ov_port_get_partial_shape(given, &shape), "describe the model");
        std::vector<std::int64_t> found;
        for (std::int64_t axis = 0; shape.dims != nullptr && axis < shape.rank.max; ++axis) {
            const ov_dimension_t& side = shape.dims[axis];
            found.push_back(side.min == side.max ? side.max : -1);
        }
        api_.ov_partial_shape_free(&shape);
        require_shape(model, name, found, sides);
    }

    Api api_;
    Owned<ov_core_t> core_;
    std::vector<OutputTensor> outputs_;
    bool is_bytes_;
    bool is_ranged_;
    std::vector<std::int64_t> sides_;
    int threads_;
    std::string path_;
    std::mutex mutex_;
    std::unique_ptr<Compiled> for_one_;
    std::unique_ptr<Compiled> for_many_;
};

}  // namespace

std::unique_ptr<Engine> open_openvino(const ModelFile& model, const EngineOptions& options) {
    return std::make_unique<OpenVino>(model, options);
}

}  // namespace effdet
