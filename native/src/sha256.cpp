#include "sha256.hpp"

#include <array>
#include <cstring>

namespace effdet {
namespace {

using Word = std::uint32_t;
using State = std::array<Word, 8>;

constexpr std::array<Word, 64> kRounds{
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

constexpr std::size_t kBlock = 64;

Word turn(Word value, int bits) { return value >> bits | value << (32 - bits); }

void add_block(State& state, const std::uint8_t* block) {
    std::array<Word, 64> words{};
    for (std::size_t at = 0; at < 16; ++at, block += 4) {
        words[at] = Word{block[0]} << 24 | Word{block[1]} << 16 | Word{block[2]} << 8 | block[3];
    }
    for (std::size_t at = 16; at < 64; ++at) {
        const Word early = words[at - 15];
        const Word late = words[at - 2];
        words[at] = words[at - 16] + words[at - 7] +
                    (turn(early, 7) ^ turn(early, 18) ^ early >> 3) +
                    (turn(late, 17) ^ turn(late, 19) ^ late >> 10);
    }
    auto [a, b, c, d, e, f, g, h] = state;
    for (std::size_t at = 0; at < 64; ++at) {
        const Word first = h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) +
                           kRounds[at] + words[at];
        const Word second =
            (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g;
        g = f;
        f = e;
        e = d + first;
        d = c;
        c = b;
        b = a;
        a = first + second;
    }
    const State mixed{a, b, c, d, e, f, g, h};
    for (std::size_t at = 0; at < state.size(); ++at) {
        state[at] += mixed[at];
    }
}

}  // namespace

std::string sha256(const std::uint8_t* bytes, std::size_t size) {
    State state{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::size_t at = 0;
    for (; at + kBlock <= size; at += kBlock) {
        add_block(state, bytes + at);
    }
    // The end: the remaining bytes, a bit that is 1, zeros, and the number of bits in eight bytes.
    std::array<std::uint8_t, 2 * kBlock> tail{};
    const std::size_t rest = size - at;
    if (rest > 0) {
        std::memcpy(tail.data(), bytes + at, rest);
    }
    tail[rest] = 0x80;
    const std::size_t end = rest + 9 > kBlock ? 2 * kBlock : kBlock;
    const std::uint64_t bits = std::uint64_t{size} * 8;
    for (std::size_t byte = 0; byte < 8; ++byte) {
        tail[end - 1 - byte] = static_cast<std::uint8_t>(bits >> (8 * byte));
    }
    for (std::size_t block = 0; block < end; block += kBlock) {
        add_block(state, tail.data() + block);
    }
    std::string digits;
    for (const Word word : state) {
        for (int shift = 28; shift >= 0; shift -= 4) {
            digits += "0123456789abcdef"[word >> shift & 15];
        }
    }
    return digits;
}

}  // namespace effdet
