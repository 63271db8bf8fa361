#include "model_file.hpp"

#include <cstring>

#include "failure.hpp"
#include "sha256.hpp"

namespace effdet {
namespace {

constexpr const char* kMetadataKey = "effdet.spec";
constexpr const char* kExportAgain = "Get the file again or export it again.";
// A spec with 90 classes has 10 kB, so a larger document was not written by effdet-deploy.
constexpr std::size_t kLargestDocument = 16U << 20U;

[[noreturn]] void refuse(const std::string& cause, const std::string& remedy) {
    throw Failure(EFFDET_BAD_MODEL, cause, remedy);
}

bool begins_with(const MappedFile& file, const char* magic) {
    return file.size() >= 4 && std::memcmp(file.data(), magic, 4) == 0;
}

void refuse_other_kinds(const MappedFile& file, const std::string& path) {
    if (begins_with(file, "PK\x03\x04")) {
        refuse("'" + path + "' is an archive (TorchScript or a checkpoint).",
               "Export it to ONNX: effdet-export --weights FILE model.onnx.");
    }
    if (file.data()[0] == 0x80 || (file.size() > 8 && file.data()[8] == '{')) {
        refuse("'" + path + "' looks like a checkpoint (weights only), not like an exported model.",
               "Export it first: effdet-export --weights FILE model.onnx.");
    }
}

bool is_engine(const MappedFile& file) {
    return begins_with(file, "ptrt") || begins_with(file, "ftrt") || begins_with(file, "vtrt");
}

std::string sidecar_of(const std::string& path) { return path + ".json"; }

Sidecar read_sidecar(const std::string& path) {
    const std::string name = sidecar_of(path);
    if (!is_file(name)) {
        return {};
    }
    const MappedFile file(name);
    if (file.size() > kLargestDocument) {
        refuse("The sidecar '" + name + "' has " + std::to_string(file.size()) +
                   " bytes, but at most " + std::to_string(kLargestDocument) + " are read.",
               "Export the model again, or delete the sidecar.");
    }
    const auto* text = reinterpret_cast<const char*>(file.data());
    return parse_sidecar({text, file.size()}, "The sidecar '" + name + "'");
}

void read_engine_spec(ModelFile& model, bool trust) {
    const std::string& path = model.path;
    const Sidecar sidecar = read_sidecar(path);
    if (sidecar.spec.empty()) {
        refuse("The engine '" + path + "' has no sidecar '" + base_name(sidecar_of(path)) +
                   "', so its inputs and outputs cannot be interpreted.",
               "Put the sidecar beside it under that name.");
    }
    if (sidecar.sha256.empty() && !trust) {
        refuse("The sidecar of the engine '" + path +
                   "' holds no SHA-256, and an engine is native code.",
               "Build the engine again, or set trust if you know where it comes from.");
    }
    if (!sidecar.sha256.empty() &&
        sidecar.sha256 != sha256(model.bytes->data(), model.bytes->size())) {
        refuse("The engine '" + path +
                   "' is not the one that its sidecar is about: its SHA-256 differs.",
               "It was edited, replaced or renamed: copy the engine and its sidecar again, together.");
    }
    model.spec = parse_spec(sidecar.spec, "The spec in '" + sidecar_of(path) + "'");
    if (model.spec.engine.has("strip-plan")) {
        refuse("'" + path + "' was built with --strip-plan and holds no weights.",
               "Refit it with TensorRT's refitter first, or build it without --strip-plan.");
    }
}

void read_onnx_spec(ModelFile& model) {
    model.onnx = read_onnx(model.bytes->data(), model.bytes->size(), model.path);
    const auto found = model.onnx.metadata.find(kMetadataKey);
    const std::string text =
        found != model.onnx.metadata.end() ? found->second : read_sidecar(model.path).spec;
    if (text.empty()) {
        refuse("'" + model.path + "' carries no effdet-deploy spec, neither inside nor in '" +
                   base_name(sidecar_of(model.path)) + "'.",
               "Export the model with effdet-export, or put its sidecar beside it.");
    }
    if (text.size() > kLargestDocument) {
        refuse("The spec of '" + model.path + "' has " + std::to_string(text.size()) +
                   " bytes, but at most " + std::to_string(kLargestDocument) + " are read.",
               kExportAgain);
    }
    model.spec = parse_spec(text, "The spec of '" + model.path + "'");
}

void check_external_file(const ModelFile& model, const std::string& name) {
    const std::string path = resolve_inside(directory_of(model.path), name);
    const std::string which = "The external file '" + name + "' of '" + model.path + "' ";
    const char* remedy = "Copy the model and its data file again, together.";
    if (!is_file(path)) {
        refuse(which + "is missing.", remedy);
    }
    for (const ExternalFile& recorded : model.spec.external_files) {
        if (recorded.name != name) {
            continue;
        }
        const MappedFile file(path);
        if (file.size() != recorded.size) {
            refuse(which + "has " + std::to_string(file.size()) + " bytes where " +
                       std::to_string(recorded.size) + " are expected.",
                   remedy);
        }
        if (sha256(file.data(), file.size()) != recorded.sha256) {
            refuse(which + "has changed since the export.", remedy);
        }
    }
}

void check_external_files(const ModelFile& model) {
    for (const std::string& name : model.onnx.external) {
        check_external_file(model, name);
    }
    for (const ExternalFile& recorded : model.spec.external_files) {
        if (model.onnx.external.count(recorded.name) == 0) {
            check_external_file(model, recorded.name);
        }
    }
}

}  // namespace

ModelFile open_model_file(const std::string& path, bool trust) {
    ModelFile model;
    model.path = path;
    model.bytes = std::make_shared<const MappedFile>(path);
    refuse_other_kinds(*model.bytes, path);
    model.is_engine = is_engine(*model.bytes);
    if (model.is_engine) {
        read_engine_spec(model, trust);
    } else {
        read_onnx_spec(model);
        check_external_files(model);
    }
    return model;
}

}  // namespace effdet
