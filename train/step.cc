#include "train/step.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "autograd/ops/softmax_cross_entropy.h"
#include "core/parallel.h"

namespace tessera::train {
namespace {

// What forward passes in training change beside gradients: running statistics and counters.
class SavedBuffers {
 public:
  explicit SavedBuffers(const ParameterStore& store)
      : buffers_(store.values().Slice(store.grads().numel(), store.values().numel())),
        counters_(store.counters()),
        saved_buffers_(buffers_.Clone()),
        saved_counters_(counters_.Clone()) {}
  void Restore() const {
    buffers_.CopyFrom(saved_buffers_);
    counters_.CopyFrom(saved_counters_);
  }

 private:
  Tensor buffers_, counters_, saved_buffers_, saved_counters_;
};

void AverageGradients(const Communicator& ranks, const Tensor& grads) {
  if (ranks.size() == 1) return;
  float* values = grads.data<float>();
  ranks.AllReduceSum(absl::MakeSpan(values, grads.numel()));
  const float share = 1.0f / static_cast<float>(ranks.size());
  ParallelFor(grads.numel(), int64_t{1} << 16, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) values[i] *= share;
  });
}

}  // namespace

double ComputeGradients(const ImageModel& model, ParameterStore& store, const StepOptions& options,
                        const Tensor& images, const Tensor& targets, int64_t step) {
  const int64_t batch = images.dim(0);
  CHECK_EQ(batch % options.accumulate, 0) << "batch " << batch << " in " << options.accumulate;
  const int64_t part = batch / options.accumulate;
  ForwardContext context;
  context.training = true;
  context.compute_dtype = options.compute_dtype;
  context.checkpoint_blocks = options.checkpoint_blocks;
  context.seed = options.seed;
  context.step = step;
  context.ranks = options.ranks;
  context.sample_stride = options.ranks->size();

  const Device device = store.device();
  const Tensor losses = Tensor::Empty({options.accumulate}, DType::kF32, device);
  for (int64_t begin = 0; begin < batch; begin += part) {
    context.first_sample = begin * context.sample_stride + options.ranks->rank();
    Tape tape;
    store.Watch(tape, /*accumulate=*/begin > 0);
    const Tensor logits = model.Forward(images.Slice(begin, begin + part).To(device), context);
    const Tensor loss = SoftmaxCrossEntropy(logits, targets.Slice(begin, begin + part).To(device));
    losses.Slice(begin / part, begin / part + 1).CopyFrom(loss.Reshape({1}));
    tape.Backward(loss, 1.0f / static_cast<float>(options.accumulate));
  }
  // Only here, with all of it under way, a step waits for its device; then for the gradient's norm.
  const Tensor on_host = losses.To(Device::kCpu);
  double sum = 0;
  for (int64_t i = 0; i < options.accumulate; ++i) sum += on_host.data<float>()[i];
  const double loss = sum / static_cast<double>(options.accumulate);
  AverageGradients(*options.ranks, store.grads());
  return options.ranks->Mean(loss);
}

StepResult TrainStep(const ImageModel& model, ParameterStore& store, Optimizer& optimizer,
                     const StepOptions& options, const Tensor& images, const Tensor& targets,
                     int64_t step, double lr, double max_loss) {
  const SavedBuffers before(store);
  StepResult result;
  result.loss = ComputeGradients(model, store, options, images, targets, step);
  result.grad_norm = optimizer.GradNorm();
  result.updated =
      std::isfinite(result.loss) && std::isfinite(result.grad_norm) && result.loss <= max_loss;
  if (!result.updated) {
    before.Restore();
    return result;
  }
  // As torch.nn.utils.clip_grad_norm_ does it.
  const double scale =
      options.clip_grad > 0 ? std::min(1.0, options.clip_grad / (result.grad_norm + 1e-6)) : 1.0;
  optimizer.Step(lr, scale);
  return result;
}

absl::Status CheckUpdated(const StepResult& result, int64_t step) {
  if (result.updated) return absl::OkStatus();
  return NumericError(
      absl::StrFormat("step %d: the loss is %g and the gradient's norm %g; nothing was updated",
                      step, result.loss, result.grad_norm));
}

}  // namespace tessera::train
