#include "cuda.hpp"

#include "failure.hpp"
#include "library.hpp"

namespace effdet {
namespace {

// The values of CUDA_ERROR_OUT_OF_MEMORY and of two device attributes in cuda.h.
constexpr int kOutOfMemory = 2;
constexpr int kMajor = 75;
constexpr int kMinor = 76;
constexpr unsigned kNonBlocking = 1;
// The capture mode with which other threads may allocate while this thread records.
constexpr int kThreadLocal = 1;

}  // namespace

struct CudaDriver {
    Library library{"NVIDIA's driver", "", "EFFDET_CUDA_LIBRARY", {"libcuda.so.1"}};

    template <typename... Arguments>
    using Call = int (*)(Arguments...);

    template <typename... Arguments>
    void find(Call<Arguments...>& call, const char* name) {
        call = library.get<int(Arguments...)>(name);
    }

    Call<unsigned> init;
    Call<int*> device_count;
    Call<int*, int> device_get;
    Call<char*, int, int> device_name;
    Call<int*, int, int> device_attribute;
    Call<void**, int> context_retain;
    Call<int> context_release;
    Call<void*> context_push;
    Call<void**> context_pop;
    Call<CudaAddress*, std::size_t> allocate;
    Call<CudaAddress> free;
    Call<void**, std::size_t, unsigned> allocate_host;
    Call<void*> free_host;
    Call<void**, unsigned> stream_create;
    Call<void*> stream_destroy;
    Call<void*> stream_synchronize;
    Call<CudaAddress, const void*, std::size_t, void*> copy_in;
    Call<CudaAddress, CudaAddress, std::size_t, void*> copy_within;
    Call<void*, CudaAddress, std::size_t, void*> copy_out;
    Call<void*, int> capture_begin;
    Call<void*, void**> capture_end;
    Call<void**, void*, unsigned long long> graph_instantiate;
    Call<void*, void*> graph_launch;
    Call<void*> graph_destroy;
    Call<void*> exec_destroy;
    Call<int, const char**> error_text;
    int device = 0;

    CudaDriver() {
        find(init, "cuInit");
        find(device_count, "cuDeviceGetCount");
        find(device_get, "cuDeviceGet");
        find(device_name, "cuDeviceGetName");
        find(device_attribute, "cuDeviceGetAttribute");
        find(context_retain, "cuDevicePrimaryCtxRetain");
        find(context_release, "cuDevicePrimaryCtxRelease_v2");
        find(context_push, "cuCtxPushCurrent_v2");
        find(context_pop, "cuCtxPopCurrent_v2");
        find(allocate, "cuMemAlloc_v2");
        find(free, "cuMemFree_v2");
        find(allocate_host, "cuMemHostAlloc");
        find(free_host, "cuMemFreeHost");
        find(stream_create, "cuStreamCreate");
        find(stream_destroy, "cuStreamDestroy_v2");
        find(stream_synchronize, "cuStreamSynchronize");
        find(copy_in, "cuMemcpyHtoDAsync_v2");
        find(copy_within, "cuMemcpyDtoDAsync_v2");
        find(copy_out, "cuMemcpyDtoHAsync_v2");
        find(capture_begin, "cuStreamBeginCapture_v2");
        find(capture_end, "cuStreamEndCapture");
        find(graph_instantiate, "cuGraphInstantiateWithFlags");
        find(graph_launch, "cuGraphLaunch");
        find(graph_destroy, "cuGraphDestroy");
        find(exec_destroy, "cuGraphExecDestroy");
        find(error_text, "cuGetErrorString");
    }
};

Cuda::Cuda(int index) : driver_(std::make_unique<CudaDriver>()) {
    // CUDA is started before TensorRT: without a GPU, TensorRT's factory returns invalid pointers.
    if (const int code = driver_->init(0); code != 0) {
        throw Failure(EFFDET_MISSING,
                      "CUDA does not start: error " + std::to_string(code) + ".",
                      "A TensorRT engine needs an NVIDIA GPU and its driver.");
    }
    int count = 0;
    check(driver_->device_count(&count), "count the GPUs");
    if (index >= count) {
        throw Failure(EFFDET_MISSING,
                      "The device 'cuda:" + std::to_string(index) +
                          "' was asked for, but the driver reports " + std::to_string(count) +
                          " GPUs.",
                      "Name another device, or run the ONNX file on the CPU.");
    }
    check(driver_->device_get(&driver_->device, index), "choose the GPU");
    char name[256] = "";
    check(driver_->device_name(name, sizeof name, driver_->device), "name the GPU");
    int major = 0;
    int minor = 0;
    check(driver_->device_attribute(&major, kMajor, driver_->device), "describe the GPU");
    check(driver_->device_attribute(&minor, kMinor, driver_->device), "describe the GPU");
    name_ = name;
    capability_ = std::to_string(major) + "." + std::to_string(minor);
    check(driver_->context_retain(&context_, driver_->device), "open the GPU");
}

Cuda::~Cuda() {
    if (context_ != nullptr) {
        driver_->context_release(driver_->device);
    }
}

Cuda::Current::Current(const Cuda& cuda) : cuda_(cuda) {
    cuda.check(cuda.driver_->context_push(cuda.context_), "use the GPU");
}

Cuda::Current::~Current() {
    void* popped = nullptr;
    cuda_.driver_->context_pop(&popped);
}

void Cuda::check(int code, const char* doing) const {
    if (code == 0) {
        return;
    }
    const char* said = nullptr;
    driver_->error_text(code, &said);
    const bool no_memory = code == kOutOfMemory;
    throw Failure(no_memory ? EFFDET_NO_MEMORY : EFFDET_RUN_FAILED,
                  std::string("CUDA could not ") + doing + ": " +
                      (said != nullptr ? said : "error " + std::to_string(code)) + ".",
                  no_memory ? "Use a smaller batch, or free memory on the GPU."
                            : "Run 'effdet-deploy doctor', or restart the program.");
}

CudaAddress Cuda::allocate(std::size_t bytes) const {
    CudaAddress address = 0;
    check(driver_->allocate(&address, bytes), "allocate memory on the GPU");
    return address;
}

void Cuda::free(CudaAddress address) const noexcept { driver_->free(address); }

void* Cuda::allocate_pinned(std::size_t bytes) const {
    void* memory = nullptr;
    check(driver_->allocate_host(&memory, bytes, 0), "lock host memory");
    return memory;
}

void Cuda::free_pinned(void* memory) const noexcept { driver_->free_host(memory); }

void* Cuda::create_stream() const {
    void* stream = nullptr;
    check(driver_->stream_create(&stream, kNonBlocking), "create a stream");
    return stream;
}

void Cuda::destroy_stream(void* stream) const noexcept { driver_->stream_destroy(stream); }

void Cuda::copy_in(CudaAddress target, const void* source, std::size_t bytes,
                   void* stream) const {
    check(driver_->copy_in(target, source, bytes, stream), "copy to the GPU");
}

void Cuda::copy_within(CudaAddress target, CudaAddress source, std::size_t bytes,
                       void* stream) const {
    check(driver_->copy_within(target, source, bytes, stream), "copy on the GPU");
}

void Cuda::copy_out(void* target, CudaAddress source, std::size_t bytes, void* stream) const {
    check(driver_->copy_out(target, source, bytes, stream), "copy from the GPU");
}

void Cuda::synchronize(void* stream) const {
    check(driver_->stream_synchronize(stream), "wait for the GPU");
}

void Cuda::begin_recording(void* stream) const {
    check(driver_->capture_begin(stream, kThreadLocal), "record a graph");
}

void* Cuda::end_recording(void* stream) const noexcept {
    void* graph = nullptr;
    void* ready = nullptr;
    if (driver_->capture_end(stream, &graph) == 0 && graph != nullptr) {
        if (driver_->graph_instantiate(&ready, graph, 0) != 0) {
            ready = nullptr;
        }
        driver_->graph_destroy(graph);
    }
    return ready;
}

void Cuda::launch(void* graph, void* stream) const {
    check(driver_->graph_launch(graph, stream), "launch a graph");
}

void Cuda::destroy_graph(void* graph) const noexcept { driver_->exec_destroy(graph); }

}  // namespace effdet
