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
    std::uint64_t opset = 0;  // the version of ONNX's own domain
    std::map<std::string, std::string> metadata;
    std::set<std::string> external;  // names of the data files that it refers to
};

// `path` is for messages. Throws Failure(EFFDET_BAD_MODEL) if the fields do not end exactly at the
// file's last byte: then the file is truncated or is not an ONNX file.
OnnxFile read_onnx(const std::uint8_t* data, std::size_t size, const std::string& path);

}  // namespace effdet
