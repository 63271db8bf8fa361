// The C interface: every mistake of a caller is answered with a status and a message.
#include <effdet.h>

#include <cmath>
#include <limits>
#include <vector>

#include "check.hpp"
#include "tiny_model.hpp"

namespace {

struct Call {
    std::vector<std::uint8_t> pixels = std::vector<std::uint8_t>(64 * 48 * 3, 90);
    effdet_image image{pixels.data(), 64, 48, 0, EFFDET_RGB, EFFDET_HOST};
    effdet_detect_options options{sizeof(effdet_detect_options), 0, 0, nullptr};
    std::vector<effdet_row> rows = std::vector<effdet_row>(20);
    std::size_t count = 99;

    effdet_status run(effdet_detector* detector) {
        return effdet_detect(detector, &image, 1, &options, rows.data(), rows.size(), &count);
    }
};

effdet_detector* opened(const std::string& path) {
    effdet_detector* detector = nullptr;
    EQUAL(effdet_open(path.c_str(), nullptr, &detector), EFFDET_OK);
    return detector;
}

template <typename Change>
void refused(effdet_detector* detector, const char* part, Change change) {
    Call call;
    change(call);
    EQUAL(call.run(detector), EFFDET_INVALID_ARGUMENT);
    CONTAINS(effdet_last_error(), part);
}

void invalid_pictures_are_refused(effdet_detector* detector) {
    refused(detector, "no data", [](Call& call) { call.image.data = nullptr; });
    for (const int side : {0, -1, std::numeric_limits<int>::min(), std::numeric_limits<int>::max()}) {
        refused(detector, "pixels per side", [side](Call& call) { call.image.width = side; });
        refused(detector, "pixels per side", [side](Call& call) { call.image.height = side; });
    }
    for (const int stride : {1, 191, -1, -191}) {
        refused(detector, "stride", [stride](Call& call) { call.image.stride = stride; });
    }
    for (const int format : {-1, 7, 1000}) {
        refused(detector, "pixel format", [format](Call& call) { call.image.format = format; });
    }
    refused(detector, "device memory", [](Call& call) { call.image.memory = EFFDET_CUDA; });
}

void invalid_options_are_refused(effdet_detector* detector) {
    for (const std::size_t size : {std::size_t{0}, std::size_t{8}, std::size_t{1} << 40}) {
        refused(detector, "struct_size", [size](Call& call) { call.options.struct_size = size; });
    }
    const float nan = std::numeric_limits<float>::quiet_NaN();
    for (const float threshold : {-0.1F, 1.1F, nan, std::numeric_limits<float>::infinity()}) {
        refused(detector, "threshold",
                [threshold](Call& call) { call.options.score_threshold = threshold; });
    }
    refused(detector, "is not possible", [](Call& call) { call.options.score_threshold = 0.001F; });
    refused(detector, "reserved", [](Call& call) { call.options.reserved = 1; });
}

void a_longer_structure_is_taken_if_the_rest_is_zero(effdet_detector* detector) {
    struct Longer {
        effdet_detect_options known{};
        std::uint64_t later = 0;
    } longer;
    longer.known.struct_size = sizeof longer;
    Call call;
    const auto run = [&] {
        return effdet_detect(detector, &call.image, 1, &longer.known, call.rows.data(),
                             call.rows.size(), &call.count);
    };
    EQUAL(run(), EFFDET_OK);
    longer.later = 1;
    EQUAL(run(), EFFDET_INVALID_ARGUMENT);
    CONTAINS(effdet_last_error(), "does not know");
}

void null_is_refused_in_every_place(effdet_detector* detector, const std::string& path) {
    Call call;
    std::size_t* count = &call.count;
    effdet_row* rows = call.rows.data();
    EQUAL(effdet_detect(nullptr, &call.image, 1, nullptr, rows, 20, count),
          EFFDET_INVALID_ARGUMENT);
    EQUAL(effdet_detect(detector, nullptr, 1, nullptr, rows, 20, count), EFFDET_INVALID_ARGUMENT);
    EQUAL(effdet_detect(detector, &call.image, 1, nullptr, nullptr, 20, count),
          EFFDET_INVALID_ARGUMENT);
    EQUAL(effdet_detect(detector, &call.image, 1, nullptr, rows, 0, count),
          EFFDET_INVALID_ARGUMENT);
    EQUAL(effdet_detect(detector, &call.image, 1, nullptr, rows, 20, nullptr),
          EFFDET_INVALID_ARGUMENT);
    EQUAL(effdet_detect(detector, nullptr, 0, nullptr, nullptr, 0, nullptr), EFFDET_OK);
    EQUAL(effdet_open(path.c_str(), nullptr, nullptr), EFFDET_INVALID_ARGUMENT);
    effdet_detector* opened = detector;
    EQUAL(effdet_open(nullptr, nullptr, &opened), EFFDET_INVALID_ARGUMENT);
    HOLDS(opened == nullptr);
    EQUAL(effdet_open("", nullptr, &opened), EFFDET_INVALID_ARGUMENT);
    effdet_info info{};
    EQUAL(effdet_get_info(nullptr, &info), EFFDET_INVALID_ARGUMENT);
    EQUAL(effdet_get_info(detector, nullptr), EFFDET_INVALID_ARGUMENT);
    EQUAL(effdet_get_info(detector, &info), EFFDET_INVALID_ARGUMENT);
    HOLDS(effdet_describe(nullptr) == nullptr);
    HOLDS(effdet_class_name(nullptr, 0) == nullptr);
    effdet_close(nullptr);
}

void unknown_names_are_refused(const std::string& path) {
    effdet_detector* detector = nullptr;
    effdet_open_options options{};
    options.struct_size = sizeof options;
    options.backend = "caffe";
    EQUAL(effdet_open(path.c_str(), &options, &detector), EFFDET_INVALID_ARGUMENT);
    CONTAINS(effdet_last_error(), "onnxruntime, openvino, tensorrt");
    options.backend = "tensorrt";
    EQUAL(effdet_open(path.c_str(), &options, &detector), EFFDET_BAD_MODEL);
    options.backend = nullptr;
    for (const int threads : {-1, 100000}) {
        options.threads = threads;
        EQUAL(effdet_open(path.c_str(), &options, &detector), EFFDET_INVALID_ARGUMENT);
    }
}

void the_model_is_described(effdet_detector* detector) {
    effdet_info info{};
    info.struct_size = sizeof info;
    EQUAL(effdet_get_info(detector, &info), EFFDET_OK);
    EQUAL(info.input_height, 128);
    EQUAL(info.class_count, 3);
    EQUAL(info.max_detections, 20);
    EQUAL(std::string(info.input_kind), "uint8");
    EQUAL(std::string(info.resize), "letterbox");
    EQUAL(std::string(info.backend), "fake");
    EQUAL(std::string(effdet_class_name(detector, 1)), "circle");
    EQUAL(effdet_class_category(detector, 2), 12);
    HOLDS(effdet_class_name(detector, 3) == nullptr);
    HOLDS(effdet_class_name(detector, -1) == nullptr);
    EQUAL(effdet_class_category(detector, 3), -1);
    CONTAINS(effdet_describe(detector), "\"variant\":\"tiny\"");
    EQUAL(effdet_abi_version(), EFFDET_ABI_VERSION);
    EQUAL(std::string(effdet_status_name(EFFDET_BAD_MODEL)), "bad model");
    EQUAL(std::string(effdet_status_name(static_cast<effdet_status>(77))), "unknown status");
}

void rows_are_best_first_and_cut_to_the_callers_room(effdet_detector* detector) {
    Call call;
    EQUAL(call.run(detector), EFFDET_OK);
    EQUAL(std::string(effdet_last_error()), "");
    HOLDS(call.count > 3 && call.count <= 20);
    for (std::size_t row = 1; row < call.count; ++row) {
        HOLDS(call.rows[row - 1].score >= call.rows[row].score);
    }
    Call cut;
    cut.rows.resize(2);
    EQUAL(cut.run(detector), EFFDET_OK);
    EQUAL(cut.count, std::size_t{2});
    EQUAL(cut.rows[1].x1, call.rows[1].x1);
}

}  // namespace

int main() {
    const tiny::Folder folder;
    const std::string path = folder.write("tiny.onnx", tiny::onnx(tiny::Spec().json()));
    effdet_detector* detector = opened(path);
    if (detector == nullptr) {
        std::cerr << effdet_last_error() << '\n';
        return 1;
    }
    invalid_pictures_are_refused(detector);
    invalid_options_are_refused(detector);
    a_longer_structure_is_taken_if_the_rest_is_zero(detector);
    null_is_refused_in_every_place(detector, path);
    unknown_names_are_refused(path);
    the_model_is_described(detector);
    rows_are_best_first_and_cut_to_the_callers_room(detector);
    effdet_close(detector);
    return check::result("abi");
}
