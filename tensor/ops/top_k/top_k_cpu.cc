#include <cmath>

#include "core/parallel.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/top_k/top_k.h"

namespace tessera {
namespace {

// Keeps the best so far in order; almost all of a long row fails the comparison with the last.
template <typename T>
void TopKRow(const T* x, int64_t n, int64_t k, float* values, int32_t* indices) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float value = static_cast<float>(x[i]);
    const auto goes_before = [value](float other) {
      return value > other || (std::isnan(other) && !std::isnan(value));
    };
    if (count == k && !goes_before(values[k - 1])) continue;
    int64_t place = count == k ? k - 1 : count++;
    for (; place > 0 && goes_before(values[place - 1]); --place) {
      values[place] = values[place - 1];
      indices[place] = indices[place - 1];
    }
    values[place] = value;
    indices[place] = static_cast<int32_t>(i);
  }
}

void TopKCpu(const TopKArgs& args) {
  WithFloatType(args.x_dtype, [&](auto type) {
    const auto* x = static_cast<const decltype(type)*>(args.x);
    ParallelFor(args.rows, 16, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        TopKRow(x + row * args.columns, args.columns, args.k, args.values + row * args.k,
                args.indices + row * args.k);
      }
    });
  });
}

REGISTER_KERNEL(top_k, Device::kCpu, TopKCpu);

}  // namespace
}  // namespace tessera
