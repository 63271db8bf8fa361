// Fakes of the libcuda functions that libeffdet calls. Device memory is host memory. Work that is
// queued on a stream is done at once, or recorded while a recording is on.
#include <cstdlib>
#include <cstring>

#include "recorder.hpp"

Recorder& recorder() {
    static Recorder instance;
    return instance;
}

using Address = unsigned long long;

namespace {

constexpr int kFailure = 700;

int answer(const char* name, int change = 0) {
    if (!recorder().note(name)) {
        return std::strcmp(name, "cuMemAlloc") == 0 ? 2 : kFailure;
    }
    recorder().count(change);
    return 0;
}

struct Graph {
    std::vector<std::function<void()>> work;
};

void* at(Address address) { return reinterpret_cast<void*>(address); }

}  // namespace

extern "C" {

const char* fake_calls() {
    static thread_local std::string copy;
    const std::lock_guard lock(recorder().mutex);
    copy = recorder().calls;
    return copy.c_str();
}

int fake_live() { return recorder().live; }

void fake_reset(const char* failing) {
    const std::lock_guard lock(recorder().mutex);
    recorder().calls.clear();
    recorder().failing.clear();
    if (*failing != '\0') {
        recorder().failing.insert(failing);
    }
}

int cuInit(unsigned) { return answer("cuInit"); }
int cuDeviceGetCount(int* count) {
    *count = 1;
    return answer("cuDeviceGetCount");
}
int cuDeviceGet(int* device, int index) {
    *device = index;
    return answer("cuDeviceGet");
}
int cuDeviceGetName(char* name, int size, int) {
    std::strncpy(name, "Fake GPU", static_cast<std::size_t>(size));
    return answer("cuDeviceGetName");
}
int cuDeviceGetAttribute(int* value, int attribute, int) {
    *value = attribute == 75 ? 8 : 6;
    return answer("cuDeviceGetAttribute");
}
int cuDevicePrimaryCtxRetain(void** context, int) {
    *context = &recorder();
    return answer("cuDevicePrimaryCtxRetain", 1);
}
int cuDevicePrimaryCtxRelease_v2(int) { return answer("cuDevicePrimaryCtxRelease", -1); }
int cuCtxPushCurrent_v2(void*) { return answer("cuCtxPushCurrent", 1); }
int cuCtxPopCurrent_v2(void**) { return answer("cuCtxPopCurrent", -1); }
int cuMemAlloc_v2(Address* address, std::size_t bytes) {
    const int code = answer("cuMemAlloc", 1);
    *address = code == 0 ? reinterpret_cast<Address>(std::malloc(bytes)) : 0;
    return code;
}
int cuMemFree_v2(Address address) {
    std::free(at(address));
    return answer("cuMemFree", -1);
}
int cuMemHostAlloc(void** memory, std::size_t bytes, unsigned) {
    const int code = answer("cuMemHostAlloc", 1);
    *memory = code == 0 ? std::malloc(bytes) : nullptr;
    return code;
}
int cuMemFreeHost(void* memory) {
    std::free(memory);
    return answer("cuMemFreeHost", -1);
}
int cuStreamCreate(void** stream, unsigned flags) {
    static int streams = 0;
    *stream = &streams;
    return flags == 1 ? answer("cuStreamCreate", 1) : kFailure;
}
int cuStreamDestroy_v2(void*) { return answer("cuStreamDestroy", -1); }
int cuStreamSynchronize(void*) { return answer("cuStreamSynchronize"); }
int cuMemcpyHtoDAsync_v2(Address target, const void* source, std::size_t bytes, void*) {
    recorder().queue([=] { std::memcpy(at(target), source, bytes); });
    return answer("cuMemcpyHtoDAsync");
}
int cuMemcpyDtoDAsync_v2(Address target, Address source, std::size_t bytes, void*) {
    recorder().queue([=] { std::memcpy(at(target), at(source), bytes); });
    return answer("cuMemcpyDtoDAsync");
}
int cuMemcpyDtoHAsync_v2(void* target, Address source, std::size_t bytes, void*) {
    recorder().queue([=] { std::memcpy(target, at(source), bytes); });
    return answer("cuMemcpyDtoHAsync");
}
int cuStreamBeginCapture_v2(void*, int mode) {
    recorder().is_recording = true;
    return mode == 1 ? answer("cuStreamBeginCapture") : kFailure;
}
int cuStreamEndCapture(void*, void** graph) {
    recorder().is_recording = false;
    const int code = answer("cuStreamEndCapture");
    *graph = code == 0 ? new Graph{std::move(recorder().recording)} : nullptr;
    recorder().recording.clear();
    return code;
}
int cuGraphInstantiateWithFlags(void** ready, void* graph, unsigned long long) {
    const int code = answer("cuGraphInstantiate", 1);
    *ready = code == 0 ? new Graph(*static_cast<Graph*>(graph)) : nullptr;
    return code;
}
int cuGraphLaunch(void* ready, void*) {
    for (const auto& each : static_cast<Graph*>(ready)->work) {
        each();
    }
    return answer("cuGraphLaunch");
}
int cuGraphDestroy(void* graph) {
    delete static_cast<Graph*>(graph);
    return answer("cuGraphDestroy");
}
int cuGraphExecDestroy(void* ready) {
    delete static_cast<Graph*>(ready);
    return answer("cuGraphExecDestroy", -1);
}
int cuGetErrorString(int, const char** text) {
    *text = "the fake was told to fail";
    return 0;
}

}  // extern "C"
