// Checks for tests. A check that fails prints its line and the value found, and is counted.
#pragma once

#include <iostream>
#include <string>

namespace check {

inline int failures = 0;

template <typename One, typename Other>
void equal(const One& found, const Other& expected, const char* text, int line) {
    if (!(found == expected)) {
        ++failures;
        std::cerr << "line " << line << ": " << text << " is " << found << ", not " << expected
                  << '\n';
    }
}

inline void holds(bool condition, const char* text, int line) {
    if (!condition) {
        ++failures;
        std::cerr << "line " << line << ": does not hold: " << text << '\n';
    }
}

inline void contains(const std::string& text, const std::string& part, int line) {
    if (text.find(part) == std::string::npos) {
        ++failures;
        std::cerr << "line " << line << ": '" << text << "' does not say '" << part << "'\n";
    }
}

inline int result(const char* name) {
    std::cout << name << ": " << (failures == 0 ? "passed" : "failed") << '\n';
    return failures == 0 ? 0 : 1;
}

}  // namespace check

#define EQUAL(found, expected) check::equal(found, expected, #found, __LINE__)
#define HOLDS(condition) check::holds(condition, #condition, __LINE__)
#define CONTAINS(text, part) check::contains(text, part, __LINE__)
