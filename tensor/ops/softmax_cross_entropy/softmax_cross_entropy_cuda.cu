#include "core/cuda/elementwise.h"
#include "tensor/ops/softmax_cross_entropy/softmax_cross_entropy_kernel.h"

namespace tessera {
namespace {

constexpr int kThreads = 256;

// A block works on one sample, whose logits and targets stay in the L1 cache for the later passes.
template <int kWidth>
KERNEL(kThreads)
RowLoss(SoftmaxCrossEntropyArgs args) {
  const int64_t first = static_cast<int64_t>(threadIdx.x) * kWidth;
  const float* x = args.logits + blockIdx.x * args.classes;
  const float* t = args.targets + blockIdx.x * args.classes;
  float v[kWidth], target[kWidth];
  float max = -INFINITY;
  for (int64_t k = first; k < args.classes; k += kThreads * kWidth) {
    LoadFloats(x + k, v);
    UNROLL for (int j = 0; j < kWidth; ++j) max = fmaxf(max, v[j]);
  }
  max = BlockMax<kThreads>(max);
  float exp_sum = 0, target_sum = 0, dot = 0;
  for (int64_t k = first; k < args.classes; k += kThreads * kWidth) {
    LoadFloats(x + k, v);
    LoadFloats(t + k, target);
    UNROLL for (int j = 0; j < kWidth; ++j) {
      exp_sum += expf(v[j] - max);
      target_sum += target[j];
      dot = fmaf(target[j], v[j] - max, dot);
    }
  }
  exp_sum = BlockSum<kThreads>(exp_sum);
  target_sum = BlockSum<kThreads>(target_sum);
  dot = BlockSum<kThreads>(dot);
  if (threadIdx.x == 0) args.losses[blockIdx.x] = target_sum * logf(exp_sum) - dot;
  if (args.dlogits == nullptr) return;
  const float scale = 1.0f / static_cast<float>(args.batch);
  const float factor = target_sum / exp_sum * scale;
  float* gradient = args.dlogits + blockIdx.x * args.classes;
  for (int64_t k = first; k < args.classes; k += kThreads * kWidth) {
    LoadFloats(x + k, v);
    LoadFloats(t + k, target);
    UNROLL for (int j = 0; j < kWidth; ++j) v[j] =
        fmaf(expf(v[j] - max), factor, -target[j] * scale);
    StoreFloats(v, gradient + k);
  }
}

KERNEL(kThreads) MeanLoss(const float* losses, int64_t batch, float* loss) {
  double sum = 0;
  for (int64_t b = threadIdx.x; b < batch; b += kThreads) sum += losses[b];
  sum = BlockSum<kThreads>(sum);
  if (threadIdx.x == 0) *loss = static_cast<float>(sum / static_cast<double>(batch));
}

void SoftmaxCrossEntropyCuda(const SoftmaxCrossEntropyArgs& args) {
  const Extent grid = {.x = args.batch}, block = {.x = kThreads};
  if (args.classes % 4 == 0 && IsAligned16(args.logits) && IsAligned16(args.targets) &&
      IsAligned16(args.dlogits)) {
    Launch<RowLoss<4>>(grid, block, 0, CurrentStream(), args);
  } else {
    Launch<RowLoss<1>>(grid, block, 0, CurrentStream(), args);
  }
  Launch<MeanLoss>({}, block, 0, CurrentStream(), args.losses, args.batch, args.loss);
}

REGISTER_CUDA_KERNEL(softmax_cross_entropy, SoftmaxCrossEntropyCuda);

}  // namespace
}  // namespace tessera
