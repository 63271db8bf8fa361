// The parts of CUDA that an engine needs, taken from NVIDIA's driver: the CUDA toolkit is needed
// neither to build nor to run. A stream of the runtime interface (cudaStream_t) is a stream of the
// driver as well.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace effdet {

struct CudaDriver;  // the functions of libcuda

using CudaAddress = unsigned long long;

// One device. Make calls only while the calling thread holds a Current of this device.
class Cuda {
public:
    // Throws Failure(EFFDET_MISSING) if there is no driver or no device with this index.
    explicit Cuda(int index);
    ~Cuda();
    Cuda(const Cuda&) = delete;
    Cuda& operator=(const Cuda&) = delete;

    // Makes the device current in this thread for as long as it lives.
    class Current {
    public:
        explicit Current(const Cuda& cuda);
        ~Current();
        Current(const Current&) = delete;
        Current& operator=(const Current&) = delete;

    private:
        const Cuda& cuda_;
    };

    const std::string& name() const { return name_; }
    const std::string& compute_capability() const { return capability_; }

    CudaAddress allocate(std::size_t bytes) const;
    void free(CudaAddress address) const noexcept;
    // Page-locked host memory, from which copies are asynchronous.
    void* allocate_pinned(std::size_t bytes) const;
    void free_pinned(void* memory) const noexcept;

    // Creates a stream: CUDA's default stream cannot be recorded.
    void* create_stream() const;
    void destroy_stream(void* stream) const noexcept;
    void copy_in(CudaAddress target, const void* source, std::size_t bytes, void* stream) const;
    void copy_within(CudaAddress target, CudaAddress source, std::size_t bytes,
                     void* stream) const;
    void copy_out(void* target, CudaAddress source, std::size_t bytes, void* stream) const;
    void synchronize(void* stream) const;

    // Work that is queued on the stream between begin_recording and end_recording is recorded, to
    // be played back with one call of launch.
    void begin_recording(void* stream) const;
    // Returns the graph, or null if the queued work cannot be recorded.
    void* end_recording(void* stream) const noexcept;
    void launch(void* graph, void* stream) const;
    void destroy_graph(void* graph) const noexcept;

private:
    void check(int code, const char* doing) const;

    std::unique_ptr<CudaDriver> driver_;
    void* context_ = nullptr;
    std::string name_;
    std::string capability_;
};

}  // namespace effdet
