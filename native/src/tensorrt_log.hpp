// TensorRT's logger: it keeps the last errors for messages and prints nothing.
#pragma once

#include <NvInfer.h>

#include <mutex>
#include <string>

#include "engine.hpp"
#include "failure.hpp"

namespace effdet {

class TensorRtLog final : public nvinfer1::ILogger {
public:
    void log(Severity severity, const char* message) noexcept override {
        if (severity != Severity::kERROR && severity != Severity::kINTERNAL_ERROR) {
            return;
        }
        // TensorRT calls from its own threads, and an exception must not pass through it.
        try {
            const std::lock_guard lock(mutex_);
            errors_ += (errors_.empty() ? "" : "; ") + essence(message);
            errors_ = errors_.size() > 800 ? errors_.substr(errors_.size() - 800) : errors_;
        } catch (...) {
            // If memory runs out here, TensorRT's words are lost; the failure is still reported.
        }
    }

    // A Failure for what TensorRT could not do, with the errors that it logged; forgets them.
    Failure refused(effdet_status status, const std::string& doing) {
        const std::lock_guard lock(mutex_);
        const std::string said = errors_.empty() ? "it gave no reason" : errors_;
        errors_.clear();
        const bool no_memory = said.find("memory") != std::string::npos &&
                               (said.find("out of") != std::string::npos ||
                                said.find("OutOfMemory") != std::string::npos ||
                                said.find("insufficient") != std::string::npos);
        return {no_memory ? EFFDET_NO_MEMORY : status,
                "TensorRT could not " + doing + ": " + said + ".",
                no_memory ? "Use a smaller batch, or free memory on the GPU."
                          : "Build the engine again from its ONNX file, on this machine."};
    }

    void forget() {
        const std::lock_guard lock(mutex_);
        errors_.clear();
    }

private:
    std::mutex mutex_;
    std::string errors_;
};

}  // namespace effdet
