// Texts of messages, which quote file names and engines' messages about damaged files, and may
// therefore hold any bytes.
#pragma once

#include <cstddef>

namespace effdet {

// Copies a text into `room` bytes, cut between characters, as UTF-8 that a terminal may show: what is
// no UTF-8, a control character or a mark that turns the direction of writing becomes '?'.
void copy_printable(const char* text, char* target, std::size_t room) noexcept;

}  // namespace effdet
