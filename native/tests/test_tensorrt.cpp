// The TensorRT runtime with a fake of TensorRT that records calls: their order, what happens if a
// call fails, and that nothing stays allocated. The first argument is the fake library.
#include <dlfcn.h>
#include <effdet.hpp>

#include <cstdlib>
#include <thread>

#include "check.hpp"
#include "sha256.hpp"
#include "tiny_model.hpp"

namespace {

struct Fake {
    void* library;
    const char* (*calls)();
    int (*live)();
    void (*reset)(const char*);

    explicit Fake(const char* path) : library(::dlopen(path, RTLD_NOW)) {
        calls = reinterpret_cast<const char* (*)()>(::dlsym(library, "fake_calls"));
        live = reinterpret_cast<int (*)()>(::dlsym(library, "fake_live"));
        reset = reinterpret_cast<void (*)(const char*)>(::dlsym(library, "fake_reset"));
        ::setenv("EFFDET_CUDA_LIBRARY", path, 1);
        ::setenv("EFFDET_TENSORRT_LIBRARY", path, 1);
    }

    std::size_t count(const std::string& name) const {
        const std::string all = std::string(" ") + calls();
        std::size_t found = 0;
        for (std::size_t at = all.find(" " + name + " "); at != std::string::npos;
             at = all.find(" " + name + " ", at + 1)) {
            ++found;
        }
        return found;
    }
};

std::string write_engine(const tiny::Folder& folder, const std::string& batch,
                         const std::string& built = R"("version": "10.13.3.9")") {
    const std::string plan = "ptrt" + std::string(64, '\x01');
    tiny::Spec spec;
    spec.output = R"("max_detections": 4)";
    spec.batch = batch;
    spec.more = R"(, "engine": {"backend": "tensorrt", )" + built + "}";
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(plan.data());
    folder.write("model.engine.json", R"({"sha256": ")" + effdet::sha256(bytes, plan.size()) +
                                          R"(", "spec": )" + spec.json() + "}");
    return folder.write("model.engine", plan);
}

constexpr const char* kOne = R"("minimum": 1, "optimum": 1, "maximum": 1)";
constexpr const char* kRange = R"("minimum": 1, "optimum": 2, "maximum": 4)";

std::vector<std::uint8_t> flat(int level) {
    return std::vector<std::uint8_t>(128 * 128 * 3, static_cast<std::uint8_t>(level));
}

void a_fixed_engine_is_recorded_at_its_second_run(const Fake& fake, const tiny::Folder& folder) {
    fake.reset("");
    {
        const effdet::Detector detector(write_engine(folder, kOne));
        EQUAL(std::string(detector.info().device), "cuda:0");
        HOLDS(std::string(fake.calls()).find("cuInit") <
              std::string(fake.calls()).find("createInferRuntime"));
        for (const int level : {51, 102, 153, 204}) {
            const auto pixels = flat(level);
            const auto rows = detector.detect(effdet::Image(pixels.data(), 128, 128));
            EQUAL(rows.size(), std::size_t{4});
            EQUAL(rows.at(0).score, static_cast<float>(level) / 255);
            EQUAL(rows.at(0).y2, 40.0F);
        }
        // The first run is queued, the second is recorded, and the recording is played back.
        EQUAL(fake.count("enqueueV3"), std::size_t{2});
        EQUAL(fake.count("cuGraphLaunch"), std::size_t{3});
        EQUAL(fake.count("cuStreamSynchronize"), std::size_t{4});
        EQUAL(fake.count("setInputShape"), std::size_t{1});
    }
    EQUAL(fake.live(), 0);
}

void a_ranged_engine_is_queued_each_time(const Fake& fake, const tiny::Folder& folder) {
    fake.reset("");
    {
        const effdet::Detector detector(write_engine(folder, kRange));
        const auto pixels = flat(51);
        const effdet::Image image(pixels.data(), 128, 128);
        for (const std::size_t count : {1U, 3U, 3U, 6U}) {
            const auto found = detector.detect(std::vector<effdet::Image>(count, image));
            EQUAL(found.size(), count);
            EQUAL(found.back().at(3).score, 0.2F);
        }
        EQUAL(fake.count("cuGraphLaunch"), std::size_t{0});
        EQUAL(fake.count("enqueueV3"), std::size_t{5});
        // The batches are 1, 3, 3, 4 and 2 (6 pictures are 4 and 2); the second 3 changes nothing.
        EQUAL(fake.count("setInputShape"), std::size_t{4});
    }
    EQUAL(fake.live(), 0);
}

void an_engine_that_cannot_be_recorded_still_runs(const Fake& fake, const tiny::Folder& folder) {
    for (const char* failing : {"recording", "cuStreamEndCapture", "cuGraphInstantiate"}) {
        fake.reset(failing);
        {
            const effdet::Detector detector(write_engine(folder, kOne));
            const auto pixels = flat(102);
            for (int run = 0; run < 4; ++run) {
                const auto rows = detector.detect(effdet::Image(pixels.data(), 128, 128));
                EQUAL(rows.at(0).score, 0.4F);
            }
            EQUAL(fake.count("cuStreamBeginCapture"), std::size_t{1});
        }
        EQUAL(fake.live(), 0);
    }
}

void device_memory_is_copied_on_the_callers_stream(const Fake& fake, const tiny::Folder& folder) {
    fake.reset("");
    const effdet::Detector detector(write_engine(folder, kOne));
    const auto pixels = flat(153);
    int stream = 0;
    const effdet::Image image(pixels.data(), 128, 128, EFFDET_RGB, 0, EFFDET_CUDA);
    EQUAL(detector.detect(image, 0, &stream).at(0).score, 0.6F);
    EQUAL(fake.count("cuMemcpyHtoDAsync"), std::size_t{0});
    EQUAL(fake.count("cuMemcpyDtoDAsync"), std::size_t{1});
    for (const effdet::Image& wrong :
         {effdet::Image(pixels.data(), 64, 128, EFFDET_RGB, 0, EFFDET_CUDA),
          effdet::Image(pixels.data(), 128, 128, EFFDET_BGR, 0, EFFDET_CUDA),
          effdet::Image(pixels.data(), 128, 128, EFFDET_RGB, 512, EFFDET_CUDA)}) {
        try {
            detector.detect(wrong);
            HOLDS(false);
        } catch (const effdet::Error& error) {
            EQUAL(error.status(), EFFDET_INVALID_ARGUMENT);
        }
    }
}

void every_failure_is_reported_and_leaves_nothing(const Fake& fake, const tiny::Folder& folder) {
    for (const char* failing :
         {"cuInit", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute",
          "cuDevicePrimaryCtxRetain", "getInferLibVersion", "createInferRuntime",
          "deserializeCudaEngine", "getTensorDataType", "createExecutionContext", "cuStreamCreate",
          "cuMemHostAlloc", "cuMemAlloc", "setTensorAddress", "setInputShape", "getTensorShape",
          "cuMemcpyHtoDAsync", "enqueueV3", "cuMemcpyDtoHAsync", "cuStreamSynchronize"}) {
        fake.reset(failing);
        try {
            const effdet::Detector detector(write_engine(folder, kRange));
            const auto pixels = flat(51);
            detector.detect(effdet::Image(pixels.data(), 128, 128));
            check::contains("there was no failure", failing, __LINE__);
        } catch (const effdet::Error& error) {
            HOLDS(error.status() != EFFDET_OK && error.status() != EFFDET_INTERNAL);
            HOLDS(std::string(error.what()).find('\n') == std::string::npos);
        }
        if (fake.live() != 0) {
            check::contains("objects that stay allocated: " + std::to_string(fake.live()), failing,
                            __LINE__);
            return;
        }
    }
}

void engines_for_another_place_are_refused(const Fake& fake, const tiny::Folder& folder) {
    fake.reset("");
    const auto refused = [&folder](const std::string& built, const char* part) {
        try {
            const effdet::Detector detector(write_engine(folder, kOne, built));
            HOLDS(false);
        } catch (const effdet::Error& error) {
            EQUAL(error.status(), EFFDET_BAD_MODEL);
            CONTAINS(error.what(), part);
        }
    };
    refused(R"("version": "10.12.0")", "built for TensorRT 10.12.0");
    refused(R"("version": "9.12.0", "traits": ["version-compatible"])", "9.12.0");
    refused(R"("version": "10.13.3", "gpu": "H100", "compute_capability": "9.0")", "Fake GPU (8.6)");
    refused(R"("version": "10.13.3", "gpu": "H100", "compute_capability": "9.0", )"
            R"("traits": ["hardware-compatible=same-compute-capability"])",
            "H100");
    const effdet::Detector later(
        write_engine(folder, kOne, R"("version": "10.3.0", "traits": ["version-compatible"])"));
    const effdet::Detector ampere(
        write_engine(folder, kOne, R"("version": "10.13.3", "gpu": "A10", )"
                                   R"("traits": ["hardware-compatible=ampere+"])"));
}

void every_thread_gets_its_own_session(const Fake& fake, const tiny::Folder& folder) {
    fake.reset("");
    {
        const effdet::Detector detector(write_engine(folder, kRange));
        std::vector<std::thread> threads;
        for (int level = 51; level <= 204; level += 51) {
            threads.emplace_back([&detector, level] {
                const auto pixels = flat(level);
                for (int run = 0; run < 25; ++run) {
                    const auto rows = detector.detect(effdet::Image(pixels.data(), 128, 128));
                    HOLDS(rows.at(0).score == static_cast<float>(level) / 255);
                }
            });
        }
        for (std::thread& each : threads) {
            each.join();
        }
    }
    EQUAL(fake.live(), 0);
}

}  // namespace

int main(int, char** arguments) {
    const Fake fake(arguments[1]);
    const tiny::Folder folder;
    a_fixed_engine_is_recorded_at_its_second_run(fake, folder);
    a_ranged_engine_is_queued_each_time(fake, folder);
    an_engine_that_cannot_be_recorded_still_runs(fake, folder);
    device_memory_is_copied_on_the_callers_stream(fake, folder);
    every_failure_is_reported_and_leaves_nothing(fake, folder);
    engines_for_another_place_are_refused(fake, folder);
    every_thread_gets_its_own_session(fake, folder);
    return check::result("tensorrt");
}
