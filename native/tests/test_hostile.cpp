// Damaged and hostile files: every one is refused with a message, and none crashes the process.
#include <effdet.h>
#include <sys/stat.h>

#include <random>

#include "check.hpp"
#include "sha256.hpp"
#include "tiny_model.hpp"

namespace {

effdet_status open_status(const std::string& path) {
    effdet_detector* detector = nullptr;
    const effdet_status status = effdet_open(path.c_str(), nullptr, &detector);
    HOLDS((status == EFFDET_OK) == (detector != nullptr));
    HOLDS((status == EFFDET_OK) == std::string(effdet_last_error()).empty());
    effdet_close(detector);
    return status;
}

void refused(const std::string& path, const char* part) {
    EQUAL(open_status(path), EFFDET_BAD_MODEL);
    CONTAINS(effdet_last_error(), part);
}

void files_of_other_kinds(const tiny::Folder& folder) {
    refused(folder.path("absent.onnx"), "does not exist");
    refused(folder.path(""), "is a directory");
    refused(folder.write("empty.onnx", ""), "is empty");
    refused(folder.write("one.onnx", "x"), "not a readable ONNX model");
    refused(folder.write("archive.onnx", std::string("PK\x03\x04") + "zip"), "archive");
    refused(folder.write("pickle.onnx", "\x80\x02}q"), "checkpoint");
    refused(folder.write("tensors.onnx", std::string("\x10\0\0\0\0\0\0\0{\"a\"", 12)),
            "checkpoint");
    ::mkfifo(folder.path("pipe.onnx").c_str(), 0600);
    refused(folder.path("pipe.onnx"), "not an ordinary file");
    refused(folder.write("bare.onnx", tiny::number(1, 10) + tiny::bytes(7, "")),
            "carries no effdet-deploy spec");
}

void every_truncation_and_many_mutations(const tiny::Folder& folder) {
    const std::string whole = tiny::onnx(tiny::Spec().json());
    for (std::size_t size = 1; size < whole.size(); ++size) {
        HOLDS(open_status(folder.write("cut.onnx", whole.substr(0, size))) != EFFDET_INTERNAL);
    }
    std::mt19937 random(1);
    for (int round = 0; round < 4000; ++round) {
        std::string changed = whole;
        for (int change = 0; change < 1 + round % 3; ++change) {
            changed[random() % changed.size()] = static_cast<char>(random());
        }
        const effdet_status status = open_status(folder.write("changed.onnx", changed));
        HOLDS(status == EFFDET_OK || status == EFFDET_BAD_MODEL);
    }
    for (int round = 0; round < 500; ++round) {
        std::string noise(1 + random() % 4096, '\0');
        for (char& each : noise) {
            each = static_cast<char>(random());
        }
        refused(folder.write("noise.onnx", noise), "'");
    }
}

void specs_out_of_bounds(const tiny::Folder& folder) {
    const auto refused_spec = [&folder](const std::string& spec, const char* part) {
        refused(folder.write("spec.onnx", tiny::onnx(spec)), part);
    };
    const std::string whole = tiny::Spec().json();
    const auto with = [&whole](const std::string& old, const std::string& replacement) {
        std::string changed = whole;
        changed.replace(changed.find(old), old.size(), replacement);
        return changed;
    };
    refused_spec("", "no effdet-deploy spec");
    refused_spec("[1, 2]", "must be an object");
    refused_spec("{", "not JSON");
    refused_spec(std::string(200000, '['), "nested too deeply");
    refused_spec(std::string(5001, '1'), "JSON");
    refused_spec(with("\"version\": 1", "\"version\": 99"), "newer version");
    refused_spec(with("\"height\": 128", "\"height\": 0"), "spec.input.height");
    refused_spec(with("\"height\": 128", "\"height\": 1e999"), "JSON");
    refused_spec(with("\"height\": 128", "\"height\": 128.5"), "spec.input.height");
    refused_spec(with("\"height\": 128", "\"height\": 18446744073709551615"), "spec.input.height");
    refused_spec(with("\"max_level\": 7", "\"max_level\": 1000000000"), "max_level");
    refused_spec(with("\"max_detections\": 20", "\"max_detections\": 1000000000"),
                 "max_detections");
    refused_spec(with("\"max_detections\": 20", "\"score_threshold\": -1"), "score_threshold");
    refused_spec(with("\"max_detections\": 20", "\"nms\": \"magic\""), "one of static");
    refused_spec(with("\"category_id\": 10", "\"category_id\": true"), "category_id");
    refused_spec(with("\"square\"", "\"" + std::string(2000000, 'x') + "\""), "name");
    refused_spec(with("\"square\"", "\"a\\u0000b\""), "name");
    refused_spec(with("\"scale\": 4", "\"scale\": -4"), "scale");
    refused_spec(with("\"maximum\": 1", "\"maximum\": 1000000000"), "batch.maximum");
    refused_spec(with("\"width\": 128", "\"width\": 128, \"fill\": [1000000, 0, 0]"), "fill");
    refused_spec(with("\"width\": 128", "\"width\": 128, \"std\": [0, 0, 0]"), "std");
    refused_spec(with("\"width\": 128", "\"width\": 128, \"source_size\": [0, 5]"), "source_size");
}

std::string sidecar(const std::string& engine, const std::string& more) {
    tiny::Spec spec;
    spec.more = R"(, "engine": {"backend": "tensorrt", "version": "10.13.3")" + more + "}";
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(engine.data());
    return R"({"sha256": ")" + effdet::sha256(bytes, engine.size()) + R"(", "spec": )" +
           spec.json() + "}";
}

void engines_are_checked_before_they_are_loaded(const tiny::Folder& folder) {
    const std::string engine = "ptrt" + std::string(600, '\x07');
    const std::string path = folder.write("model.engine", engine);
    refused(path, "has no sidecar");
    folder.write("model.engine.json", sidecar(engine, R"(, "traits": ["strip-plan"])"));
    refused(path, "holds no weights");
    folder.write("model.engine.json", sidecar(engine + "x", ""));
    refused(path, "its SHA-256 differs");
    folder.write("model.engine.json", R"({"spec": )" + tiny::Spec().json() + "}");
    refused(path, "no SHA-256");
    folder.write("model.engine.json", "{\"sha256\": 5}");
    refused(path, "sidecar.sha256");
    folder.write("model.engine.json", sidecar(engine, ""));
    HOLDS(open_status(path) != EFFDET_OK);
}

std::string external(const std::string& name, const std::string& more) {
    tiny::Spec spec;
    spec.more = more;
    const std::string data = tiny::bytes(1, "location") + tiny::bytes(2, name);
    const std::string graph = tiny::bytes(5, tiny::bytes(13, data));
    const std::string entry = tiny::bytes(1, "effdet.spec") + tiny::bytes(2, spec.json());
    return tiny::number(1, 10) + tiny::bytes(7, graph) + tiny::bytes(14, entry);
}

void external_data_lies_beside_the_model(const tiny::Folder& folder) {
    for (const char* name : {"../data", "/etc/hostname", "", "a/../../data"}) {
        refused(folder.write("external.onnx", external(name, "")), "own directory");
    }
    refused(folder.write("external.onnx", external("data", "")), "is missing");
    folder.write("data", "weights");
    EQUAL(open_status(folder.write("external.onnx", external("data", ""))), EFFDET_OK);
    const auto recorded = [](const std::string& size, const std::string& hash) {
        return R"(, "external_files": [{"name": "data", "size": )" + size + R"(, "sha256": ")" +
               hash + "\"}]";
    };
    refused(folder.write("external.onnx", external("data", recorded("9", "00"))), "7 bytes");
    refused(folder.write("external.onnx", external("data", recorded("7", "00"))),
            "has changed since the export");
    std::filesystem::create_symlink("data", folder.path("link"));
    refused(folder.write("external.onnx", external("link", "")), "own directory");
}

void hashes_are_those_of_the_standard() {
    const auto hash = [](const std::string& text) {
        return effdet::sha256(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
    };
    EQUAL(hash(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EQUAL(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EQUAL(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    EQUAL(hash(std::string(1000000, 'a')),
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

}  // namespace

int main() {
    const tiny::Folder folder;
    files_of_other_kinds(folder);
    specs_out_of_bounds(folder);
    engines_are_checked_before_they_are_loaded(folder);
    external_data_lies_beside_the_model(folder);
    hashes_are_those_of_the_standard();
    every_truncation_and_many_mutations(folder);
    return check::result("hostile");
}
