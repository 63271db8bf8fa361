// Messages are UTF-8 that a terminal may show, whatever bytes they quote.
#include "message.hpp"

#include "check.hpp"

namespace {

std::string shown(const std::string& text, std::size_t room = 64) {
    char target[64];
    effdet::copy_printable(text.c_str(), target, room);
    return target;
}

}  // namespace

int main() {
    EQUAL(shown("plain"), "plain");
    EQUAL(shown("Grün 物体 🙂"), "Grün 物体 🙂");
    EQUAL(shown("a\x1B[31mb\x7F\n"), "a?[31mb??");
    EQUAL(shown("\xC2\x9B" "1m"), "?1m");
    EQUAL(shown("a\xE2\x80\xAE" "b"), "a?b");
    for (const char* broken : {"\xB2", "\xC0\xAF", "\xED\xA0\x80", "\xF5\x80\x80\x80", "\xE2\x80", "\xF0"}) {
        const std::string found = shown(std::string("x") + broken);
        EQUAL(found.substr(0, 2), "x?");
        EQUAL(found.find_first_not_of("x?"), std::string::npos);
    }
    // The text is cut between characters: there is no room for the second byte of the last one.
    EQUAL(shown("aü", 3), "a");
    EQUAL(shown("aü", 4), "aü");
    EQUAL(shown("abc", 1), "");
    return check::result("message");
}
