// Every registered attention mechanism at the four stages of DaViT-Tiny: 224 px, batch 8. GF/s
// count the multiply-adds of the definition, twice as many for the backward pass, which computes
// some of them again.
#include <benchmark/benchmark.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "attention/registry.h"
#include "autograd/tape.h"
#include "core/random.h"
#include "tensor/ops/cast/cast.h"

namespace tessera {
namespace {

constexpr AttentionSize kStages[] = {
    {8, 56, 56, 3, 32}, {8, 28, 28, 6, 32}, {8, 14, 14, 12, 32}, {8, 7, 7, 24, 32}};

Tensor Random(const Shape& shape, DType dtype) {
  RandomStream random(1, Purpose::kTest);
  const Tensor t = Tensor::Empty(shape, DType::kF32);
  for (int64_t i = 0; i < t.numel(); ++i) {
    t.data<float>()[i] = static_cast<float>(random.Next()) * 0x1p-31f - 1.0f;
  }
  return ops::Cast(t, dtype);
}

std::vector<Tensor> RandomInputs(const AttentionProblem& problem, DType dtype) {
  std::vector<Tensor> inputs;
  for (const auto& input : problem.inputs) {
    inputs.push_back(Random(input.shape, input.parameter ? DType::kF32 : dtype));
  }
  return inputs;
}

void ReportFlops(benchmark::State& state, double flops) {
  state.counters["GF/s"] =
      benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void Forward(benchmark::State& state, const AttentionProblem& problem, DType dtype) {
  const std::vector<Tensor> inputs = RandomInputs(problem, dtype);
  for (auto _ : state) benchmark::DoNotOptimize(problem.forward(inputs));
  ReportFlops(state, 2 * problem.multiply_adds);
}

void Backward(benchmark::State& state, const AttentionProblem& problem, DType dtype) {
  std::vector<Tensor> inputs = RandomInputs(problem, dtype);
  Tensor d_out;
  for (auto _ : state) {
    state.PauseTiming();
    {
      Tape tape;
      // The gradient of an operand must stay in its own dtype, so it is no leaf but made from one.
      std::vector<Tensor> leaves(inputs.size());
      for (size_t k = 0; k < inputs.size(); ++k) {
        leaves[k] = Tensor::Zeros({1}, DType::kF32);
        tape.Watch(leaves[k], Tensor::Zeros({1}, DType::kF32), false);
        inputs[k] = inputs[k].Detach();
        Record("input", {&leaves[k]}, {&inputs[k]}, [](GradContext&) {});
      }
      Tensor out = problem.forward(inputs);
      if (!d_out.defined()) d_out = Random(out.shape(), dtype);
      Tensor loss = Tensor::Zeros({}, DType::kF32);
      Record("loss", {&out}, {&loss}, [d_out](GradContext& g) { g.Add(0, d_out); });
      state.ResumeTiming();
      tape.Backward(loss);
      state.PauseTiming();
    }
    state.ResumeTiming();
  }
  ReportFlops(state, 4 * problem.multiply_adds);
}

void RegisterAll() {
  const struct {
    std::string name;
    void (*run)(benchmark::State& state, const AttentionProblem& problem, DType dtype);
  } passes[] = {{"forward", Forward}, {"backward", Backward}};
  for (const AttentionMechanism& mechanism : AllAttentionMechanisms()) {
    for (const auto& [pass, run] : passes) {
      for (const DType dtype : {DType::kF32, DType::kBF16}) {
        for (int stage = 0; stage < 4; ++stage) {
          const std::string name =
              absl::StrCat(mechanism.name, "/", pass, "/", Name(dtype), "/stage:", stage);
          benchmark::RegisterBenchmark(name.c_str(), run, mechanism.problem(kStages[stage]), dtype)
              ->UseRealTime()
              ->Unit(benchmark::kMillisecond);
        }
      }
    }
  }
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  tessera::RegisterAll();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
