// Reading fields of an untrusted JSON document, with their types and bounds checked.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "failure.hpp"

namespace effdet {

using Json = nlohmann::json;

// Parses text from an untrusted source: refuses deep nesting and numbers that are not finite.
Json parse_json(const std::string& text, const std::string& what);

// An object of the document, with its path for messages ("spec.input").
class Fields {
public:
    Fields(const Json& value, std::string path);

    bool has(const char* name) const;  // false if the field is null
    Fields object(const char* name) const;
    const Json& list(const char* name, std::size_t least, std::size_t most) const;
    std::int64_t integer(const char* name, std::int64_t least, std::int64_t most) const;
    double number(const char* name, double least, double most) const;
    std::string text(const char* name, std::size_t most = 4096) const;
    bool boolean(const char* name) const;
    std::string path(const char* name) const { return path_ + "." + name; }

    // A field with a default may be absent, but if it is there its type must fit.
    std::int64_t integer_or(const char* name, std::int64_t fallback, std::int64_t least,
                            std::int64_t most) const {
        return has(name) ? integer(name, least, most) : fallback;
    }
    double number_or(const char* name, double fallback, double least, double most) const {
        return has(name) ? number(name, least, most) : fallback;
    }
    std::string text_or(const char* name, const char* fallback) const {
        return has(name) ? text(name) : fallback;
    }

private:
    const Json& at(const char* name) const;

    const Json& value_;
    std::string path_;
};

// The same checks for a value in a list.
double number_in(const Json& value, const std::string& path, double least, double most);
std::int64_t integer_in(const Json& value, const std::string& path, std::int64_t least,
                        std::int64_t most);

[[noreturn]] void refuse_field(const std::string& path, const std::string& wanted);

}  // namespace effdet
