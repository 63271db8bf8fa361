// Detections of effdet-deploy as objects of NVIDIA DeepStream's nvinfer.
//
//   parse-bbox-func-name=NvDsInferParseEffdet
//
// The graph has done the work: rows are sorted by score, have passed NMS and are clipped to the
// frame. What is left is one threshold for each class, pre-cluster-threshold in [class-attrs-N].

#include <cmath>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <vector>

#include "nvdsinfer_custom_impl.h"

#ifndef EFFDET_YXYX
#define EFFDET_YXYX 0
#endif

namespace {

constexpr int kLeft = EFFDET_YXYX ? 1 : 0;
constexpr int kTop = EFFDET_YXYX ? 0 : 1;
constexpr int kRight = EFFDET_YXYX ? 3 : 2;
constexpr int kBottom = EFFDET_YXYX ? 2 : 3;

// Returns the output with this name and type. If it is missing, prints a line and returns null.
const NvDsInferLayerInfo* find(const std::vector<NvDsInferLayerInfo>& layers, const char* name,
                               NvDsInferDataType type) {
    for (const NvDsInferLayerInfo& layer : layers) {
        if (layer.layerName == nullptr || std::strcmp(layer.layerName, name) != 0) {
            continue;
        }
        if (layer.dataType != type || layer.buffer == nullptr) {
            std::cerr << "effdet: the output '" << name << "' is of another type than the model's"
                      << std::endl;
            return nullptr;
        }
        return &layer;
    }
    std::cerr << "effdet: there is no output '" << name << "'; see output-blob-names" << std::endl;
    return nullptr;
}

}  // namespace

extern "C" bool NvDsInferParseEffdet(std::vector<NvDsInferLayerInfo> const& outputLayersInfo,
                                     NvDsInferNetworkInfo const& networkInfo,
                                     NvDsInferParseDetectionParams const& detectionParams,
                                     std::vector<NvDsInferParseObjectInfo>& objectList) {
    static_cast<void>(networkInfo);
    const NvDsInferLayerInfo* count = find(outputLayersInfo, "num_detections", INT32);
    const NvDsInferLayerInfo* boxes = find(outputLayersInfo, "detection_boxes", FLOAT);
    const NvDsInferLayerInfo* scores = find(outputLayersInfo, "detection_scores", FLOAT);
    const NvDsInferLayerInfo* classes = find(outputLayersInfo, "detection_classes", INT32);
    if (count == nullptr || boxes == nullptr || scores == nullptr || classes == nullptr) {
        return false;
    }
    const auto* corners = static_cast<const float*>(boxes->buffer);
    const auto* score = static_cast<const float*>(scores->buffer);
    const auto* label = static_cast<const std::int32_t*>(classes->buffer);
    const std::int32_t found = *static_cast<const std::int32_t*>(count->buffer);
    const unsigned int rows = scores->inferDims.numElements;
    if (found < 0 || static_cast<unsigned int>(found) > rows ||
        classes->inferDims.numElements != rows || boxes->inferDims.numElements != 4 * rows) {
        std::cerr << "effdet: the outputs are of different sizes" << std::endl;
        return false;
    }
    const std::vector<float>& thresholds = detectionParams.perClassPreclusterThreshold;
    for (std::int32_t row = 0; row < found; ++row) {
        const std::int32_t index = label[row];
        // nvinfer has num-detected-classes classes, and a threshold for every class.
        if (index < 0 || static_cast<unsigned int>(index) >= detectionParams.numClassesConfigured ||
            static_cast<std::size_t>(index) >= thresholds.size() ||
            !(score[row] >= thresholds[static_cast<std::size_t>(index)])) {
            continue;
        }
        const float* box = corners + 4 * static_cast<std::size_t>(row);
        const float width = box[kRight] - box[kLeft];
        const float height = box[kBottom] - box[kTop];
        if (!(width > 0 && height > 0) || !std::isfinite(width) || !std::isfinite(height)) {
            continue;
        }
        NvDsInferParseObjectInfo object{};
        object.classId = static_cast<unsigned int>(index);
        object.left = box[kLeft];
        object.top = box[kTop];
        object.width = width;
        object.height = height;
        object.detectionConfidence = score[row];
        objectList.push_back(object);
    }
    return true;
}

CHECK_CUSTOM_PARSE_FUNC_PROTOTYPE(NvDsInferParseEffdet);
