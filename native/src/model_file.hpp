// Opening a model file: its bytes, its kind, and the spec that belongs to it.
#pragma once

#include <memory>
#include <string>

#include "files.hpp"
#include "onnx_file.hpp"
#include "spec.hpp"

namespace effdet {

struct ModelFile {
    std::string path;
    bool is_engine = false;  // a TensorRT plan; otherwise ONNX
    OnnxFile onnx;
    Spec spec;
    std::shared_ptr<const MappedFile> bytes;
};

// Reads and checks a model file before any runtime sees it. The file's kind is known from its
// content, the spec is read from its metadata or its sidecar (FILE.json), and the hashes of an
// engine and of external data are checked. With `trust` an engine is taken although its sidecar has
// no hash.
// Throws Failure(EFFDET_BAD_MODEL).
ModelFile open_model_file(const std::string& path, bool trust);

}  // namespace effdet
