#include "tensorrt_session.hpp"

#include <cstring>

namespace effdet {
namespace {

nvinfer1::Dims dims_of(int count, const std::vector<std::int64_t>& sides) {
    nvinfer1::Dims dims{};
    dims.nbDims = static_cast<std::int32_t>(sides.size()) + 1;
    dims.d[0] = count;
    for (std::size_t axis = 0; axis < sides.size(); ++axis) {
        dims.d[axis + 1] = sides[axis];
    }
    return dims;
}

bool same(const nvinfer1::Dims& one, const nvinfer1::Dims& other) {
    if (one.nbDims != other.nbDims) {
        return false;
    }
    for (int axis = 0; axis < one.nbDims; ++axis) {
        if (one.d[axis] != other.d[axis]) {
            return false;
        }
    }
    return true;
}

cudaStream_t native(void* stream) { return static_cast<cudaStream_t>(stream); }

}  // namespace

TensorRtSession::TensorRtSession(const TensorRtGraph& graph)
    : graph_(graph), outputs_(graph.outputs.size()), is_recordable_(graph.is_fixed) {
    context_.reset(graph.engine.createExecutionContext());
    if (context_ == nullptr) {
        throw graph_.log.refused(EFFDET_NO_MEMORY, "create an execution context");
    }
    try {
        stream_ = graph.cuda.create_stream();
        const auto largest = static_cast<std::size_t>(graph.largest_batch);
        allocate(input_, graph.image_bytes * largest);
        const auto address = [this](const char* name, const Buffer& buffer) {
            if (!context_->setTensorAddress(name, reinterpret_cast<void*>(buffer.device))) {
                throw graph_.log.refused(EFFDET_BAD_MODEL,
                                         "take the address of '" + std::string(name) + "'");
            }
        };
        address(kInputName, input_);
        for (std::size_t at = 0; at < outputs_.size(); ++at) {
            allocate(outputs_[at], graph.outputs[at].bytes() * largest);
            address(graph.outputs[at].name, outputs_[at]);
        }
    } catch (...) {
        release();
        throw;
    }
}

TensorRtSession::~TensorRtSession() { release(); }

void TensorRtSession::allocate(Buffer& buffer, std::size_t bytes) {
    buffer.host = graph_.cuda.allocate_pinned(bytes);
    buffer.device = graph_.cuda.allocate(bytes);
}

void TensorRtSession::release() noexcept {
    const Cuda& cuda = graph_.cuda;
    if (recording_ != nullptr) {
        cuda.destroy_graph(recording_);
    }
    // The context is destroyed before the memory whose addresses it holds.
    context_.reset();
    outputs_.push_back(input_);
    for (const Buffer& each : outputs_) {
        if (each.device != 0) {
            cuda.free(each.device);
        }
        if (each.host != nullptr) {
            cuda.free_pinned(each.host);
        }
    }
    if (stream_ != nullptr) {
        cuda.destroy_stream(stream_);
    }
}

void TensorRtSession::run(const Batch& batch, Outputs& outputs) {
    void* stream = batch.stream != nullptr ? batch.stream : stream_;
    set_batch(batch.count);
    queue_inputs(batch, stream);
    if (is_recordable_) {
        queue_recorded(batch.count, stream);
    } else {
        queue_work(batch.count, stream);
    }
    // Before this wait the output memory still holds values of an earlier run.
    graph_.cuda.synchronize(stream);
    for (std::size_t at = 0; at < outputs_.size(); ++at) {
        const OutputTensor& output = graph_.outputs[at];
        std::memcpy(output.place(outputs, batch.count), outputs_[at].host,
                    output.bytes() * static_cast<std::size_t>(batch.count));
    }
}

void TensorRtSession::set_batch(int count) {
    if (count == batch_) {
        return;
    }
    batch_ = 0;
    if (!context_->setInputShape(kInputName, dims_of(count, graph_.input_sides))) {
        throw graph_.log.refused(EFFDET_RUN_FAILED,
                                 "take a batch of " + std::to_string(count));
    }
    for (const OutputTensor& each : graph_.outputs) {
        if (!same(context_->getTensorShape(each.name), dims_of(count, each.sides))) {
            throw Failure(EFFDET_BAD_MODEL,
                          "The engine's output '" + std::string(each.name) +
                              "' has another shape than its spec says.",
                          "Build the engine again from its ONNX file.");
        }
    }
    batch_ = count;
}

void TensorRtSession::queue_inputs(const Batch& batch, void* stream) {
    const std::size_t bytes = batch.image_bytes * static_cast<std::size_t>(batch.count);
    if (batch.pixels != nullptr) {
        std::memcpy(input_.host, batch.pixels, bytes);
        graph_.cuda.copy_in(input_.device, input_.host, bytes, stream);
        return;
    }
    CudaAddress target = input_.device;
    for (const void* frame : batch.frames) {
        graph_.cuda.copy_within(target, reinterpret_cast<CudaAddress>(frame), batch.image_bytes,
                                stream);
        target += batch.image_bytes;
    }
}

void TensorRtSession::queue_work(int count, void* stream) {
    if (!context_->enqueueV3(native(stream))) {
        throw graph_.log.refused(EFFDET_RUN_FAILED, "run the engine");
    }
    for (std::size_t at = 0; at < outputs_.size(); ++at) {
        graph_.cuda.copy_out(outputs_[at].host, outputs_[at].device,
                             graph_.outputs[at].bytes() * static_cast<std::size_t>(count), stream);
    }
}

// Queues the first run, records the second and plays the recording from then on. The first run
// cannot be recorded, because TensorRT allocates memory in it.
void TensorRtSession::queue_recorded(int count, void* stream) {
    if (runs_ == 0) {
        runs_ = 1;
        queue_work(count, stream);
        return;
    }
    if (recording_ == nullptr) {
        graph_.cuda.begin_recording(stream_);
        bool queued = true;
        try {
            queue_work(count, stream_);
        } catch (const Failure&) {
            queued = false;
        }
        // The recording must be ended even if the work could not be queued.
        recording_ = graph_.cuda.end_recording(stream_);
        if (recording_ == nullptr || !queued) {
            // Not every engine can be recorded: sizes after NonMaxSuppression are known only when
            // it has run.
            is_recordable_ = false;
            graph_.log.forget();
            queue_work(count, stream);
            return;
        }
    }
    graph_.cuda.launch(recording_, stream);
}

}  // namespace effdet
