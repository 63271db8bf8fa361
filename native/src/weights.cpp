#include "weights.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace effdet {
namespace {

std::vector<WeightPair> paired(const std::vector<std::int32_t>& weights) {
    constexpr std::int32_t kMask = (1 << kLowBits) - 1;
    std::vector<WeightPair> pairs;
    pairs.reserve(weights.size() / 2);
    for (std::size_t at = 0; at < weights.size(); at += 2) {
        const std::int32_t one = weights[at];
        const std::int32_t two = weights[at + 1];
        pairs.push_back({(two & kMask) << 16 | (one & kMask),
                         (two >> kLowBits) << 16 | (one >> kLowBits)});
    }
    return pairs;
}

}  // namespace

Weights triangle_weights(int source, int target) {
    const double scale = static_cast<double>(source) / target;
    const double support = std::max(scale, 1.0);
    // Pillow multiplies by the inverse; a division would round a few weights differently.
    const double inverse = 1.0 / support;
    Weights weights;
    // At most 2 * ceil(support) + 1 weights, and a zero behind them to make pairs of an odd number.
    weights.most = static_cast<int>(std::ceil(support)) * 2 + 2;
    const auto size = static_cast<std::size_t>(target);
    weights.first.resize(size);
    weights.count.resize(size);
    weights.weight.assign(size * static_cast<std::size_t>(weights.most), 0);
    std::vector<double> exact(static_cast<std::size_t>(weights.most));
    for (int index = 0; index < target; ++index) {
        const double center = (index + 0.5) * scale;
        const int first = std::max(static_cast<int>(center - support + 0.5), 0);
        const int last = std::min(static_cast<int>(center + support + 0.5), source);
        double sum = 0;
        for (int pixel = first; pixel < last; ++pixel) {
            const double distance = std::abs((pixel - center + 0.5) * inverse);
            const double weight = distance < 1.0 ? 1.0 - distance : 0.0;
            exact[static_cast<std::size_t>(pixel - first)] = weight;
            sum += weight;
        }
        const auto place = static_cast<std::size_t>(index);
        weights.first[place] = first;
        weights.count[place] = last - first;
        for (int pixel = 0; pixel < last - first; ++pixel) {
            const double share = exact[static_cast<std::size_t>(pixel)] / sum;
            weights.weight[place * static_cast<std::size_t>(weights.most) +
                           static_cast<std::size_t>(pixel)] =
                static_cast<std::int32_t>(0.5 + share * (1 << kWeightBits));
        }
    }
    weights.pair = paired(weights.weight);
    return weights;
}

}  // namespace effdet
