// The arguments of effdet-detect and effdet-bench.
#pragma once

#include <effdet.hpp>

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

// The options that both programs take, for their help.
constexpr const char* kSharedOptions =
    "  --backend NAME        onnxruntime, openvino or tensorrt (default: tensorrt for an engine,\n"
    "                        otherwise onnxruntime if libeffdet was built with it)\n"
    "  --library FILE        the runtime's shared library (default: the file that\n"
    "                        EFFDET_ONNXRUNTIME_LIBRARY, EFFDET_OPENVINO_LIBRARY or\n"
    "                        EFFDET_TENSORRT_LIBRARY names, otherwise the system's)\n"
    "  --device NAME         cpu, cuda or cuda:1 (default: a GPU if the runtime can use one)\n"
    "  --threads N           number of CPU threads (default 0: the runtime chooses)\n"
    "  --trust               load an engine whose sidecar has no hash\n"
    "  --help                print this help\n";

struct Arguments {
    effdet::Options options;
    float threshold = 0;
    int runs = 50;
    bool json = false;
    bool help = false;
    std::vector<std::string> files;  // the model, then pictures
};

inline int whole_number(const std::string& text, const std::string& option) {
    char* end = nullptr;
    const long value = std::strtol(text.c_str(), &end, 10);
    if (text.empty() || *end != '\0' || value < 0 || value > 1'000'000) {
        throw std::invalid_argument("The option " + option +
                                    " takes a whole number from 0 to 1000000, not '" + text + "'.");
    }
    return static_cast<int>(value);
}

inline float decimal(const std::string& text, const std::string& option) {
    char* end = nullptr;
    const float value = std::strtof(text.c_str(), &end);
    if (text.empty() || *end != '\0') {
        throw std::invalid_argument("The option " + option + " takes a number, not '" + text + "'.");
    }
    return value;
}

// Throws std::invalid_argument, whose message is one sentence.
inline Arguments read_arguments(int count, char** values) {
    Arguments read;
    for (int at = 1; at < count; ++at) {
        const std::string option = values[at];
        if (option.size() < 2 || option[0] != '-') {
            read.files.push_back(option);
            continue;
        }
        if (option == "--json") {
            read.json = true;
            continue;
        }
        if (option == "--help") {
            read.help = true;
            continue;
        }
        if (option == "--trust") {
            read.options.trust = true;
            continue;
        }
        if (at + 1 == count) {
            throw std::invalid_argument("The option " + option + " is unknown or lacks its value.");
        }
        const std::string value = values[++at];
        if (option == "--backend") {
            read.options.backend = value;
        } else if (option == "--library") {
            read.options.library = value;
        } else if (option == "--device") {
            read.options.device = value;
        } else if (option == "--threads") {
            read.options.threads = whole_number(value, option);
        } else if (option == "--score-threshold") {
            read.threshold = decimal(value, option);
        } else if (option == "--runs") {
            read.runs = whole_number(value, option);
        } else {
            throw std::invalid_argument("There is no option " + option + ".");
        }
    }
    return read;
}
