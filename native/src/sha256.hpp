// SHA-256 (FIPS 180-4), with which engines are checked against their sidecars (FILE.json).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace effdet {

// 64 hexadecimal digits.
std::string sha256(const std::uint8_t* bytes, std::size_t size);

}  // namespace effdet
