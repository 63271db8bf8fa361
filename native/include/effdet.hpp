// libeffdet for C++17: classes around the C interface, with exceptions in place of statuses. Header
// only.
//
//     effdet::Detector detector("digits.onnx");
//     for (const auto& row : detector.detect(effdet::Image(pixels, width, height, EFFDET_BGR))) {
//         std::cout << detector.class_name(row.class_index) << ' ' << row.score << '\n';
//     }
#ifndef EFFDET_HPP
#define EFFDET_HPP

#include <effdet.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace effdet {

// Thrown when a call of the C interface fails; what() is its error message.
class Error : public std::runtime_error {
public:
    explicit Error(effdet_status status)
        : std::runtime_error(effdet_last_error()), status_(status) {}
    effdet_status status() const noexcept { return status_; }

private:
    effdet_status status_;
};

inline void check(effdet_status status) {
    if (status != EFFDET_OK) {
        throw Error(status);
    }
}

// How to open a model; empty texts and zeros are the defaults of effdet_open_options.
struct Options {
    std::string backend;
    std::string library;
    std::string device;
    int threads = 0;
    bool trust = false;
};

// A view of a picture in the caller's memory: the pixels are not copied.
struct Image : effdet_image {
    Image(const void* pixels, int width, int height, effdet_pixel_format format = EFFDET_RGB,
          std::ptrdiff_t stride = 0, effdet_memory memory = EFFDET_HOST)
        : effdet_image{pixels, width, height, stride, format, memory} {}
};

using Row = effdet_row;

// A loaded model; several threads may use it at once.
class Detector {
public:
    explicit Detector(const std::string& path, const Options& options = {}) {
        effdet_open_options given{};
        given.struct_size = sizeof given;
        given.backend = or_null(options.backend);
        given.library = or_null(options.library);
        given.device = or_null(options.device);
        given.threads = options.threads;
        given.trust = options.trust ? 1 : 0;
        effdet_detector* opened = nullptr;
        check(effdet_open(path.c_str(), &given, &opened));
        handle_.reset(opened);
    }

    effdet_info info() const {
        effdet_info filled{};
        filled.struct_size = sizeof filled;
        check(effdet_get_info(handle_.get(), &filled));
        return filled;
    }

    std::string describe() const { return effdet_describe(handle_.get()); }

    // The name of a class; throws std::out_of_range if the class does not exist.
    std::string class_name(int index) const {
        const char* name = effdet_class_name(handle_.get(), index);
        if (name == nullptr) {
            throw std::out_of_range("no class " + std::to_string(index));
        }
        return name;
    }

    // The rows of each picture, best first. A threshold of 0 means the model's own threshold.
    std::vector<std::vector<Row>> detect(const std::vector<Image>& images, float threshold = 0,
                                         void* cuda_stream = nullptr) const {
        const auto depth = static_cast<std::size_t>(info().max_detections);
        const std::vector<effdet_image> views(images.begin(), images.end());
        std::vector<Row> rows(views.size() * depth);
        std::vector<std::size_t> counts(views.size());
        effdet_detect_options options{};
        options.struct_size = sizeof options;
        options.score_threshold = threshold;
        options.cuda_stream = cuda_stream;
        check(effdet_detect(handle_.get(), views.data(), views.size(), &options, rows.data(), depth,
                            counts.data()));
        std::vector<std::vector<Row>> found;
        for (std::size_t image = 0; image < views.size(); ++image) {
            const Row* first = rows.data() + image * depth;
            found.emplace_back(first, first + counts[image]);
        }
        return found;
    }

    std::vector<Row> detect(const Image& image, float threshold = 0,
                            void* cuda_stream = nullptr) const {
        return detect(std::vector<Image>{image}, threshold, cuda_stream).front();
    }

    effdet_detector* handle() const noexcept { return handle_.get(); }

private:
    static const char* or_null(const std::string& text) {
        return text.empty() ? nullptr : text.c_str();
    }

    struct Close {
        void operator()(effdet_detector* handle) const noexcept { effdet_close(handle); }
    };
    std::unique_ptr<effdet_detector, Close> handle_;
};

}  // namespace effdet

#endif
