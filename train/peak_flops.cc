#include "train/peak_flops.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "tensor/ops/matmul/matmul.h"

namespace tessera::train {

double MeasurePeakFlops(DType compute_dtype) {
  constexpr int64_t kSize = 1024;
  const Tensor a = Tensor::Zeros({kSize, kSize}, compute_dtype);
  double best = 0;
  for (int i = 0; i < 4; ++i) {  // the first one builds the kernel
    const absl::Time start = absl::Now();
    ops::Linear(a, a, Tensor(), compute_dtype);
    best = std::max(best, 2.0 * kSize * kSize * kSize / absl::ToDoubleSeconds(absl::Now() - start));
  }
  return best;
}

}  // namespace tessera::train
