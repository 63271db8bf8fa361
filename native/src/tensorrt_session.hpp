// One execution context of a TensorRT engine with its stream and buffers, for one run at a time.
#pragma once

#include <NvInfer.h>

#include <memory>
#include <vector>

#include "cuda.hpp"
#include "engine.hpp"
#include "tensorrt_log.hpp"

namespace effdet {

// The things that all sessions of an engine share.
struct TensorRtGraph {
    nvinfer1::ICudaEngine& engine;
    TensorRtLog& log;
    const Cuda& cuda;
    std::vector<std::int64_t> input_sides;
    std::size_t image_bytes;
    std::vector<OutputTensor> outputs;
    int largest_batch;
    bool is_fixed;  // there is only one batch size, so the work may be recorded
};

// Create, use and destroy a session only while its device is current.
class TensorRtSession {
public:
    explicit TensorRtSession(const TensorRtGraph& graph);
    ~TensorRtSession();
    TensorRtSession(const TensorRtSession&) = delete;
    TensorRtSession& operator=(const TensorRtSession&) = delete;

    // Throws Failure; after that the session must not be used again.
    void run(const Batch& batch, Outputs& outputs);

private:
    // A tensor's memory on the device, and the page-locked host memory that mirrors it.
    struct Buffer {
        CudaAddress device = 0;
        void* host = nullptr;
    };

    void allocate(Buffer& buffer, std::size_t bytes);
    void release() noexcept;
    void set_batch(int count);
    void queue_inputs(const Batch& batch, void* stream);
    void queue_work(int count, void* stream);
    void queue_recorded(int count, void* stream);

    const TensorRtGraph& graph_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    void* stream_ = nullptr;
    Buffer input_;
    std::vector<Buffer> outputs_;
    int batch_ = 0;
    int runs_ = 0;
    void* recording_ = nullptr;
    bool is_recordable_;
};

}  // namespace effdet
