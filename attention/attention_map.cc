#include "attention/attention_map.h"

#include <algorithm>
#include <numeric>

#include "autograd/tape.h"
#include "core/check.h"

namespace tessera {
namespace {

// The sum of all elements, as far as its gradient goes.
Tensor Sum(const Tensor& y) {
  Tensor sum = Tensor::Zeros({}, DType::kF32);
  Record("sum", {&y}, {&sum}, [shape = y.shape()](GradContext& g) {
    const Tensor ones = Tensor::Empty(shape, DType::kF32);
    std::fill_n(ones.data<float>(), ones.numel(), 1.0f);
    g.Add(0, ones);
  });
  return sum;
}

}  // namespace

void NormalizeAttentionMap(const Tensor& map) {
  const int64_t positions = map.dim(1) * map.dim(2);
  for (int64_t b = 0; b < map.dim(0); ++b) {
    float* image = map.data<float>() + b * positions;
    const double sum = std::accumulate(image, image + positions, 0.0);
    const double scale = sum == 0 ? 0 : static_cast<double>(positions) / sum;
    for (int64_t i = 0; i < positions; ++i) {
      image[i] = sum == 0 ? 1.0f : static_cast<float>(image[i] * scale);
    }
  }
}

Tensor AttentionReceived(const Tensor& qkv,
                         const std::function<Tensor(const Tensor& qkv)>& attend) {
  CHECK(qkv.rank() == 4 && qkv.dtype() == DType::kF32 && qkv.dim(3) % 3 == 0) << qkv.shape();
  Tensor leaf = qkv.Detach();
  const Tensor grad = Tensor::Empty(qkv.shape(), DType::kF32);
  {
    Tape tape;
    tape.Watch(leaf, grad, /*accumulate=*/false);
    tape.Backward(Sum(attend(leaf)));
  }
  const int64_t channels = qkv.dim(3) / 3;
  Tensor map = Tensor::Empty({qkv.dim(0), qkv.dim(1), qkv.dim(2)}, DType::kF32);
  for (int64_t i = 0; i < map.numel(); ++i) {
    const float* of_value = grad.data<float>() + i * 3 * channels + 2 * channels;
    map.data<float>()[i] = std::accumulate(of_value, of_value + channels, 0.0f);
  }
  NormalizeAttentionMap(map);
  return map;
}

}  // namespace tessera
