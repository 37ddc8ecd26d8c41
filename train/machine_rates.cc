#include "train/machine_rates.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "core/kernel.h"
#include "tensor/ops/add/add.h"
#include "tensor/ops/matmul/matmul.h"

namespace tessera::train {
namespace {

// Seconds of the fastest of some calls; the first one builds kernels and touches memory.
template <typename Fn>
double BestSeconds(Device device, Fn fn) {
  double best = 0;
  for (int i = 0; i < 4; ++i) {
    const absl::Time start = absl::Now();
    fn();
    FinishKernels(device);
    const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
    best = i == 0 ? seconds : std::min(best, seconds);
  }
  return best;
}

}  // namespace

double MeasurePeakFlops(DType compute_dtype, Device device) {
  const auto flops_at = [&](int64_t size) {
    const Tensor a = Tensor::Zeros({size, size}, compute_dtype, device);
    return 2.0 * static_cast<double>(size * size * size) /
           BestSeconds(device, [&] { ops::Linear(a, a, Tensor(), compute_dtype); });
  };
  // A GPU has finished a small product before all of it is busy.
  constexpr double kNoCpu = 1e13;
  const double small = flops_at(1024);
  return small < kNoCpu ? small : flops_at(8192);
}

double MeasureBandwidth(Device device) {
  constexpr int64_t kElements = int64_t{32} << 20;
  const Tensor x = Tensor::Zeros({kElements}, DType::kF32, device);
  const Tensor y = Tensor::Zeros({kElements}, DType::kF32, device);
  return 3.0 * static_cast<double>(x.bytes()) / BestSeconds(device, [&] { ops::AddInPlace(y, x); });
}

}  // namespace tessera::train
