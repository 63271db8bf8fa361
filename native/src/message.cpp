#include "message.hpp"

#include <cstdint>
#include <cstring>

namespace effdet {
namespace {

struct Character {
    std::uint32_t code;
    std::size_t size;  // in bytes; 0 if the bytes are not UTF-8
};

Character decode(const unsigned char* text) {
    const unsigned char first = text[0];
    if (first < 0x80) {
        return {first, 1};
    }
    const std::size_t size = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    std::uint32_t code = first & (0x7FU >> size);
    for (std::size_t at = 1; at < size; ++at) {
        // The zero at the end of the text stops here too, so nothing behind it is read.
        if ((text[at] & 0xC0U) != 0x80) {
            return {0, 0};
        }
        code = code << 6 | (text[at] & 0x3FU);
    }
    // Not valid: a code in more bytes than it needs, a surrogate, or a code beyond Unicode.
    constexpr std::uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
    const bool valid = first >= 0xC2 && first <= 0xF4 && code >= kLeast[size] && code <= 0x10FFFF &&
                       (code < 0xD800 || code > 0xDFFF);
    return {code, valid ? size : 0};
}

bool is_harmless(std::uint32_t code) {
    const bool control = code < 0x20 || (code >= 0x7F && code < 0xA0);
    const bool direction = code == 0x200E || code == 0x200F || (code >= 0x2028 && code <= 0x202E) ||
                           (code >= 0x2066 && code <= 0x2069);
    return !control && !direction;
}

}  // namespace

void copy_printable(const char* text, char* target, std::size_t room) noexcept {
    while (*text != '\0') {
        const Character character = decode(reinterpret_cast<const unsigned char*>(text));
        const std::size_t read = character.size > 0 ? character.size : 1;
        const bool shown = character.size > 0 && is_harmless(character.code);
        const std::size_t written = shown ? read : 1;
        if (written >= room) {
            break;
        }
        if (shown) {
            std::memcpy(target, text, written);
        } else {
            *target = '?';
        }
        text += read;
        target += written;
        room -= written;
    }
    *target = '\0';
}

}  // namespace effdet
