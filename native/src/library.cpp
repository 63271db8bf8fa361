#include "library.hpp"

#include <dlfcn.h>

#include <cstdlib>

#include "failure.hpp"

namespace effdet {

Library::Library(const std::string& what, const std::string& given, const char* variable,
                 const std::vector<std::string>& names)
    : what_(what) {
    const char* named = ::getenv(variable);
    std::vector<std::string> candidates = names;
    if (!given.empty()) {
        candidates = {given};
    } else if (named != nullptr && *named != '\0') {
        candidates = {named};
    }
    std::string reasons;
    for (const std::string& each : candidates) {
        handle_ = ::dlopen(each.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (handle_ != nullptr) {
            path_ = each;
            return;
        }
        const char* reason = ::dlerror();
        reasons += (reasons.empty() ? "" : "; ") + std::string(reason != nullptr ? reason : each);
    }
    throw Failure(EFFDET_MISSING, "The library of " + what + " cannot be loaded: " + reasons + ".",
                  "Install it, or name its file in options.library or " + std::string(variable) +
                      ".");
}

void* Library::symbol(const char* name) const {
    void* found = ::dlsym(handle_, name);
    if (found == nullptr) {
        throw Failure(EFFDET_MISSING, "'" + path_ + "' has no function " + name + ".",
                      "It is not " + what_ + ", or a release that is too old.");
    }
    return found;
}

}  // namespace effdet
