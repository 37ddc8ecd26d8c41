#include "train/machine_rates.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "tensor/ops/add/add.h"
#include "tensor/ops/matmul/matmul.h"

namespace tessera::train {
namespace {

// Seconds of the fastest of some calls; the first one builds kernels and touches memory.
template <typename Fn>
double BestSeconds(Fn fn) {
  double best = 0;
  for (int i = 0; i < 4; ++i) {
    const absl::Time start = absl::Now();
    fn();
    const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
    best = i == 0 ? seconds : std::min(best, seconds);
  }
  return best;
}

}  // namespace

double MeasurePeakFlops(DType compute_dtype) {
  constexpr int64_t kSize = 1024;
  const Tensor a = Tensor::Zeros({kSize, kSize}, compute_dtype);
  return 2.0 * kSize * kSize * kSize /
         BestSeconds([&] { ops::Linear(a, a, Tensor(), compute_dtype); });
}

double MeasureBandwidth() {
  constexpr int64_t kElements = int64_t{32} << 20;
  const Tensor x = Tensor::Zeros({kElements}, DType::kF32);
  const Tensor y = Tensor::Zeros({kElements}, DType::kF32);
  return 3.0 * static_cast<double>(x.bytes()) / BestSeconds([&] { ops::AddInPlace(y, x); });
}

}  // namespace tessera::train
