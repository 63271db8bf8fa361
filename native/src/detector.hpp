// A loaded model: pictures in, rows out. It stands between the C functions and the runtime.
#pragma once

#include <effdet.h>

#include <memory>
#include <string>
#include <vector>

#include "anchors.hpp"
#include "engine.hpp"
#include "letterbox.hpp"

namespace effdet {

// It is not called Detector: effdet.hpp has a class of that name, so a program that uses effdet.hpp
// and links libeffdet.a would have two of them.
class LoadedModel {
public:
    LoadedModel(const std::string& path, std::string backend, const EngineOptions& options,
                bool trust);

    // May be called by several threads at once. A threshold of 0 means the model's own threshold.
    // `rows` has room for `depth` rows per picture, and `counts` for one number per picture.
    void detect(const effdet_image* images, std::size_t count, float threshold, void* stream,
                effdet_row* rows, std::size_t depth, std::size_t* counts) const;

    const Spec& spec() const { return spec_; }
    const std::string& backend() const { return backend_; }
    const std::string& device() const { return engine_->device; }
    const std::string& description() const { return description_; }

private:
    // One run of the model, with its working memory.
    struct Run {
        std::vector<Placement> placements;
        std::vector<std::uint8_t> pixels;
        Batch batch;
        Outputs outputs;
    };

    float checked_threshold(float asked) const;
    void prepare(const effdet_image* images, std::size_t first, std::size_t count, Run& run) const;
    void prepare_device(const effdet_image& image, std::size_t number, Run& run) const;
    void prepare_host(const effdet_image& image, std::size_t number, std::uint8_t* target,
                      Run& run) const;
    std::vector<Detection> detections(const Outputs& outputs, std::size_t image) const;

    std::string backend_;
    Spec spec_;
    std::unique_ptr<Engine> engine_;
    std::vector<Anchor> anchors_;  // for raw heads; empty if the graph has NMS
    std::string description_;
};

}  // namespace effdet
