// The functions of effdet.h. They check their arguments, and no exception leaves them.
#include <effdet.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <string>
#include <thread>

#include "detector.hpp"
#include "failure.hpp"
#include "message.hpp"

struct effdet_detector {
    effdet::LoadedModel detector;
};

namespace effdet {
namespace {

// An array and not a std::string: reporting that memory ran out must not need memory, and a thread
// that ends must not run a destructor of a library that may have been unloaded.
constexpr std::size_t kLongestMessage = 2048;
thread_local char last_message[kLongestMessage] = "";

void remember(const char* message) noexcept {
    copy_printable(message, last_message, kLongestMessage);
}

template <typename Action>
effdet_status guarded(Action action) noexcept {
    last_message[0] = '\0';
    try {
        action();
        return EFFDET_OK;
    } catch (const Failure& failure) {
        remember(failure.what());
        return failure.status;
    } catch (const std::bad_alloc&) {
        remember("Memory ran out. Use a smaller batch or smaller pictures, or free some memory.");
        return EFFDET_NO_MEMORY;
    } catch (const std::exception& error) {
        remember(error.what());
        return EFFDET_INTERNAL;
    } catch (...) {
        remember("An unknown exception was thrown. Please report it.");
        return EFFDET_INTERNAL;
    }
}

void require(bool condition, const char* cause, const char* remedy) {
    if (!condition) {
        throw Failure(EFFDET_INVALID_ARGUMENT, cause, remedy);
    }
}

// Copies the options of a caller, who may use another release of effdet.h: fields that are unknown
// here must be zero.
template <typename Options>
Options read_options(const Options* given) {
    Options options{};
    if (given == nullptr) {
        return options;
    }
    require(given->struct_size >= sizeof(Options), "The options have a struct_size that is too small.",
            "Set struct_size to sizeof the structure.");
    const auto* bytes = reinterpret_cast<const unsigned char*>(given);
    // A caller that forgot to set struct_size may have garbage in it.
    require(given->struct_size <= 4096, "The options have a struct_size that cannot be right.",
            "Set struct_size to sizeof the structure.");
    for (std::size_t at = sizeof(Options); at < given->struct_size; ++at) {
        require(bytes[at] == 0, "The options hold a field that this libeffdet does not know.",
                "Update libeffdet, or leave the field at zero.");
    }
    std::memcpy(&options, given, sizeof(Options));
    return options;
}

std::string text_or_empty(const char* text) { return text != nullptr ? text : ""; }

int checked_threads(std::int32_t threads) {
    constexpr int kAlways = 64;
    const int most = std::max(kAlways, 4 * static_cast<int>(std::thread::hardware_concurrency()));
    require(threads >= 0 && threads <= most, "The number of threads is out of range.",
            "Pass 0 to let the runtime choose, or at most four times the number of CPUs.");
    return threads;
}

void fill_info(const LoadedModel& detector, effdet_info& info) {
    const Spec& spec = detector.spec();
    info.input_height = spec.input.height;
    info.input_width = spec.input.width;
    info.source_height = spec.input.source_height;
    info.source_width = spec.input.source_width;
    info.class_count = static_cast<std::int32_t>(spec.classes.size());
    info.max_detections = spec.output.max_detections;
    info.batch_minimum = spec.batch.minimum;
    info.batch_optimum = spec.batch.optimum;
    info.batch_maximum = spec.batch.maximum;
    info.score_threshold = static_cast<float>(spec.output.score_threshold);
    info.input_kind = name_of(spec.input.kind);
    info.channels = spec.input.bgr ? "bgr" : "rgb";
    info.resize = name_of(spec.input.resize);
    info.nms = name_of(spec.output.nms);
    info.backend = detector.backend().c_str();
    info.device = detector.device().c_str();
}

const ClassSpec* class_at(const effdet_detector* detector, std::int32_t index) {
    if (detector == nullptr || index < 0) {
        return nullptr;
    }
    const auto& classes = detector->detector.spec().classes;
    const auto place = static_cast<std::size_t>(index);
    return place < classes.size() ? &classes[place] : nullptr;
}

}  // namespace
}  // namespace effdet

using namespace effdet;

extern "C" {

int32_t effdet_abi_version(void) { return EFFDET_ABI_VERSION; }

const char* effdet_version(void) { return EFFDET_VERSION; }

const char* effdet_last_error(void) { return last_message; }

const char* effdet_status_name(effdet_status status) {
    switch (status) {
        case EFFDET_OK:
            return "ok";
        case EFFDET_INVALID_ARGUMENT:
            return "invalid argument";
        case EFFDET_BAD_MODEL:
            return "bad model";
        case EFFDET_MISSING:
            return "missing";
        case EFFDET_NO_MEMORY:
            return "no memory";
        case EFFDET_RUN_FAILED:
            return "run failed";
        case EFFDET_INTERNAL:
            return "internal error";
    }
    return "unknown status";
}

effdet_status effdet_open(const char* path, const effdet_open_options* options,
                          effdet_detector** detector) {
    return guarded([&] {
        require(detector != nullptr, "The argument for the detector is NULL.",
                "Pass the address of a pointer.");
        *detector = nullptr;
        require(path != nullptr && *path != '\0', "No model file was named.", "Pass its path.");
        const effdet_open_options given = read_options(options);
        const EngineOptions engine{text_or_empty(given.library), text_or_empty(given.device),
                                   checked_threads(given.threads)};
        const std::string backend = text_or_empty(given.backend);
        *detector = new effdet_detector{
            LoadedModel(path, backend == "auto" ? "" : backend, engine, given.trust != 0)};
    });
}

void effdet_close(effdet_detector* detector) {
    // Does not clear the last message: callers often close the detector before they read it.
    delete detector;
}

effdet_status effdet_get_info(const effdet_detector* detector, effdet_info* info) {
    return guarded([&] {
        require(detector != nullptr, "The detector is NULL.", "Open a model first.");
        require(info != nullptr && info->struct_size >= sizeof(effdet_info),
                "The info is NULL or its struct_size is too small.",
                "Set struct_size to sizeof(effdet_info).");
        fill_info(detector->detector, *info);
    });
}

const char* effdet_describe(const effdet_detector* detector) {
    return detector != nullptr ? detector->detector.description().c_str() : nullptr;
}

const char* effdet_class_name(const effdet_detector* detector, int32_t class_index) {
    const ClassSpec* found = class_at(detector, class_index);
    return found != nullptr ? found->name.c_str() : nullptr;
}

int32_t effdet_class_category(const effdet_detector* detector, int32_t class_index) {
    const ClassSpec* found = class_at(detector, class_index);
    return found != nullptr ? found->category : -1;
}

effdet_status effdet_detect(effdet_detector* detector, const effdet_image* images,
                            size_t image_count, const effdet_detect_options* options,
                            effdet_row* rows, size_t rows_per_image, size_t* counts) {
    return guarded([&] {
        require(detector != nullptr, "The detector is NULL.", "Open a model first.");
        const effdet_detect_options given = read_options(options);
        if (image_count == 0) {
            return;
        }
        require(images != nullptr, "The pictures are NULL.", "Pass an array of effdet_image.");
        require(counts != nullptr, "The counts are NULL.", "Pass room for one count per picture.");
        require(rows != nullptr && rows_per_image > 0, "There is no room for rows.",
                "Pass room for info.max_detections rows per picture.");
        require(given.reserved == 0, "The field 'reserved' is not zero.", "Leave it at zero.");
        detector->detector.detect(images, image_count, given.score_threshold, given.cuda_stream,
                                  rows, rows_per_image, counts);
    });
}

}  // extern "C"
