#include "train/step.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "autograd/ops/softmax_cross_entropy.h"

namespace tessera::train {

absl::StatusOr<StepResult> TrainStep(const ImageModel& model, ParameterStore& store,
                                     Optimizer& optimizer, const StepOptions& options,
                                     const Tensor& images, const Tensor& targets, int64_t step,
                                     double lr) {
  const int64_t batch = images.dim(0);
  CHECK_EQ(batch % options.accumulate, 0) << "batch " << batch << " in " << options.accumulate;
  const int64_t part = batch / options.accumulate;
  ForwardContext context;
  context.training = true;
  context.compute_dtype = options.compute_dtype;
  context.checkpoint_blocks = options.checkpoint_blocks;
  context.seed = options.seed;
  context.step = step;

  StepResult result;
  for (int64_t begin = 0; begin < batch; begin += part) {
    context.first_sample = begin;
    Tape tape;
    store.Watch(tape, /*accumulate=*/begin > 0);
    const Tensor logits = model.Forward(images.Slice(begin, begin + part), context);
    const Tensor loss = SoftmaxCrossEntropy(logits, targets.Slice(begin, begin + part));
    const double weight = 1.0 / static_cast<double>(options.accumulate);
    result.loss += *loss.data<float>() * weight;
    if (!std::isfinite(result.loss)) break;
    tape.Backward(loss, static_cast<float>(weight));
  }
  result.grad_norm = optimizer.GradNorm();
  if (!std::isfinite(result.loss) || !std::isfinite(result.grad_norm)) {
    return NumericError(absl::StrFormat(
        "step %d: the loss is %g and the gradient's norm %g; no weight was updated. A smaller "
        "optim.lr, a longer optim.warmup_epochs or optim.clip_grad=1 may help",
        step, result.loss, result.grad_norm));
  }
  // As torch.nn.utils.clip_grad_norm_ does it.
  const double scale =
      options.clip_grad > 0 ? std::min(1.0, options.clip_grad / (result.grad_norm + 1e-6)) : 1.0;
  optimizer.Step(lr, scale);
  return result;
}

}  // namespace tessera::train
