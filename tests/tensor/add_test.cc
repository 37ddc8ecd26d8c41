#include "tensor/ops/add/add.h"

#include "tests/op_testing.h"

namespace tessera {
namespace {

class Add : public OnEveryTarget {};

// Views that begin at any element, so that also accesses without alignment are tested.
TEST_P(Add, MatchesDoublePrecisionAtAnySizeAndAlignment) {
  for (const DType y_dtype : {DType::kF32, DType::kBF16}) {
    for (const DType x_dtype : {DType::kF32, DType::kBF16}) {
      for (const int64_t n : {0, 1, 7, 8, 17, 2051}) {
        for (const int64_t offset : {0, 3}) {
          const Tensor y = RandomTensor({n + offset}, y_dtype, 1);
          const Tensor x = RandomTensor({n + offset}, x_dtype, 2);
          std::vector<double> sum = ToDouble(y);
          for (int64_t i = offset; i < n + offset; ++i) sum[i] += At(x, i);
          ops::AddInPlace(y.Slice(offset, n + offset), x.Slice(offset, n + offset));
          ExpectClose(y, sum, 1e-7);
        }
      }
    }
  }
}

INSTANTIATE_ON_EVERY_TARGET(Add);

}  // namespace
}  // namespace tessera
