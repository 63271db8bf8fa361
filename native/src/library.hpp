// Shared libraries that are found while the program runs: libeffdet links against no runtime.
#pragma once

#include <string>
#include <vector>

namespace effdet {

class Library {
public:
    // Loads the file `given`. If it is "", loads the file that the environment variable names; if
    // that is not set, the first of `names` that the system finds. `what` stands for the library in
    // messages. Throws Failure(EFFDET_MISSING) with the loader's own words.
    Library(const std::string& what, const std::string& given, const char* variable,
            const std::vector<std::string>& names);

    // A function by its name and the type that its header declares.
    template <typename Function>
    Function* get(const char* name) const {
        return reinterpret_cast<Function*>(symbol(name));
    }

    const std::string& path() const { return path_; }

private:
    void* symbol(const char* name) const;

    // Never closed: runtimes keep threads and thread-local data that outlive their last object.
    void* handle_ = nullptr;
    std::string what_;
    std::string path_;
};

}  // namespace effdet
