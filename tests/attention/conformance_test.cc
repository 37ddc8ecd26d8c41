// What every registered attention mechanism must fulfil, on every instruction set: values and
// gradients of the double-precision reference in f32 and bf16, at odd sizes, with outputs poisoned
// before they are written, and the same bits for any number of threads.
#include <map>
#include <memory>

#include "absl/strings/str_cat.h"
#include "attention/registry.h"
#include "autograd/tape.h"
#include "tensor/ops/cast/cast.h"
#include "tests/op_testing.h"

namespace tessera {
namespace {

// Maps that are no multiple of anything, smaller than a tile and larger, and all kinds of head_dim.
const AttentionSize kSizes[] = {
    {2, 9, 8, 2, 5},  {1, 3, 2, 1, 1}, {1, 7, 14, 3, 32}, {1, 15, 10, 2, 17}, {2, 7, 7, 1, 48},
    {1, 8, 7, 2, 64}, {1, 1, 1, 2, 3}, {3, 13, 1, 1, 16}, {1, 23, 25, 1, 8},
};

// Rounded to bf16, so that f32 and bf16 runs compute the same function of the same numbers.
std::vector<Tensor> RandomInputs(const AttentionProblem& problem) {
  std::vector<Tensor> inputs;
  for (const auto& input : problem.inputs) {
    const Tensor values =
        RandomTensor(input.shape, DType::kF32, 1 + inputs.size(), -input.scale, input.scale);
    inputs.push_back(ops::Cast(ops::Cast(values, DType::kBF16), DType::kF32));
  }
  return inputs;
}

struct Result {
  Tensor out;
  std::vector<Tensor> gradients;  // of sum(out * weights), one per input

  std::vector<Tensor> All() const {
    std::vector<Tensor> all = gradients;
    all.push_back(out);
    return all;
  }
};

// x in `dtype`, as a node, so that its gradient arrives as f32.
Tensor CastOnTape(const Tensor& x, DType dtype) {
  Tensor y = ops::Cast(x, dtype).Clone();
  Record("cast", {&x}, {&y}, [](GradContext& g) { g.Add(0, ops::Cast(g.out(), DType::kF32)); });
  return y;
}

Tensor WeightsOf(const Tensor& out) { return RandomTensor(out.shape(), DType::kBF16, 77); }

Result Differentiate(const AttentionProblem& problem, std::vector<Tensor> inputs, DType dtype) {
  Result result;
  Tape tape;
  std::vector<Tensor> operands;
  for (size_t k = 0; k < inputs.size(); ++k) {
    result.gradients.push_back(Tensor::Empty(inputs[k].shape(), DType::kF32));
    tape.Watch(inputs[k], result.gradients[k], /*accumulate=*/false);
    operands.push_back(problem.inputs[k].parameter ? inputs[k] : CastOnTape(inputs[k], dtype));
  }
  result.out = problem.forward(operands);
  Tensor loss = Tensor::Zeros({}, DType::kF32);
  Record("weighted_sum", {&result.out}, {&loss}, [out = result.out.Detach()](GradContext& g) {
    g.Add(0, ops::Cast(WeightsOf(out), out.dtype()));
  });
  if (result.out.numel() > 0) tape.Backward(loss);
  return result;
}

// The reference and its derivatives by central differences, whose error in double precision is far
// below that of any f32 kernel.
class Truth {
 public:
  explicit Truth(const AttentionProblem& problem) : problem_(problem) {
    for (const Tensor& input : RandomInputs(problem)) inputs_.push_back(ToDouble(input));
    const Tensor out = Differentiate(problem, RandomInputs(problem), DType::kF32).out;
    weights_ = ToDouble(WeightsOf(out));
    this->out.resize(weights_.size());
    Evaluate(this->out);
    for (auto& input : inputs_)
      elements.push_back(SomeElements(static_cast<int64_t>(input.size())));
    for (size_t k = 0; k < inputs_.size(); ++k) {
      gradients.emplace_back();
      for (const int64_t i : elements[k]) gradients[k].push_back(Derivative(inputs_[k][i]));
    }
  }

  std::vector<double> out;
  std::vector<std::vector<int64_t>> elements;  // of each input, those with known gradients
  std::vector<std::vector<double>> gradients;

 private:
  void Evaluate(std::vector<double>& result) const {
    std::vector<const double*> pointers;
    for (const auto& input : inputs_) pointers.push_back(input.data());
    problem_.reference(pointers, result.data());
  }

  double Loss() const {
    std::vector<double> result(weights_.size());
    Evaluate(result);
    double sum = 0;
    for (size_t i = 0; i < result.size(); ++i) sum += result[i] * weights_[i];
    return sum;
  }

  double Derivative(double& x) const {
    constexpr double kStep = 1e-4;
    const double before = x;
    x = before + kStep;
    const double above = Loss();
    x = before - kStep;
    const double below = Loss();
    x = before;
    return (above - below) / (2 * kStep);
  }

  // All elements of an input, or as many as time allows, spread evenly by a stride without a common
  // factor with the layout.
  std::vector<int64_t> SomeElements(int64_t n) const {
    const double budget = 4e7 / std::max(1.0, problem_.multiply_adds);
    const int64_t wanted = std::max<int64_t>(64, static_cast<int64_t>(budget));
    int64_t stride = std::max<int64_t>(1, n / wanted);
    while (stride > 1 && (n % stride == 0 || stride % 2 == 0)) ++stride;
    std::vector<int64_t> chosen;
    for (int64_t i = 0; i < n; i += stride) chosen.push_back(i);
    return chosen;
  }

  const AttentionProblem& problem_;
  mutable std::vector<std::vector<double>> inputs_;
  std::vector<double> weights_;
};

double RootMeanSquare(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v * v / static_cast<double>(values.size());
  return std::sqrt(sum);
}

// got[indices[i]] is expected[i] within `tolerance` of its own size and of what is usual, and within
// the rounding of terms of order 1 that cancel.
void ExpectAll(const Tensor& got, const std::vector<int64_t>& indices,
               const std::vector<double>& expected, double tolerance, const std::string& what) {
  const double usual = RootMeanSquare(expected);
  for (size_t i = 0; i < expected.size(); ++i) {
    const double bound = tolerance * (std::abs(expected[i]) + usual) + 1e-6;
    ASSERT_NEAR(At(got, indices[i]), expected[i], bound)
        << what << ": element " << indices[i] << " of " << got.shape();
  }
}

class AttentionConformance : public OnEveryTarget {
 protected:
  // References are the same for all instruction sets.
  static const Truth& TruthOf(const std::string& name, const AttentionProblem& problem) {
    static std::map<std::string, std::pair<AttentionProblem, std::unique_ptr<Truth>>> known;
    auto& [kept, truth] = known[name];
    if (truth == nullptr) {
      kept = problem;
      truth = std::make_unique<Truth>(kept);
    }
    return *truth;
  }

  static void ForEachProblem(
      const std::function<void(const std::string&, const AttentionProblem&)>& fn) {
    for (const AttentionMechanism& mechanism : AllAttentionMechanisms()) {
      for (const AttentionSize& s : kSizes) {
        fn(absl::StrCat(mechanism.name, " on ", s.batch, " maps ", s.height, "x", s.width, ", ",
                        s.num_heads, " heads of ", s.head_dim),
           mechanism.problem(s));
      }
    }
  }

  static void ExpectTruth(DType dtype, double tolerance, double gradient_tolerance) {
    ForEachProblem([&](const std::string& name, const AttentionProblem& problem) {
      const Truth& truth = TruthOf(name, problem);
      const Result result = Differentiate(problem, RandomInputs(problem), dtype);
      EXPECT_EQ(result.out.dtype(), dtype);
      std::vector<int64_t> all(truth.out.size());
      for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int64_t>(i);
      ExpectAll(result.out, all, truth.out, tolerance, name);
      for (size_t k = 0; k < truth.gradients.size(); ++k) {
        ExpectAll(result.gradients[k], truth.elements[k], truth.gradients[k], gradient_tolerance,
                  name + ", gradient of " + problem.inputs[k].name);
      }
    });
  }
};

TEST_P(AttentionConformance, SomeMechanismIsRegistered) {
  EXPECT_FALSE(AllAttentionMechanisms().empty());
}

TEST_P(AttentionConformance, F32ValuesAndGradientsMatchDoublePrecision) {
  ExpectTruth(DType::kF32, 5e-6, 1e-5);
}

TEST_P(AttentionConformance, BF16ValuesAndGradientsAreWithinRounding) {
  ExpectTruth(DType::kBF16, 0x1p-7, 0x1p-7);
}

TEST_P(AttentionConformance, GivesTheSameBitsForAnyNumberOfThreads) {
  ForEachProblem([&](const std::string& name, const AttentionProblem& problem) {
    SCOPED_TRACE(name);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      ExpectSameBitsForAnyThreads(
          [&] { return Differentiate(problem, RandomInputs(problem), dtype).All(); });
    }
  });
}

TEST_P(AttentionConformance, EmptyBatchesAndMapsGiveEmptyOutputs) {
  for (const AttentionMechanism& mechanism : AllAttentionMechanisms()) {
    for (const AttentionSize& size : {AttentionSize{0, 8, 9, 2, 4}, AttentionSize{2, 0, 5, 2, 4}}) {
      const AttentionProblem problem = mechanism.problem(size);
      const Result result = Differentiate(problem, RandomInputs(problem), DType::kF32);
      EXPECT_EQ(result.out.numel(), 0) << mechanism.name;
    }
  }
}

INSTANTIATE_ON_EVERY_TARGET(AttentionConformance);

}  // namespace
}  // namespace tessera
