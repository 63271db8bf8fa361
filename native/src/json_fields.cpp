#include "json_fields.hpp"

#include <cmath>
#include <utility>

namespace effdet {
namespace {

constexpr int kDeepest = 32;

std::string range(const std::string& kind, double least, double most) {
    const auto shown = [](double value) {
        std::string text = std::to_string(value);
        text.erase(text.find_last_not_of('0') + 1);
        return text.back() == '.' ? text.substr(0, text.size() - 1) : text;
    };
    return kind + " from " + shown(least) + " to " + shown(most);
}

}  // namespace

void refuse_field(const std::string& path, const std::string& wanted) {
    throw Failure(EFFDET_BAD_MODEL, "The field '" + path + "' must be " + wanted + ".",
                  "Export the model again with effdet-export.");
}

Json parse_json(const std::string& text, const std::string& what) {
    const auto shallow = [](int depth, Json::parse_event_t, Json&) {
        if (depth > kDeepest) {
            throw std::length_error("it is nested too deeply");
        }
        return true;
    };
    try {
        return Json::parse(text, shallow);
    } catch (const Json::exception&) {
        // The parser's own message is left out: it quotes the document, which may hold anything.
        throw Failure(EFFDET_BAD_MODEL, what + " is not JSON.",
                      "Export the model again with effdet-export.");
    } catch (const std::length_error& error) {
        throw Failure(EFFDET_BAD_MODEL, what + " cannot be read: " + error.what() + ".",
                      "Export the model again with effdet-export.");
    }
}

Fields::Fields(const Json& value, std::string path) : value_(value), path_(std::move(path)) {
    if (!value_.is_object()) {
        refuse_field(path_, "an object");
    }
}

bool Fields::has(const char* name) const {
    const auto found = value_.find(name);
    return found != value_.end() && !found->is_null();
}

const Json& Fields::at(const char* name) const {
    const auto found = value_.find(name);
    if (found == value_.end()) {
        refuse_field(path(name), "there");
    }
    return *found;
}

Fields Fields::object(const char* name) const { return {at(name), path(name)}; }

const Json& Fields::list(const char* name, std::size_t least, std::size_t most) const {
    const Json& value = at(name);
    if (!value.is_array() || value.size() < least || value.size() > most) {
        refuse_field(path(name), "a list of " + std::to_string(least) +
                                     (least == most ? "" : " to " + std::to_string(most)) +
                                     " values");
    }
    return value;
}

std::int64_t Fields::integer(const char* name, std::int64_t least, std::int64_t most) const {
    return integer_in(at(name), path(name), least, most);
}

double Fields::number(const char* name, double least, double most) const {
    return number_in(at(name), path(name), least, most);
}

bool Fields::boolean(const char* name) const {
    const Json& value = at(name);
    if (!value.is_boolean()) {
        refuse_field(path(name), "true or false");
    }
    return value.get<bool>();
}

std::string Fields::text(const char* name, std::size_t most) const {
    const Json& value = at(name);
    if (!value.is_string() || value.get_ref<const std::string&>().size() > most ||
        value.get_ref<const std::string&>().find('\0') != std::string::npos) {
        refuse_field(path(name), "a text of at most " + std::to_string(most) + " bytes");
    }
    return value.get<std::string>();
}

double number_in(const Json& value, const std::string& path, double least, double most) {
    // This refuses NaN as well, because every comparison with NaN is false.
    if (!value.is_number() || !(value.get<double>() >= least && value.get<double>() <= most)) {
        refuse_field(path, range("a number", least, most));
    }
    return value.get<double>();
}

std::int64_t integer_in(const Json& value, const std::string& path, std::int64_t least,
                        std::int64_t most) {
    // An unsigned number beyond the range of int64 would become negative.
    const bool fits = value.is_number_integer() &&
                      (!value.is_number_unsigned() ||
                       value.get<std::uint64_t>() <= static_cast<std::uint64_t>(INT64_MAX));
    if (!fits || value.get<std::int64_t>() < least || value.get<std::int64_t>() > most) {
        refuse_field(path, range("a whole number", static_cast<double>(least),
                                 static_cast<double>(most)));
    }
    return value.get<std::int64_t>();
}

}  // namespace effdet
