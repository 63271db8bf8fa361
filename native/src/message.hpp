// Makes messages safe to show. They quote file names, and what runtimes say about damaged files, so
// they may hold any bytes.
#pragma once

#include <cstddef>

namespace effdet {

// Copies a text into `room` bytes as UTF-8 that a terminal may show, and cuts it between characters
// if it is too long. Bytes that are not UTF-8, control characters, and marks that turn the writing
// direction become '?'.
void copy_printable(const char* text, char* target, std::size_t room) noexcept;

}  // namespace effdet
