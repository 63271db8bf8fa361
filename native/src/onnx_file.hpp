// The metadata of an ONNX file, read from the protobuf wire format without building a graph.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>

namespace effdet {

struct OnnxFile {
    std::uint64_t ir_version = 0;
    std::uint64_t opset = 0;  // of ONNX's own domain
    std::map<std::string, std::string> metadata;
    std::set<std::string> external;  // names of the data files that it refers to
};

// `path` is for messages. A file whose walk does not end exactly at its last byte is truncated or no
// ONNX file: Failure(EFFDET_BAD_MODEL).
OnnxFile read_onnx(const std::uint8_t* data, std::size_t size, const std::string& path);

}  // namespace effdet
