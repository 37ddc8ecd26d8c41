// Which samples an epoch has, in what order, and which of them a rank takes.
#ifndef TESSERA_DATA_SAMPLER_H_
#define TESSERA_DATA_SAMPLER_H_

#include <cstdint>
#include <vector>

namespace tessera {

struct SampleRef {
  int64_t index = 0;   // in the source
  int64_t repeat = 0;  // tells apart the times that an epoch has the sample
};

// A permutation of 0..n-1 that depends on the seed and the epoch alone.
std::vector<int32_t> EpochPermutation(int64_t n, uint64_t seed, int64_t epoch);

// The part of an epoch that one rank sees.
class EpochOrder {
 public:
  // Training: each of the permuted samples `repeats` times in a row, filled up by wrapping to a
  // multiple of `world`; rank r takes positions r, r + world, ... All ranks have equally many. With
  // repeats, an epoch keeps only about as many samples as the source has (repeated augmentation,
  // Hoffer et al., CVPR 2020, as DeiT does it): floor(floor(n / 256) * 256 / world), or
  // ceil(n / world) for n < 256.
  static EpochOrder Training(std::vector<int32_t> permutation, int64_t repeats, int64_t rank,
                             int64_t world);
  // Evaluation: samples r, r + world, ... of 0..n-1, none twice; ranks may differ by one.
  static EpochOrder Evaluation(int64_t n, int64_t rank, int64_t world);

  int64_t size() const { return size_; }
  SampleRef at(int64_t i) const;

 private:
  std::vector<int32_t> permutation_;  // empty in evaluation
  int64_t repeats_ = 1;
  int64_t rank_ = 0;
  int64_t world_ = 1;
  int64_t size_ = 0;
};

}  // namespace tessera

#endif  // TESSERA_DATA_SAMPLER_H_
