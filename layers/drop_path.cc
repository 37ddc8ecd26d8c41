#include "layers/drop_path.h"

#include <utility>

#include "autograd/ops/residual.h"
#include "core/random.h"

namespace tessera::layers {

Tensor DropPath::AddTo(const Tensor& x, Tensor branch, const ForwardContext& context) const {
  Tensor scale;  // undefined: 1 for every sample
  if (context.training && rate_ > 0) {
    scale = Tensor::Empty({x.dim(0)}, DType::kF32);
    const uint64_t layer = HashString(full_name());
    for (int64_t i = 0; i < x.dim(0); ++i) {
      const uint64_t sample = static_cast<uint64_t>(context.first_sample + i * context.sample_stride);
      RandomStream random(context.seed, Purpose::kDropPath, context.step,
                          SplitMix64(layer ^ SplitMix64(sample)));
      const double keep = 1.0 - rate_;
      scale.data<float>()[i] = random.Bernoulli(keep) ? static_cast<float>(1.0 / keep) : 0.0f;
    }
  }
  return AddResidual(x, std::move(branch), scale.To(x.device()));
}

}  // namespace tessera::layers
