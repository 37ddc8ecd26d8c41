// Elementwise and row-wise ops at the sizes of DaViT-Tiny: 224 px, batch 8.
#include <benchmark/benchmark.h>

#include <vector>

#include "core/random.h"
#include "tensor/ops/activation/activation.h"
#include "tensor/ops/add/add.h"
#include "tensor/ops/average_pool/average_pool.h"
#include "tensor/ops/batch_norm/batch_norm.h"
#include "tensor/ops/cast/cast.h"
#include "tensor/ops/column_sum/column_sum.h"
#include "tensor/ops/depthwise_conv/depthwise_conv.h"
#include "tensor/ops/dropout/dropout.h"
#include "tensor/ops/gelu_gate/gelu_gate.h"
#include "tensor/ops/gelu_pool/gelu_pool.h"
#include "tensor/ops/layer_norm/layer_norm.h"
#include "tensor/ops/mean_pool/mean_pool.h"
#include "tensor/ops/optimizer/optimizer.h"
#include "tensor/ops/residual/residual.h"
#include "tensor/ops/scale_columns/scale_columns.h"
#include "tensor/ops/softmax/softmax.h"
#include "tensor/ops/squared_norm/squared_norm.h"
#include "tensor/ops/top_k/top_k.h"

namespace tessera {
namespace {

Tensor Random(const Shape& shape, DType dtype = DType::kF32) {
  RandomStream random(1, Purpose::kTest);
  const Tensor t = Tensor::Empty(shape, DType::kF32);
  for (int64_t i = 0; i < t.numel(); ++i) {
    t.data<float>()[i] = static_cast<float>(random.Next()) * 0x1p-31f - 1.0f;
  }
  return ops::Cast(t, dtype);
}

DType DTypeArg(const benchmark::State& state, int index) {
  return state.range(index) == 0 ? DType::kF32 : DType::kBF16;
}

void Bytes(benchmark::State& state, int64_t bytes) {
  state.SetBytesProcessed(state.iterations() * bytes);
}

constexpr int64_t kHidden = 25088 * 384;

void BM_AddInPlace(benchmark::State& state) {
  const Tensor y = Random({kHidden}), x = Random({kHidden});
  for (auto _ : state) ops::AddInPlace(y, x);
  Bytes(state, 12 * kHidden);
}
BENCHMARK(BM_AddInPlace)->UseRealTime();

void BM_CastToBF16(benchmark::State& state) {
  const Tensor x = Random({kHidden}), y = Random({kHidden}, DType::kBF16);
  for (auto _ : state) ops::CastTo(x, y);
  Bytes(state, 6 * kHidden);
}
BENCHMARK(BM_CastToBF16)->UseRealTime();

void BM_CastToF32(benchmark::State& state) {
  const Tensor x = Random({kHidden}, DType::kBF16), y = Random({kHidden});
  for (auto _ : state) ops::CastTo(x, y);
  Bytes(state, 6 * kHidden);
}
BENCHMARK(BM_CastToF32)->UseRealTime();

// Arguments: rows, channels, 1 if y (or dy) is bf16.
void NormSizes(benchmark::internal::Benchmark* b) {
  for (const int64_t bf16 : {0, 1}) {
    b->Args({25088, 96, bf16})->Args({6272, 192, bf16})->Args({1568, 384, bf16});
    b->Args({392, 768, bf16});
  }
  b->UseRealTime();
}

void BM_LayerNorm(benchmark::State& state) {
  const Tensor x = Random({state.range(0), state.range(1)});
  const Tensor gamma = Random({state.range(1)}), beta = Random({state.range(1)});
  const DType dtype = DTypeArg(state, 2);
  for (auto _ : state) benchmark::DoNotOptimize(ops::LayerNorm(x, gamma, beta, 1e-5f, dtype));
  Bytes(state, x.numel() * (4 + SizeOf(dtype)));
}
BENCHMARK(BM_LayerNorm)->Apply(NormSizes);

void BM_LayerNormBackward(benchmark::State& state) {
  const Tensor x = Random({state.range(0), state.range(1)});
  const DType dtype = DTypeArg(state, 2);
  const Tensor dy = Random(x.shape(), dtype);
  const Tensor gamma = Random({state.range(1)});
  const auto result = ops::LayerNorm(x, gamma, gamma, 1e-5f, dtype);
  const ops::LayerNormGradients gradients{Random(x.shape()), Random(gamma.shape()),
                                          Random(gamma.shape())};
  for (auto _ : state) {
    ops::LayerNormBackward(dy, x, result.mean, result.rstd, gamma, gradients);
  }
  Bytes(state, x.numel() * (8 + SizeOf(dtype)));
}
BENCHMARK(BM_LayerNormBackward)->Apply(NormSizes);

// Arguments: side of the map, channels, kernel, stride, 1 for bf16; batch 8.
void MapSizes(benchmark::internal::Benchmark* b) {
  for (const int64_t bf16 : {0, 1}) {
    b->Args({56, 96, 3, 1, bf16})->Args({28, 192, 3, 1, bf16})->Args({14, 384, 3, 1, bf16});
    b->Args({7, 768, 3, 1, bf16});
    b->Args({56, 64, 5, 1, bf16})->Args({28, 128, 5, 1, bf16})->Args({14, 256, 5, 1, bf16});
    b->Args({7, 512, 5, 1, bf16})->Args({56, 64, 7, 1, bf16})->Args({112, 256, 3, 2, bf16});
  }
  b->UseRealTime();
}

struct DepthwiseProblem {
  explicit DepthwiseProblem(const benchmark::State& state)
      : geometry(Conv2dGeometry::Centred(state.range(2), state.range(3))),
        x(Random({8, state.range(0), state.range(0), state.range(1)}, DTypeArg(state, 4))),
        weight(Random({state.range(1), 1, state.range(2), state.range(2)})),
        bias(Random({state.range(1)})),
        y(ops::DepthwiseConv(x, weight, bias, geometry, residual())) {}
  bool residual() const { return geometry.stride == 1; }
  void Report(benchmark::State& state) const {
    Bytes(state, x.bytes() + y.bytes());
    state.counters["GF/s"] =
        benchmark::Counter(2e-9 * static_cast<double>(y.numel() * state.range(2) * state.range(2)),
                           benchmark::Counter::kIsIterationInvariantRate);
  }

  Conv2dGeometry geometry;
  Tensor x, weight, bias, y;
};

void BM_DepthwiseConv(benchmark::State& state) {
  const DepthwiseProblem p(state);
  for (auto _ : state) {
    benchmark::DoNotOptimize(ops::DepthwiseConv(p.x, p.weight, p.bias, p.geometry, p.residual()));
  }
  p.Report(state);
}
BENCHMARK(BM_DepthwiseConv)->Apply(MapSizes);

void BM_DepthwiseConvGradInput(benchmark::State& state) {
  const DepthwiseProblem p(state);
  for (auto _ : state) {
    ops::DepthwiseConvGradInput(p.y, p.weight, p.geometry, p.residual(), p.x, false);
  }
  p.Report(state);
}
BENCHMARK(BM_DepthwiseConvGradInput)->Apply(MapSizes);

void BM_DepthwiseConvGradWeight(benchmark::State& state) {
  const DepthwiseProblem p(state);
  const ops::DepthwiseConvGradients gradients{p.weight, p.bias};
  for (auto _ : state) {
    ops::DepthwiseConvGradWeight(p.y, p.x, state.range(2), p.geometry, gradients);
  }
  p.Report(state);
}
BENCHMARK(BM_DepthwiseConvGradWeight)->Apply(MapSizes);

// Argument: 1 for bf16.
void BM_Gelu(benchmark::State& state) {
  const Tensor x = Random({kHidden}, DTypeArg(state, 0)), y = x.Clone();
  for (auto _ : state) ops::ActivateTo(x, Activation::kGelu, y);
  Bytes(state, 2 * x.bytes());
}
BENCHMARK(BM_Gelu)->Arg(0)->Arg(1)->UseRealTime();

void BM_GeluBackward(benchmark::State& state) {
  const Tensor x = Random({25088, 384}, DTypeArg(state, 0)), dy = x.Clone();
  const Tensor dbias = Random({384});
  for (auto _ : state) ops::ActivateBackward(dy, x, Activation::kGelu, {.dx = dy, .dbias = dbias});
  Bytes(state, 3 * x.bytes());
}
BENCHMARK(BM_GeluBackward)->Arg(0)->Arg(1)->UseRealTime();

// Maps of MaxViT-Tiny's first stage; argument: 1 for bf16.
struct BatchNormProblem {
  explicit BatchNormProblem(const benchmark::State& state)
      : x(Random({8, 56, 56, 256}, DTypeArg(state, 0))),
        dy(x.Clone()),
        gate{Random({8, 256}), Random({8, 256})} {
    transform = {
        .statistics = ops::BatchNormStatisticsOf(ops::BatchNormSums(x), x.numel() / 256, 1e-3f,
                                                 {Random({256}), Random({256})}, 0.0),
        .gamma = Random({256}),
        .beta = Random({256}),
        .activation = Activation::kGeluTanh};
  }
  Tensor x, dy;
  ops::BatchNormGate gate;
  ops::BatchNormTransform transform;
};

void BM_BatchNormSums(benchmark::State& state) {
  const BatchNormProblem p(state);
  for (auto _ : state) benchmark::DoNotOptimize(ops::BatchNormSums(p.x));
  Bytes(state, p.x.bytes());
}
BENCHMARK(BM_BatchNormSums)->Arg(0)->Arg(1)->UseRealTime();

void BM_BatchNorm(benchmark::State& state) {
  const BatchNormProblem p(state);
  for (auto _ : state) {
    benchmark::DoNotOptimize(ops::BatchNorm(p.x, p.transform, p.gate, p.x.dtype()));
  }
  Bytes(state, 2 * p.x.bytes());
}
BENCHMARK(BM_BatchNorm)->Arg(0)->Arg(1)->UseRealTime();

void BM_BatchNormGateSums(benchmark::State& state) {
  const BatchNormProblem p(state);
  for (auto _ : state) benchmark::DoNotOptimize(ops::BatchNormGateSums(p.dy, p.x, p.transform));
  Bytes(state, 2 * p.x.bytes());
}
BENCHMARK(BM_BatchNormGateSums)->Arg(0)->Arg(1)->UseRealTime();

void BM_BatchNormGradInput(benchmark::State& state) {
  const BatchNormProblem p(state);
  const Tensor sums = Random({2, 256}), dx = p.x.Clone();
  for (auto _ : state) {
    ops::BatchNormGradInput(p.dy, p.x, p.transform, p.gate, sums, p.x.numel() / 256, dx, false);
  }
  Bytes(state, 3 * p.x.bytes());
}
BENCHMARK(BM_BatchNormGradInput)->Arg(0)->Arg(1)->UseRealTime();

void BM_GeluGateBackward(benchmark::State& state) {
  const DType dtype = DTypeArg(state, 0);
  const Tensor dy = Random({kHidden}, dtype), x = Random({kHidden}, dtype);
  const Tensor gate = Random({kHidden}, dtype);
  for (auto _ : state) ops::GeluGateBackwardInPlace(dy, x, gate);
  Bytes(state, 6 * x.bytes());
}
BENCHMARK(BM_GeluGateBackward)->Arg(0)->Arg(1)->UseRealTime();

void BM_GeluPool(benchmark::State& state) {
  const Tensor x = Random({8, 56, 56, 384}, DTypeArg(state, 0));
  for (auto _ : state) benchmark::DoNotOptimize(ops::GeluPool(x, 7, 7));
  Bytes(state, x.bytes());
}
BENCHMARK(BM_GeluPool)->Arg(0)->Arg(1)->UseRealTime();

constexpr int64_t kParameters = 28'360'168;  // of DaViT-Tiny

// Argument: 1 to write the bf16 copy, 2 to update the moving average too.
void BM_AdamW(benchmark::State& state) {
  const Tensor p = Random({kParameters}), g = Random({kParameters});
  const Tensor m = Tensor::Zeros({kParameters}, DType::kF32), v = m.Clone();
  const std::vector<ParameterRange> ranges = {{0, kParameters, 0.05f, 1.0f}};
  const ops::FlatParameters parameters{p, g,
                                       state.range(0) > 0 ? ops::Cast(p, DType::kBF16) : Tensor(),
                                       state.range(0) > 1 ? p.Clone() : Tensor(), ranges};
  for (auto _ : state) ops::AdamW(parameters, m, v, {.lr = 1e-3, .step = 10});
  Bytes(state, kParameters * (28 + (state.range(0) > 0 ? 2 : 0) + (state.range(0) > 1 ? 8 : 0)));
}
BENCHMARK(BM_AdamW)->Arg(0)->Arg(1)->Arg(2)->UseRealTime();

void BM_SquaredNorm(benchmark::State& state) {
  const Tensor g = Random({kParameters});
  for (auto _ : state) benchmark::DoNotOptimize(ops::SquaredNorm(g));
  Bytes(state, 4 * kParameters);
}
BENCHMARK(BM_SquaredNorm)->UseRealTime();

// Argument: 1 if the branch is bf16.
void BM_AddResidual(benchmark::State& state) {
  const Tensor x = Random({8, 56 * 56, 96}), y = x.Clone();
  const Tensor r = Random(x.shape(), DTypeArg(state, 0)), scale = Random({8});
  for (auto _ : state) ops::AddResidualTo(x, r, scale, y);
  Bytes(state, x.bytes() + y.bytes() + r.bytes());
}
BENCHMARK(BM_AddResidual)->Arg(0)->Arg(1)->UseRealTime();

void BM_ScaleSamples(benchmark::State& state) {
  const Tensor x = Random({8, 56 * 56, 96}), scale = Random({8});
  const DType dtype = DTypeArg(state, 0);
  for (auto _ : state) benchmark::DoNotOptimize(ops::ScaleSamples(x, scale, dtype));
  Bytes(state, x.numel() * (4 + SizeOf(dtype)));
}
BENCHMARK(BM_ScaleSamples)->Arg(0)->Arg(1)->UseRealTime();

void BM_AveragePool(benchmark::State& state) {
  const Tensor x = Random({8, 56, 56, 64});
  for (auto _ : state) benchmark::DoNotOptimize(ops::AveragePool(x, DType::kF32));
  Bytes(state, x.bytes() * 5 / 4);
}
BENCHMARK(BM_AveragePool)->UseRealTime();

void BM_MeanPool(benchmark::State& state) {
  const Tensor x = Random({8, 7, 7, 768});
  for (auto _ : state) benchmark::DoNotOptimize(ops::MeanPool(x));
  Bytes(state, x.bytes());
}
BENCHMARK(BM_MeanPool)->UseRealTime();

// Argument: 1 for bf16.
void BM_Dropout(benchmark::State& state) {
  const Tensor x = Random({kHidden}, DTypeArg(state, 0));
  for (auto _ : state) ops::DropoutTo(x, 0.1, RandomKey(1, Purpose::kDropout), x);
  Bytes(state, 2 * x.bytes());
}
BENCHMARK(BM_Dropout)->Arg(0)->Arg(1)->UseRealTime();

// Arguments: rows, columns, 1 for bf16.
void BM_ColumnSum(benchmark::State& state) {
  const Tensor x = Random({state.range(0), state.range(1)}, DTypeArg(state, 2));
  const Tensor sum = Random({state.range(1)});
  for (auto _ : state) ops::ColumnSum(x, sum, false);
  Bytes(state, x.bytes());
}
BENCHMARK(BM_ColumnSum)
    ->Args({25088, 96, 0})
    ->Args({25088, 288, 1})
    ->Args({392, 3072, 1})
    ->UseRealTime();

void BM_ScaleColumnsBackward(benchmark::State& state) {
  const Tensor dy = Random({25088, 96}, DTypeArg(state, 0)), x = Random({25088, 96}, dy.dtype());
  const Tensor scale = Random({96}), dscale = Random({96});
  for (auto _ : state) ops::ScaleColumnsBackward(dy, x, scale, dy, dscale, false);
  Bytes(state, 3 * x.bytes());
}
BENCHMARK(BM_ScaleColumnsBackward)->Arg(0)->Arg(1)->UseRealTime();

void BM_SoftmaxTopK(benchmark::State& state) {
  const Tensor x = Random({256, 1000});
  for (auto _ : state) benchmark::DoNotOptimize(ops::TopK(ops::Softmax(x), 5));
  Bytes(state, 3 * x.bytes());
}
BENCHMARK(BM_SoftmaxTopK)->UseRealTime();

}  // namespace
}  // namespace tessera

BENCHMARK_MAIN();
