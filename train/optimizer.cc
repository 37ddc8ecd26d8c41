#include "train/optimizer.h"

#include <cmath>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "core/status.h"
#include "tensor/ops/squared_norm/squared_norm.h"

namespace tessera::train {
namespace {

bool HoldsOneOf(absl::string_view name, const std::vector<std::string>& parts) {
  return absl::c_any_of(parts,
                        [&](const std::string& part) { return absl::StrContains(name, part); });
}

// Runs of parameters that are updated alike. The gaps between parameters are zero in every buffer
// and stay so, whichever range they are in.
std::vector<ParameterRange> RangesOf(const ParameterStore& store, const OptimConfig& config,
                                     const std::vector<float>& lr_scales) {
  CHECK(lr_scales.empty() || lr_scales.size() == store.entries().size()) << lr_scales.size();
  std::vector<ParameterRange> ranges;
  for (size_t i = 0; i < store.entries().size(); ++i) {
    const ParameterStore::Entry& entry = store.entries()[i];
    const float scale = lr_scales.empty() ? 1.0f : lr_scales[i];
    const bool decays =
        entry.parameter->decays() && !HoldsOneOf(entry.name, config.no_weight_decay);
    const float decay = decays ? static_cast<float>(config.weight_decay) : 0.0f;
    const int64_t end = entry.offset + entry.parameter->shape().numel();
    if (ranges.empty() || ranges.back().weight_decay != decay || ranges.back().lr_scale != scale) {
      ranges.push_back({entry.offset, end, decay, scale});
    } else {
      ranges.back().end = end;
    }
  }
  return ranges;
}

}  // namespace

Optimizer::Optimizer(const OptimConfig& config, ParameterStore& store, double ema_decay,
                     const std::vector<float>& lr_scales)
    : config_(config),
      store_(store),
      ema_decay_(ema_decay),
      ranges_(RangesOf(store, config, lr_scales)) {
  const auto add_moment = [&](const char* name) {
    moments_.push_back({name, Tensor::Zeros(store.grads().shape(), DType::kF32, store.device())});
  };
  if (config.name == "adamw") {
    add_moment("exp_avg");
    add_moment("exp_avg_sq");
  } else if (config.momentum > 0) {
    add_moment("momentum_buffer");
  }
  ResetAverages();
}

void Optimizer::ResetAverages() {
  if (ema_decay_ > 0) averages_ = store_.values().Clone();
}

double Optimizer::GradNorm() const { return std::sqrt(ops::SquaredNorm(store_.grads())); }

void Optimizer::Step(double lr, double grad_scale) {
  ++num_steps_;
  const ops::FlatParameters parameters = {
      store_.Trained(store_.values()), store_.grads(), store_.bf16(),
      averages_.defined() ? store_.Trained(averages_) : Tensor(), ranges_};
  if (config_.name == "adamw") {
    ops::AdamW(parameters, moments_[0].values, moments_[1].values,
               {.lr = lr,
                .step = num_steps_,
                .beta1 = config_.betas[0],
                .beta2 = config_.betas[1],
                .eps = config_.eps,
                .grad_scale = grad_scale,
                .ema_decay = ema_decay_});
  } else {
    ops::Sgd(parameters, moments_.empty() ? Tensor() : moments_[0].values,
             {.lr = lr,
              .momentum = config_.momentum,
              .nesterov = config_.nesterov,
              .grad_scale = grad_scale,
              .ema_decay = ema_decay_});
  }
  AverageBuffers();
}

// Buffers are few, and the sweep over the parameters ends where they begin. A step of learning rate
// 0, whatever the gradient, leaves them as they are and moves their averages.
void Optimizer::AverageBuffers() {
  const int64_t begin = store_.grads().numel(), end = store_.values().numel();
  if (!averages_.defined() || begin == end) return;
  const Tensor buffers = store_.values().Slice(begin, end);
  const ParameterRange all = {0, end - begin};
  ops::Sgd({buffers, buffers, Tensor(), averages_.Slice(begin, end), absl::MakeConstSpan(&all, 1)},
           Tensor(), {.lr = 0, .ema_decay = ema_decay_});
}

absl::Status CheckNoWeightDecay(const OptimConfig& config, Module& model) {
  for (const std::string& part : config.no_weight_decay) {
    bool found = false;
    std::string last;
    model.VisitParameters([&](const std::string& name, Parameter&) {
      found = found || absl::StrContains(name, part);
      last = name;
    });
    if (!found) {
      return ConfigError(absl::StrCat("optim.no_weight_decay: no parameter's name holds '", part,
                                      "'; the last one is '", last, "'"));
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::train
