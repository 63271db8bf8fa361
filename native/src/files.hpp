// Reading files, with a message for everything that can go wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace effdet {

// A file mapped into memory, read only.
class MappedFile {
public:
    // Throws Failure(EFFDET_BAD_MODEL) if the file is absent, a directory, empty or unreadable.
    explicit MappedFile(const std::string& path);
    ~MappedFile();
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    const std::uint8_t* data() const { return data_; }
    std::size_t size() const { return size_; }

private:
    const std::uint8_t* data_ = nullptr;
    std::size_t size_ = 0;
};

bool is_file(const std::string& path);

// The directory of a path ("." if the path names none), and the file's name in that directory.
std::string directory_of(const std::string& path);
std::string base_name(const std::string& path);

// The path of a file that a model names, which must lie in the model's own directory: no absolute
// path, no "..", no symbolic link. Throws Failure.
std::string resolve_inside(const std::string& directory, const std::string& name);

}  // namespace effdet
