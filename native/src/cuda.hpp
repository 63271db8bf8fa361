// The parts of CUDA that an engine needs, from the driver itself: the CUDA toolkit is needed neither
// to build nor to run. A stream of the runtime interface (cudaStream_t) is one of the driver's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace effdet {

struct CudaDriver;  // the functions of libcuda

using CudaAddress = unsigned long long;

// One device. Every call but current() is made while a Current of it lives in the calling thread.
class Cuda {
public:
    // Throws Failure(EFFDET_MISSING) where there is no driver or no such device.
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

    // The default stream cannot be recorded.
    void* create_stream() const;
    void destroy_stream(void* stream) const noexcept;
    void copy_in(CudaAddress target, const void* source, std::size_t bytes, void* stream) const;
    void copy_within(CudaAddress target, CudaAddress source, std::size_t bytes,
                     void* stream) const;
    void copy_out(void* target, CudaAddress source, std::size_t bytes, void* stream) const;
    void synchronize(void* stream) const;

    // Records what is queued on the stream between the two, to be played back with one call.
    void begin_recording(void* stream) const;
    // Null where what was queued cannot be recorded.
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
