// The products of DaViT-Tiny's linears at 224 px, batch 8, in GFLOP/s.
#include <benchmark/benchmark.h>

#include "core/random.h"
#include "tensor/ops/cast/cast.h"
#include "tensor/ops/matmul/matmul.h"

namespace tessera {
namespace {

Tensor Random(const Shape& shape, DType dtype) {
  RandomStream random(1, Purpose::kTest);
  const Tensor t = Tensor::Empty(shape, DType::kF32);
  for (int64_t i = 0; i < t.numel(); ++i) {
    t.data<float>()[i] = static_cast<float>(random.Next()) * 0x1p-31f - 1.0f;
  }
  return ops::Cast(t, dtype);
}

enum Pass { kForward, kGradInput, kGradWeight };

// Arguments: tokens, in, out, pass, 1 for bf16.
void BM_Linear(benchmark::State& state) {
  const int64_t tokens = state.range(0), in = state.range(1), out = state.range(2);
  const DType dtype = state.range(4) == 0 ? DType::kF32 : DType::kBF16;
  const Tensor x = Random({tokens, in}, dtype), w = Random({out, in}, dtype);
  const Tensor y = Random({tokens, out}, dtype), bias = Random({out}, DType::kF32);
  const Tensor dw = Random({out, in}, DType::kF32);
  for (auto _ : state) {
    if (state.range(3) == kForward) benchmark::DoNotOptimize(ops::Linear(x, w, bias, dtype));
    if (state.range(3) == kGradInput) ops::LinearGradInput(y, w, x, false);
    if (state.range(3) == kGradWeight) ops::LinearGradWeight(y, x, dw, false);
  }
  state.counters["GFLOP/s"] =
      benchmark::Counter(2e-9 * static_cast<double>(tokens * in * out * state.iterations()),
                         benchmark::Counter::kIsRate);
}

void Linears(benchmark::internal::Benchmark* b) {
  constexpr struct {
    int64_t tokens, channels;
  } kStages[] = {{25088, 96}, {6272, 192}, {1568, 384}, {392, 768}};
  b->ArgNames({"tokens", "in", "out", "pass", "bf16"})->UseRealTime();
  for (const int64_t bf16 : {0, 1}) {
    for (const int64_t pass : {kForward, kGradInput, kGradWeight}) {
      for (const auto& [tokens, c] : kStages) {
        b->Args({tokens, c, 3 * c, pass, bf16})->Args({tokens, c, c, pass, bf16});
        b->Args({tokens, c, 4 * c, pass, bf16})->Args({tokens, 4 * c, c, pass, bf16});
      }
    }
  }
}
BENCHMARK(BM_Linear)->Apply(Linears);

}  // namespace
}  // namespace tessera

BENCHMARK_MAIN();
