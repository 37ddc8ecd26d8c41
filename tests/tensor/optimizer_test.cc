#include "tensor/ops/optimizer/optimizer.h"

#include "tests/op_testing.h"

namespace tessera {
namespace {

constexpr int64_t kSize = 70001;  // more than two pieces of work, and a tail
constexpr double kGradScale = 0.37;
constexpr double kEmaDecay = 0.9;
constexpr int kSteps = 5;

// Elements [60, 100) and the last one belong to no range.
std::vector<ParameterRange> Ranges() {
  return {{0, 17, 0.1f, 1.0f},
          {17, 60, 0.0f, 0.5f},
          {100, 40000, 0.05f, 1.0f},
          {40000, kSize - 1, 0.0f, 1.0f}};
}

struct Buffers {
  Buffers()
      : values(RandomTensor({kSize}, DType::kF32, 1)),
        bf16(Tensor::Zeros({kSize}, DType::kBF16)),
        ema(values.Clone()),
        m(Tensor::Zeros({kSize}, DType::kF32)),
        v(Tensor::Zeros({kSize}, DType::kF32)),
        ranges(Ranges()) {}
  static Tensor Grads(int step) { return RandomTensor({kSize}, DType::kF32, 100 + step); }
  ops::FlatParameters Parameters(const Tensor& grads, bool copies) const {
    return {values, grads, copies ? bf16 : Tensor(), copies ? ema : Tensor(), ranges};
  }
  Tensor values, bf16, ema, m, v;
  std::vector<ParameterRange> ranges;
};

// Calls update(p, g, m, v, range) -> new p for every element of every range, for kSteps steps, in
// double; checks the buffers against the outcome.
template <typename Update>
void ExpectMatches(const Buffers& got, bool copies, const Update& update) {
  const Buffers start;
  std::vector<double> p = ToDouble(start.values), ema = p, m(kSize), v(kSize), bf16(kSize);
  for (int step = 1; step <= kSteps; ++step) {
    const Tensor grads = Buffers::Grads(step);
    for (const ParameterRange& range : start.ranges) {
      for (int64_t i = range.begin; i < range.end; ++i) {
        p[i] = update(p[i], kGradScale * At(grads, i), m[i], v[i], range, step);
        ema[i] = kEmaDecay * ema[i] + (1 - kEmaDecay) * p[i];
        bf16[i] = p[i];
      }
    }
  }
  ExpectClose(got.values, p, 2e-6);
  ExpectClose(got.m, m, 2e-6);
  ExpectClose(got.v, v, 2e-6);
  if (!copies) return;
  ExpectClose(got.ema, ema, 2e-6);
  ExpectClose(got.bf16, bf16, 2e-6);
}

class Optimizer : public OnEveryTarget {};

TEST_P(Optimizer, AdamWMatchesDoublePrecision) {
  const double lr = 0.01, beta1 = 0.8, beta2 = 0.95, eps = 1e-3;
  for (const bool copies : {false, true}) {
    const Buffers b;
    for (int step = 1; step <= kSteps; ++step) {
      ops::AdamW(b.Parameters(Buffers::Grads(step), copies), b.m, b.v,
                 {lr, step, beta1, beta2, eps, kGradScale, kEmaDecay});
    }
    ExpectMatches(b, copies,
                  [=](double p, double g, double& m, double& v, const ParameterRange& r, int step) {
                    m = beta1 * m + (1 - beta1) * g;
                    v = beta2 * v + (1 - beta2) * g * g;
                    const double m_hat = m / (1 - std::pow(beta1, step));
                    const double v_hat = v / (1 - std::pow(beta2, step));
                    const double rate = lr * r.lr_scale;
                    return p * (1 - rate * r.weight_decay) -
                           rate * m_hat / (std::sqrt(v_hat) + eps);
                  });
  }
}

TEST_P(Optimizer, SgdMatchesDoublePrecision) {
  const double lr = 0.1;
  for (const double momentum : {0.0, 0.9}) {
    for (const bool nesterov : {false, true}) {
      const Buffers b;
      for (int step = 1; step <= kSteps; ++step) {
        ops::Sgd(b.Parameters(Buffers::Grads(step), true), momentum == 0 ? Tensor() : b.m,
                 {lr, momentum, nesterov, kGradScale, kEmaDecay});
      }
      ExpectMatches(b, true,
                    [=](double p, double g, double& m, double&, const ParameterRange& r, int) {
                      g += r.weight_decay * p;
                      if (momentum == 0) return p - lr * r.lr_scale * g;
                      m = momentum * m + g;
                      return p - lr * r.lr_scale * (nesterov ? g + momentum * m : m);
                    });
    }
  }
}

TEST_P(Optimizer, ZerosStayZeros) {
  const std::vector<ParameterRange> ranges = {{0, 33, 0.1f, 1.0f}};
  const Tensor zeros = Tensor::Zeros({33}, DType::kF32), p = zeros.Clone();
  ops::AdamW({p, zeros, Tensor(), Tensor(), ranges}, zeros.Clone(), zeros.Clone(),
             {.lr = 1, .step = 1});
  ExpectClose(p, std::vector<double>(33), 0);
}

TEST_P(Optimizer, NoParametersAreFine) {
  const Tensor none = Tensor::Empty({0}, DType::kF32);
  ops::AdamW({none, none, Tensor(), Tensor(), {}}, none, none, {.lr = 1, .step = 1});
  ops::Sgd({none, none, Tensor(), Tensor(), {}}, Tensor(), {.lr = 1});
}

INSTANTIATE_ON_EVERY_TARGET(Optimizer);

}  // namespace
}  // namespace tessera
