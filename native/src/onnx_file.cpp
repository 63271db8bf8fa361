#include "onnx_file.hpp"

#include <stdexcept>
#include <utility>

#include "failure.hpp"

namespace effdet {
namespace {

// Wire types: https://protobuf.dev/programming-guides/encoding
constexpr unsigned kVarint = 0;
constexpr unsigned kFixed64 = 1;
constexpr unsigned kBytes = 2;
constexpr unsigned kFixed32 = 5;
constexpr int kLongestVarint = 10;
// protobuf's own limit for nested messages.
constexpr int kDeepest = 100;

class Damaged : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Span {
    const std::uint8_t* begin;
    const std::uint8_t* end;

    std::string text() const { return {begin, end}; }
};

std::uint64_t read_varint(Span& span) {
    std::uint64_t value = 0;
    for (int index = 0; index < kLongestVarint; ++index) {
        if (span.begin == span.end) {
            throw Damaged("it ends in the middle of a number");
        }
        const std::uint8_t byte = *span.begin++;
        value |= std::uint64_t{byte & 0x7FU} << (7 * index);
        if (byte < 0x80) {
            return value;
        }
    }
    throw Damaged("it holds a number of more than ten bytes");
}

struct Field {
    std::uint64_t number;
    bool is_message;      // whether it holds bytes: a message, a text or a list
    std::uint64_t value;  // if it holds a number
    Span span;            // if it holds bytes
};

Field read_field(Span& span) {
    const std::uint64_t tag = read_varint(span);
    Field field{tag >> 3, false, 0, {nullptr, nullptr}};
    if (field.number == 0) {
        throw Damaged("it holds a field with number 0");
    }
    std::uint64_t length = 0;
    switch (tag & 7) {
        case kVarint:
            field.value = read_varint(span);
            return field;
        case kFixed64:
            length = 8;
            break;
        case kFixed32:
            length = 4;
            break;
        case kBytes:
            field.is_message = true;
            length = read_varint(span);
            break;
        default:
            throw Damaged("it holds a field of an unknown wire type");
    }
    if (length > static_cast<std::uint64_t>(span.end - span.begin)) {
        throw Damaged("it ends too early");
    }
    field.span = {span.begin, span.begin + length};
    span.begin += length;
    return field;
}

template <typename Visit>
void each_message(Span span, Visit visit) {
    while (span.begin != span.end) {
        const Field field = read_field(span);
        if (field.is_message) {
            visit(field.number, field.span);
        }
    }
}

// Reads a StringStringEntryProto; metadata and external data are lists of them.
std::pair<std::string, std::string> read_entry(Span span) {
    std::pair<std::string, std::string> entry;
    each_message(span, [&entry](std::uint64_t number, Span value) {
        if (number == 1) {
            entry.first = value.text();
        } else if (number == 2) {
            entry.second = value.text();
        }
    });
    return entry;
}

// Visits the messages of an ONNX file and fills `file`. Field numbers are those of onnx.proto.
class Walk {
public:
    explicit Walk(OnnxFile& file) : file_(file) {}

    void model(Span span) {
        bool has_graph = false;
        while (span.begin != span.end) {
            const Field field = read_field(span);
            if (field.number == 1 && !field.is_message) {
                file_.ir_version = field.value;
            } else if (field.number == 7 && field.is_message) {
                has_graph = true;
                graph(field.span, 0);
            } else if (field.number == 8 && field.is_message) {
                opset(field.span);
            } else if (field.number == 14 && field.is_message) {
                auto entry = read_entry(field.span);
                file_.metadata[entry.first] = std::move(entry.second);
            } else if (field.number == 25 && field.is_message) {
                function(field.span);
            }
        }
        if (!has_graph || file_.ir_version == 0) {
            throw Damaged("it has no graph");
        }
    }

private:
    void graph(Span span, int depth) {
        if (depth > kDeepest) {
            throw Damaged("its graphs are nested too deeply");
        }
        each_message(span, [this, depth](std::uint64_t number, Span value) {
            if (number == 1) {
                node(value, depth);
            } else if (number == 5) {
                tensor(value);
            } else if (number == 15) {
                sparse(value);
            }
        });
    }

    void function(Span span) {
        each_message(span, [this](std::uint64_t number, Span value) {
            if (number == 7) {
                node(value, 0);
            }
        });
    }

    void node(Span span, int depth) {
        each_message(span, [this, depth](std::uint64_t number, Span value) {
            if (number == 5) {
                attribute(value, depth);
            }
        });
    }

    void attribute(Span span, int depth) {
        each_message(span, [this, depth](std::uint64_t number, Span value) {
            if (number == 5 || number == 10) {
                tensor(value);
            } else if (number == 6 || number == 11) {
                graph(value, depth + 1);
            } else if (number == 22 || number == 23) {
                sparse(value);
            }
        });
    }

    // The values and the indices of a sparse tensor are tensors themselves.
    void sparse(Span span) {
        each_message(span, [this](std::uint64_t number, Span value) {
            if (number == 1 || number == 2) {
                tensor(value);
            }
        });
    }

    void tensor(Span span) {
        each_message(span, [this](std::uint64_t number, Span value) {
            if (number == 13) {
                const auto entry = read_entry(value);
                if (entry.first == "location") {
                    file_.external.insert(entry.second);
                }
            }
        });
    }

    void opset(Span span) {
        std::string domain;
        std::uint64_t version = 0;
        while (span.begin != span.end) {
            const Field field = read_field(span);
            if (field.number == 1 && field.is_message) {
                domain = field.span.text();
            } else if (field.number == 2 && !field.is_message) {
                version = field.value;
            }
        }
        if (domain.empty() || domain == "ai.onnx") {
            file_.opset = version;
        }
    }

    OnnxFile& file_;
};

}  // namespace

OnnxFile read_onnx(const std::uint8_t* data, std::size_t size, const std::string& path) {
    OnnxFile file;
    try {
        Walk(file).model({data, data + size});
    } catch (const Damaged& error) {
        throw Failure(
            EFFDET_BAD_MODEL,
            "'" + path + "' is not a readable ONNX model: " + error.what() + ".",
            "The file is truncated, damaged or something else; get it again or export it again.");
    }
    return file;
}

}  // namespace effdet
