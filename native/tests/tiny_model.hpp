// Writes model files for tests byte by byte: the smallest ONNX file that carries a spec.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

namespace tiny {

inline std::string varint(std::uint64_t value) {
    std::string bytes;
    do {
        const auto low = static_cast<unsigned char>(value & 0x7F);
        value >>= 7;
        bytes += static_cast<char>(value != 0 ? low | 0x80 : low);
    } while (value != 0);
    return bytes;
}

inline std::string number(unsigned field, std::uint64_t value) {
    return varint(std::uint64_t{field} << 3) + varint(value);
}

inline std::string bytes(unsigned field, const std::string& content) {
    return varint(std::uint64_t{field} << 3 | 2) + varint(content.size()) + content;
}

struct Spec {
    std::string input = R"("height": 128, "width": 128)";
    std::string output = R"("max_detections": 20)";
    std::string batch = R"("minimum": 1, "optimum": 1, "maximum": 1)";
    std::string more;

    std::string json() const {
        return R"({"version": 1, "variant": "tiny", "input": {)" + input +
               R"(}, "anchors": {"min_level": 3, "max_level": 7, "num_scales": 3, )"
               R"("aspect_ratios": [[1, 1], [1.4, 0.7], [0.7, 1.4]], "scale": 4}, )"
               R"("classes": [{"name": "square", "category_id": 10}, )"
               R"({"name": "circle", "category_id": 11}, {"name": "ring", "category_id": 12}], )"
               R"("output": {)" +
               output + R"(}, "batch": {)" + batch + "}" + more + "}";
    }
};

inline std::string onnx(const std::string& spec) {
    const std::string node = bytes(4, "Identity");
    const std::string graph = bytes(1, node) + bytes(2, "tiny");
    const std::string opset = bytes(1, "") + number(2, 18);
    const std::string entry = bytes(1, "effdet.spec") + bytes(2, spec);
    return number(1, 10) + bytes(7, graph) + bytes(8, opset) + bytes(14, entry);
}

// A temporary folder; the destructor removes it with everything in it.
class Folder {
public:
    Folder() {
        char name[] = "/tmp/effdet-test-XXXXXX";
        path_ = ::mkdtemp(name);
    }
    ~Folder() { std::filesystem::remove_all(path_); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;

    std::string path(const std::string& name) const { return path_ + "/" + name; }

    std::string write(const std::string& name, const std::string& content) const {
        std::ofstream(path(name), std::ios::binary) << content;
        return path(name);
    }

private:
    std::string path_;
};

}  // namespace tiny
