#include "core/parallel.h"
#include "tensor/ops/add/add.h"

namespace tessera {
namespace {

constexpr int64_t kGrain = int64_t{1} << 15;

template <typename Y, typename X>
void Add(const AddInPlaceArgs& args) {
  Y* __restrict y = static_cast<Y*>(args.y);
  const X* __restrict x = static_cast<const X*>(args.x);
  ParallelFor(args.n, kGrain, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      y[i] = Y(static_cast<float>(y[i]) + static_cast<float>(x[i]));
    }
  });
}

void AddInPlaceCpu(const AddInPlaceArgs& args) {
  const bool y_bf16 = args.y_dtype == DType::kBF16;
  const bool x_bf16 = args.x_dtype == DType::kBF16;
  if (y_bf16) return x_bf16 ? Add<BF16, BF16>(args) : Add<BF16, float>(args);
  return x_bf16 ? Add<float, BF16>(args) : Add<float, float>(args);
}

REGISTER_KERNEL(add_in_place, Device::kCpu, AddInPlaceCpu);

}  // namespace
}  // namespace tessera
