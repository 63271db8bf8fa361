#include "mix.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>

#include <cstring>
#endif

namespace effdet {
namespace {

constexpr std::int32_t kHalf = 1 << (kWeightBits - 1);

// The weights add up to one but for rounding, so a sum leaves 0-255 only by rounding.
std::uint8_t rounded(std::int32_t sum) {
    const std::int32_t level = sum >> kWeightBits;
    return static_cast<std::uint8_t>(level < 0 ? 0 : level > 255 ? 255 : level);
}

void mix_bytes(const std::uint8_t* first, std::size_t stride, int count,
               const std::int32_t* weight, std::size_t begin, std::size_t end,
               std::uint8_t* target) {
    for (std::size_t at = begin; at < end; ++at) {
        std::int32_t sum = kHalf;
        for (int row = 0; row < count; ++row) {
            sum += first[static_cast<std::size_t>(row) * stride + at] * weight[row];
        }
        target[at] = rounded(sum);
    }
}

#if defined(__SSE2__)

// SSE2 multiplies 16-bit numbers and adds neighbors (pmaddwd), so weights of 23 bits are split:
// the sum is (sum of high parts << 15) + sum of low parts. A single addition may wrap around, but
// the total fits into 32 bits, so the result is exact.
struct Sum {
    __m128i low = _mm_set1_epi32(kHalf);
    __m128i high = _mm_setzero_si128();

    // Adds eight 16-bit levels: even ones take the pair's first weight, odd ones its second.
    void add(__m128i levels, __m128i pair_low, __m128i pair_high) {
        low = _mm_add_epi32(low, _mm_madd_epi16(levels, pair_low));
        high = _mm_add_epi32(high, _mm_madd_epi16(levels, pair_high));
    }

    __m128i levels() const {
        return _mm_srai_epi32(_mm_add_epi32(low, _mm_slli_epi32(high, kLowBits)), kWeightBits);
    }
};

#endif

}  // namespace

#if defined(__SSE2__)

void mix_along(const std::uint8_t* source, const Weights& weights, std::uint8_t* target) {
    const __m128i zero = _mm_setzero_si128();
    const std::size_t size = weights.first.size();
    for (std::size_t index = 0; index < size; ++index) {
        const std::uint8_t* pixel = source + static_cast<std::ptrdiff_t>(weights.first[index]) * 4;
        const WeightPair* pair = weights.pairs_of(index);
        Sum sum;
        for (int tap = 0; tap < weights.count[index]; tap += 2, pixel += 8, ++pair) {
            const __m128i two = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(pixel));
            const __m128i mixed = _mm_unpacklo_epi8(two, _mm_srli_si128(two, 4));
            sum.add(_mm_unpacklo_epi8(mixed, zero), _mm_set1_epi32(pair->low),
                    _mm_set1_epi32(pair->high));
        }
        const __m128i words = _mm_packs_epi32(sum.levels(), zero);
        const int packed = _mm_cvtsi128_si32(_mm_packus_epi16(words, zero));
        std::memcpy(target + index * 4, &packed, 4);
    }
}

void mix_across(const std::uint8_t* first, const Weights& weights, std::size_t index,
                std::size_t bytes, std::uint8_t* target) {
    const __m128i zero = _mm_setzero_si128();
    const int count = weights.count[index];
    std::size_t at = 0;
    for (; at + 16 <= bytes; at += 16) {
        Sum sums[4];
        const std::uint8_t* upper = first + at;
        const WeightPair* pair = weights.pairs_of(index);
        for (int row = 0; row < count; row += 2, upper += 2 * bytes, ++pair) {
            // If the number of rows is odd, the last one is taken twice, once with a weight of
            // zero.
            const std::uint8_t* lower = row + 1 < count ? upper + bytes : upper;
            const __m128i one = _mm_loadu_si128(reinterpret_cast<const __m128i*>(upper));
            const __m128i two = _mm_loadu_si128(reinterpret_cast<const __m128i*>(lower));
            const __m128i low = _mm_set1_epi32(pair->low);
            const __m128i high = _mm_set1_epi32(pair->high);
            const __m128i left = _mm_unpacklo_epi8(one, two);
            const __m128i right = _mm_unpackhi_epi8(one, two);
            sums[0].add(_mm_unpacklo_epi8(left, zero), low, high);
            sums[1].add(_mm_unpackhi_epi8(left, zero), low, high);
            sums[2].add(_mm_unpacklo_epi8(right, zero), low, high);
            sums[3].add(_mm_unpackhi_epi8(right, zero), low, high);
        }
        const __m128i left = _mm_packs_epi32(sums[0].levels(), sums[1].levels());
        const __m128i right = _mm_packs_epi32(sums[2].levels(), sums[3].levels());
        _mm_storeu_si128(reinterpret_cast<__m128i*>(target + at), _mm_packus_epi16(left, right));
    }
    mix_bytes(first, bytes, count, weights.of(index), at, bytes, target);
}

#else

void mix_along(const std::uint8_t* source, const Weights& weights, std::uint8_t* target) {
    const std::size_t size = weights.first.size();
    for (std::size_t index = 0; index < size; ++index) {
        const std::uint8_t* pixel = source + static_cast<std::ptrdiff_t>(weights.first[index]) * 4;
        mix_bytes(pixel, 4, weights.count[index], weights.of(index), 0, 4,
                  target + index * 4);
    }
}

void mix_across(const std::uint8_t* first, const Weights& weights, std::size_t index,
                std::size_t bytes, std::uint8_t* target) {
    mix_bytes(first, bytes, weights.count[index], weights.of(index), 0, bytes, target);
}

#endif

}  // namespace effdet
