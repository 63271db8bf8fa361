#include "files.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "failure.hpp"

namespace effdet {
namespace {

[[noreturn]] void refuse(const std::string& path, const std::string& what, const char* remedy) {
    throw Failure(EFFDET_BAD_MODEL, "The file '" + path + "' " + what + ".", remedy);
}

// Closes the file descriptor, which a mapping does not need once it is made.
struct Descriptor {
    int number;
    ~Descriptor() { ::close(number); }
};

}  // namespace

MappedFile::MappedFile(const std::string& path) {
    // Without O_NONBLOCK, opening a pipe would wait for a writer.
    const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (file.number < 0) {
        refuse(path, errno == ENOENT ? "does not exist" : std::string("cannot be read: ") +
                                                              std::strerror(errno),
               "Check the path.");
    }
    struct stat status {};
    if (::fstat(file.number, &status) != 0) {
        refuse(path, std::string("cannot be read: ") + std::strerror(errno), "Check the path.");
    }
    if (S_ISDIR(status.st_mode)) {
        refuse(path, "is a directory", "Name the model file inside it.");
    }
    if (!S_ISREG(status.st_mode)) {
        refuse(path, "is not an ordinary file", "Name a model file.");
    }
    if (status.st_size == 0) {
        refuse(path, "is empty", "Get the file again or export it again.");
    }
    size_ = static_cast<std::size_t>(status.st_size);
    void* mapped = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.number, 0);
    if (mapped == MAP_FAILED) {
        refuse(path, std::string("cannot be read: ") + std::strerror(errno), "Check the file.");
    }
    data_ = static_cast<const std::uint8_t*>(mapped);
}

MappedFile::~MappedFile() {
    ::munmap(const_cast<std::uint8_t*>(data_), size_);
}

bool is_file(const std::string& path) {
    std::error_code error;
    return std::filesystem::is_regular_file(path, error);
}

std::string directory_of(const std::string& path) {
    const std::size_t slash = path.find_last_of('/');
    return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

std::string base_name(const std::string& path) {
    const std::size_t slash = path.find_last_of('/');
    return slash == std::string::npos ? path : path.substr(slash + 1);
}

std::string resolve_inside(const std::string& directory, const std::string& name) {
    namespace fs = std::filesystem;
    const fs::path given(name);
    std::error_code error;
    bool plain = !name.empty() && !given.is_absolute();
    for (const fs::path& part : given) {
        plain = plain && part != "..";
    }
    if (plain) {
        const fs::path base = fs::canonical(directory, error);
        const fs::path real = error ? fs::path() : fs::weakly_canonical(base / given, error);
        plain = !error && real == (base / given).lexically_normal();
    }
    if (!plain) {
        throw Failure(EFFDET_BAD_MODEL,
                      "The model names the external file '" + name +
                          "', which is not a plain file in its own directory.",
                      "Get the model from a source you trust, with its data file beside it.");
    }
    return directory + "/" + name;
}

}  // namespace effdet
