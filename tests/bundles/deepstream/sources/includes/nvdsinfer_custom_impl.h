// What parsers of nvinfer see, written for tests: DeepStream's own header is not here.
// Names, types and order of fields follow its API reference (nvdsinfer.h, nvdsinfer_custom_impl.h).
#pragma once

#include <string>
#include <vector>

constexpr unsigned int kMostDimensions = 8;

struct NvDsInferDims {
    unsigned int numDims;
    unsigned int d[kMostDimensions];
    unsigned int numElements;
};

enum NvDsInferDataType { FLOAT = 0, HALF = 1, INT8 = 2, INT32 = 3 };

struct NvDsInferLayerInfo {
    NvDsInferDataType dataType;
    union {
        NvDsInferDims inferDims;
        NvDsInferDims dims;
    };
    int bindingIndex;
    const char* layerName;
    void* buffer;
    int isInput;
};

struct NvDsInferNetworkInfo {
    unsigned int width;
    unsigned int height;
    unsigned int channels;
};

struct NvDsInferObjectDetectionInfo {
    unsigned int classId;
    float left;
    float top;
    float width;
    float height;
    float detectionConfidence;
    float rotation_angle;
};
using NvDsInferParseObjectInfo = NvDsInferObjectDetectionInfo;

struct NvDsInferParseDetectionParams {
    unsigned int numClassesConfigured;
    std::vector<float> perClassPreclusterThreshold;
    std::vector<float> perClassPostclusterThreshold;
    std::vector<float>& perClassThreshold = perClassPreclusterThreshold;
};

using NvDsInferParseCustomFunc = bool (*)(std::vector<NvDsInferLayerInfo> const&,
                                          NvDsInferNetworkInfo const&,
                                          NvDsInferParseDetectionParams const&,
                                          std::vector<NvDsInferObjectDetectionInfo>&);

#define CHECK_CUSTOM_PARSE_FUNC_PROTOTYPE(function)                     \
    static void check_prototype_of_##function(NvDsInferParseCustomFunc = function) {} \
    void (*const used_check_of_##function)(NvDsInferParseCustomFunc) = check_prototype_of_##function
