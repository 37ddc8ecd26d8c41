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

Tensor NormalizeAttentionMap(Tensor map) {
  const int64_t positions = map.dim(1) * map.dim(2);
  for (int64_t b = 0; b < map.dim(0); ++b) {
    float* image = map.data<float>() + b * positions;
    const double sum = std::accumulate(image, image + positions, 0.0);
    const double scale = sum == 0 ? 0 : static_cast<double>(positions) / sum;
    for (int64_t i = 0; i < positions; ++i) {
      image[i] = sum == 0 ? 1.0f : static_cast<float>(image[i] * scale);
    }
  }
  return map;
}

Tensor AttentionReceived(const Tensor& in, int64_t parts, int64_t width,
                         const std::function<Tensor(const Tensor& in)>& attend) {
  const int64_t run = parts * width, channels = in.dim(-1);
  CHECK(in.dtype() == DType::kF32 && run > 0 && channels % run == 0)
      << in.shape() << " in " << parts << " parts of " << width;
  Tensor leaf = in.Detach();
  const Tensor grad = Tensor::Empty(in.shape(), DType::kF32);
  {
    Tape tape;
    tape.Watch(leaf, grad, /*accumulate=*/false);
    tape.Backward(Sum(attend(leaf)));
  }
  const Shape shape(in.shape().dims().first(static_cast<size_t>(in.rank() - 1)));
  Tensor received = Tensor::Zeros(shape, DType::kF32);
  for (int64_t i = 0; i < received.numel(); ++i) {
    const float* row = grad.data<float>() + i * channels;
    for (const float* end = row + channels; row != end; row += run) {
      received.data<float>()[i] =
          std::accumulate(row + run - width, row + run, received.data<float>()[i]);
    }
  }
  return received;
}

}  // namespace tessera
