// parse LIBRARY FUNCTION WIDTH HEIGHT THRESHOLDS {NAME TYPE DIMS FILE}...
//
// Gives a parser the outputs in the files, as nvinfer would for one frame, and prints its objects:
// class score left top width height. THRESHOLDS has one number per class, separated by commas.

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "nvdsinfer_custom_impl.h"

namespace {

template <typename Value>
std::vector<Value> listed(const std::string& text) {
    std::vector<Value> values;
    std::stringstream stream(text);
    for (std::string each; std::getline(stream, each, ',');) {
        values.push_back(static_cast<Value>(std::stod(each)));
    }
    return values;
}

}  // namespace

int main(int argc, char** argv) {
    void* library = dlopen(argv[1], RTLD_NOW);
    void* function = library == nullptr ? nullptr : dlsym(library, argv[2]);
    if (function == nullptr) {
        std::fprintf(stderr, "%s\n", dlerror());
        return 2;
    }
    const NvDsInferNetworkInfo network{static_cast<unsigned>(std::atoi(argv[3])),
                                       static_cast<unsigned>(std::atoi(argv[4])), 3};
    NvDsInferParseDetectionParams parameters{};
    parameters.perClassPreclusterThreshold = listed<float>(argv[5]);
    parameters.numClassesConfigured =
        static_cast<unsigned>(parameters.perClassPreclusterThreshold.size());

    std::vector<std::vector<char>> buffers;
    std::vector<NvDsInferLayerInfo> layers;
    for (int argument = 6; argument + 3 < argc; argument += 4) {
        NvDsInferLayerInfo layer{};
        layer.layerName = argv[argument];
        layer.dataType = std::string(argv[argument + 1]) == "int32" ? INT32 : FLOAT;
        layer.inferDims.numElements = 1;
        for (unsigned side : listed<unsigned>(argv[argument + 2])) {
            layer.inferDims.d[layer.inferDims.numDims++] = side;
            layer.inferDims.numElements *= side;
        }
        std::ifstream file(argv[argument + 3], std::ios::binary);
        buffers.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
        layers.push_back(layer);
    }
    for (std::size_t index = 0; index < layers.size(); ++index) {
        layers[index].buffer = buffers[index].data();
    }
    std::vector<NvDsInferObjectDetectionInfo> objects;
    const auto parse = reinterpret_cast<NvDsInferParseCustomFunc>(function);
    if (!parse(layers, network, parameters, objects)) {
        return 1;
    }
    for (const auto& each : objects) {
        std::printf("%u %.9g %.9g %.9g %.9g %.9g\n", each.classId,
                    static_cast<double>(each.detectionConfidence), static_cast<double>(each.left),
                    static_cast<double>(each.top), static_cast<double>(each.width),
                    static_cast<double>(each.height));
    }
    return 0;
}
