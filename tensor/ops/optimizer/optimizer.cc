#include "tensor/ops/optimizer/optimizer.h"

#include <cmath>

#include "tensor/ops/describe.h"

namespace tessera {

constinit KernelSlot<void(const AdamWArgs&)> adamw("adamw");
constinit KernelSlot<void(const SgdArgs&)> sgd("sgd");

namespace ops {
namespace {

void CheckBuffers(const char* name, const FlatParameters& parameters) {
  const auto& [values, grads, bf16, ema, ranges] = parameters;
  const int64_t n = values.numel();
  CHECK(grads.numel() == n && (!bf16.defined() || bf16.numel() == n) &&
        (!ema.defined() || ema.numel() == n))
      << name << ": values " << Describe(values) << ", grads " << Describe(grads) << ", bf16 "
      << Describe(bf16) << ", ema " << Describe(ema);
  int64_t end = 0;
  for (const ParameterRange& range : ranges) {
    CHECK(range.begin >= end && range.end > range.begin && range.end <= n)
        << name << ": range [" << range.begin << ", " << range.end << ") after " << end << " of "
        << n << " elements";
    end = range.end;
  }
}

OptimizerArgs ArgsOf(const FlatParameters& parameters, double lr, double grad_scale,
                     double ema_decay) {
  const auto& [values, grads, bf16, ema, ranges] = parameters;
  return {.value = values.data<float>(),
          .grad = grads.data<float>(),
          .bf16 = bf16.defined() ? bf16.data<BF16>() : nullptr,
          .ema = ema.defined() ? ema.data<float>() : nullptr,
          .n = values.numel(),
          .ranges = ranges.data(),
          .num_ranges = static_cast<int64_t>(ranges.size()),
          .lr = static_cast<float>(lr),
          .grad_scale = static_cast<float>(grad_scale),
          .ema_decay = static_cast<float>(ema_decay)};
}

}  // namespace

void AdamW(const FlatParameters& parameters, const Tensor& m, const Tensor& v,
           const AdamWOptions& options) {
  CheckBuffers("adamw", parameters);
  const int64_t n = parameters.values.numel();
  CHECK(m.numel() == n && v.numel() == n && options.step >= 1)
      << "adamw: m " << Describe(m) << ", v " << Describe(v) << ", step " << options.step;
  if (parameters.ranges.empty()) return;
  AdamWArgs args{ArgsOf(parameters, options.lr, options.grad_scale, options.ema_decay)};
  args.m = m.data<float>();
  args.v = v.data<float>();
  args.beta1 = static_cast<float>(options.beta1);
  args.beta2 = static_cast<float>(options.beta2);
  args.eps = static_cast<float>(options.eps);
  const double step = static_cast<double>(options.step);
  args.bias_correction1 = static_cast<float>(1 - std::pow(options.beta1, step));
  args.bias_correction2 = static_cast<float>(1 - std::pow(options.beta2, step));
  adamw(parameters.values.device(), args);
}

void Sgd(const FlatParameters& parameters, const Tensor& momentum, const SgdOptions& options) {
  CheckBuffers("sgd", parameters);
  CHECK(momentum.defined() ? momentum.numel() == parameters.values.numel() : options.momentum == 0)
      << "sgd: momentum " << options.momentum << " in " << Describe(momentum);
  if (parameters.ranges.empty()) return;
  SgdArgs args{ArgsOf(parameters, options.lr, options.grad_scale, options.ema_decay)};
  args.momentum = momentum.defined() ? momentum.data<float>() : nullptr;
  args.momentum_decay = static_cast<float>(options.momentum);
  args.nesterov = options.nesterov;
  sgd(parameters.values.device(), args);
}

}  // namespace ops
}  // namespace tessera
