// The network behind position biases on GPUs: hidden values are computed where they are used.
#include "attention/aggregated/log_cpb_kernel.h"
#include "core/cuda/device.h"
#include "core/cuda/launch.h"

namespace tessera {
namespace {

constexpr int kThreads = 128;

// Hidden unit u at an entry of the table, before ReLU.
DEVICE float Hidden(const LogCpbArgs& args, int64_t u, float y, float x) {
  return fmaf(args.fc1[2 * u], y, fmaf(args.fc1[2 * u + 1], x, args.fc1_bias[u]));
}

// A thread for an entry of a head.
KERNEL(kThreads) Forward(LogCpbArgs args) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t entries = args.m * args.n;
  if (i >= args.num_heads * entries) return;
  const int64_t head = i / entries;
  const float y = args.y[i % entries / args.n], x = args.x[i % args.n];
  const float* fc2 = args.fc2 + head * args.hidden;
  float sum = args.fc2_bias[head];
  for (int64_t u = 0; u < args.hidden; ++u) {
    sum = fmaf(fc2[u], fmaxf(Hidden(args, u, y, x), 0.0f), sum);
  }
  args.out[i] = sum;
}

// A block for a hidden unit.
KERNEL(kThreads) BackwardUnit(LogCpbGradArgs args) {
  const LogCpbArgs& f = args.forward;
  const int64_t u = blockIdx.x, entries = f.m * f.n;
  float d_y = 0, d_x = 0, d_bias = 0;
  for (int64_t i = threadIdx.x; i < entries; i += kThreads) {
    const float y = f.y[i / f.n], x = f.x[i % f.n];
    if (Hidden(f, u, y, x) <= 0.0f) continue;
    float d = 0;
    for (int64_t head = 0; head < f.num_heads; ++head) {
      d = fmaf(args.d_out[head * entries + i], f.fc2[head * f.hidden + u], d);
    }
    d_y = fmaf(d, y, d_y);
    d_x = fmaf(d, x, d_x);
    d_bias += d;
  }
  d_y = BlockSum<kThreads>(d_y);
  d_x = BlockSum<kThreads>(d_x);
  d_bias = BlockSum<kThreads>(d_bias);
  if (threadIdx.x == 0) {
    args.d_fc1[2 * u] = d_y;
    args.d_fc1[2 * u + 1] = d_x;
    args.d_fc1_bias[u] = d_bias;
  }
  for (int64_t head = 0; head < f.num_heads; ++head) {
    float sum = 0;
    for (int64_t i = threadIdx.x; i < entries; i += kThreads) {
      const float hidden = fmaxf(Hidden(f, u, f.y[i / f.n], f.x[i % f.n]), 0.0f);
      sum = fmaf(args.d_out[head * entries + i], hidden, sum);
    }
    sum = BlockSum<kThreads>(sum);
    if (threadIdx.x == 0) args.d_fc2[head * f.hidden + u] = sum;
  }
}

// A block for a head.
KERNEL(kThreads) BackwardHead(LogCpbGradArgs args) {
  const int64_t entries = args.forward.m * args.forward.n;
  const float* d_out = args.d_out + blockIdx.x * entries;
  float sum = 0;
  for (int64_t i = threadIdx.x; i < entries; i += kThreads) sum += d_out[i];
  sum = BlockSum<kThreads>(sum);
  if (threadIdx.x == 0) args.d_fc2_bias[blockIdx.x] = sum;
}

void LogCpbForwardCuda(const LogCpbArgs& args) {
  Launch<Forward>({.x = CeilDiv(args.num_heads * args.m * args.n, kThreads)}, {.x = kThreads}, 0,
                  CurrentStream(), args);
}

void LogCpbBackwardCuda(const LogCpbGradArgs& args) {
  Launch<BackwardUnit>({.x = args.forward.hidden}, {.x = kThreads}, 0, CurrentStream(), args);
  Launch<BackwardHead>({.x = args.forward.num_heads}, {.x = kThreads}, 0, CurrentStream(), args);
}

REGISTER_CUDA_KERNEL(log_cpb_forward, LogCpbForwardCuda);
REGISTER_CUDA_KERNEL(log_cpb_backward, LogCpbBackwardCuda);

}  // namespace
}  // namespace tessera
