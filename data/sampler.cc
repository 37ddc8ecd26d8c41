#include "data/sampler.h"

#include <limits>
#include <numeric>
#include <utility>

#include "core/check.h"
#include "core/random.h"

namespace tessera {

std::vector<int32_t> EpochPermutation(int64_t n, uint64_t seed, int64_t epoch) {
  CHECK_LE(n, std::numeric_limits<int32_t>::max());
  std::vector<int32_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  RandomStream random(seed, Purpose::kShuffle, static_cast<uint64_t>(epoch));
  for (int64_t i = n - 1; i > 0; --i) std::swap(order[i], order[random.Integer(0, i)]);
  return order;
}

EpochOrder EpochOrder::Training(std::vector<int32_t> permutation, int64_t repeats, int64_t rank,
                                int64_t world) {
  const auto n = static_cast<int64_t>(permutation.size());
  EpochOrder order;
  order.permutation_ = std::move(permutation);
  order.repeats_ = repeats;
  order.rank_ = rank;
  order.world_ = world;
  order.size_ = repeats == 1 || n < 256 ? (n + world - 1) / world : n / 256 * 256 / world;
  return order;
}

EpochOrder EpochOrder::Evaluation(int64_t n, int64_t rank, int64_t world) {
  EpochOrder order;
  order.rank_ = rank;
  order.world_ = world;
  order.size_ = (n - rank + world - 1) / world;
  return order;
}

SampleRef EpochOrder::at(int64_t i) const {
  const int64_t position = rank_ + i * world_;
  if (permutation_.empty()) return {position, 0};
  const int64_t total = static_cast<int64_t>(permutation_.size()) * repeats_;
  const int64_t within = position % total;
  return {permutation_[within / repeats_], within % repeats_ + position / total * repeats_};
}

}  // namespace tessera
