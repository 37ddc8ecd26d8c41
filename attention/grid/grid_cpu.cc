// Block and grid attention on the CPU: one tile per group and head, found by addressing, never
// copied together.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention/grid/grid_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "attention/grid/grid_kernel.h"
#include "attention/tile-inl.h"
#include "core/parallel.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/partial_sums.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

float ScaleOf(const GridAttentionShape& shape) {
  return 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
}

// What all tiles of a call share: distances of a group's tokens from its first one, and the bias in
// rows of whole vectors, divided by the scale of the logits.
class Common {
 public:
  Common(const GridAttentionShape& shape, const float* bias)
      : key_stride_(RoundToVectors(shape.tokens())),
        head_size_(shape.tokens() * key_stride_),
        offsets_(Tensor::Empty({shape.tokens()}, DType::kI64)),
        bias_(Tensor::Empty({shape.num_heads * head_size_}, DType::kF32)) {
    int64_t* offset = offsets_.data<int64_t>();
    for (int64_t i = 0; i < shape.rows; ++i) {
      for (int64_t j = 0; j < shape.columns; ++j) {
        *offset++ = i * shape.step_down() * shape.width + j * shape.step_across();
      }
    }
    const int64_t n = shape.tokens();
    const float inverse_scale = 1.0f / ScaleOf(shape);
    for (int64_t row = 0; row < shape.num_heads * n; ++row) {
      LoadRow(bias + row * n, n, key_stride_, inverse_scale,
              bias_.data<float>() + row * key_stride_);
    }
  }
  const int64_t* offsets() const { return offsets_.data<int64_t>(); }
  const float* bias(int64_t head) const { return bias_.data<float>() + head * head_size_; }
  int64_t key_stride() const { return key_stride_; }
  int64_t head_size() const { return head_size_; }  // floats of a head's bias

 private:
  int64_t key_stride_, head_size_;
  Tensor offsets_, bias_;
};

template <typename T>
TileInput<T> Tile(const GridAttentionShape& shape, const Common& common, int64_t index,
                  const void* qkv) {
  const int64_t channels = shape.channels(), head = index % shape.num_heads;
  const int64_t pixel = shape.FirstPixel(index / shape.num_heads);
  const T* token = static_cast<const T*>(qkv) + pixel * 3 * channels;
  return {.tokens = common.offsets(),
          .num_tokens = shape.tokens(),
          .head_dim = shape.head_dim,
          .q = token + shape.PartChannel(head, 0),
          .k = token + shape.PartChannel(head, 1),
          .v = token + shape.PartChannel(head, 2),
          .stride = 3 * channels,
          .out_offset = pixel * channels + head * shape.head_dim,
          .out_stride = channels,
          .scale = ScaleOf(shape),
          .bias = common.bias(head)};
}

// Calls fn(chunk, head, tile) for all groups and heads; chunks are of `grain` groups. Heads of a
// group follow each other, as in memory.
template <typename T, typename Fn>
void ForEachTile(const GridAttentionShape& shape, const Common& common, const void* qkv,
                 int64_t grain, const Fn& fn) {
  ParallelFor(shape.groups(), grain, [&](int64_t first, int64_t last) HWY_ATTR {
    const int64_t begin = first * shape.num_heads, end = last * shape.num_heads;
    TileInput<T> tile = Tile<T>(shape, common, begin, qkv);
    for (int64_t i = begin; i < end; ++i) {
      const TileInput<T> next = Tile<T>(shape, common, std::min(i + 1, end - 1), qkv);
      tile.next = &next;
      fn(first / grain, i % shape.num_heads, tile);
      tile = next;
    }
  });
}

template <typename T>
void Forward(const GridAttentionArgs& args) {
  const Common common(args.shape, args.bias);
  const int64_t grain = std::clamp<int64_t>(args.shape.groups() / 64, 1, 64);
  ForEachTile<T>(args.shape, common, args.qkv, grain,
                 [&](int64_t, int64_t, const TileInput<T>& tile)
                     HWY_ATTR { TileForward(tile, static_cast<T*>(args.out)); });
}

template <typename T>
void Backward(const GridAttentionGradArgs& args) {
  const GridAttentionShape& shape = args.shape;
  const Common common(shape, args.bias);
  // Each chunk sums the gradient of the bias of all heads by itself; as many as take 16 MiB, but 8
  // at least.
  const int64_t size = shape.num_heads * common.head_size();
  const int64_t chunks = std::clamp<int64_t>((int64_t{1} << 22) / size, 8, 64);
  const int64_t grain = NumChunks(shape.groups(), chunks);
  const PartialSums sums(NumChunks(shape.groups(), grain), size);
  ForEachTile<T>(shape, common, args.qkv, grain,
                 [&](int64_t chunk, int64_t head, const TileInput<T>& tile) HWY_ATTR {
                   const T* qkv = static_cast<const T*>(args.qkv);
                   T* d_qkv = static_cast<T*>(args.d_qkv);
                   TileBackward(tile, {.d_out = static_cast<const T*>(args.d_out),
                                       .dq = d_qkv + (tile.q - qkv),
                                       .dk = d_qkv + (tile.k - qkv),
                                       .dv = d_qkv + (tile.v - qkv),
                                       .d_bias = sums.chunk(chunk) + head * common.head_size()});
                 });
  const int64_t n = shape.tokens();
  for (int64_t row = 0; row < shape.num_heads * n; ++row) {
    sums.AddUp(row * common.key_stride(), n, args.d_bias + row * n, /*accumulate=*/false);
  }
}

}  // namespace

void GridForward(const GridAttentionArgs& args) {
  WithFloatType(args.dtype, [&](auto t) { Forward<decltype(t)>(args); });
}

void GridBackward(const GridAttentionGradArgs& args) {
  WithFloatType(args.dtype, [&](auto t) { Backward<decltype(t)>(args); });
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(GridForward);
HWY_EXPORT(GridBackward);

void GridForwardCpu(const GridAttentionArgs& args) { HWY_DYNAMIC_DISPATCH(GridForward)(args); }
void GridBackwardCpu(const GridAttentionGradArgs& args) {
  HWY_DYNAMIC_DISPATCH(GridBackward)(args);
}

REGISTER_KERNEL(grid_attention_forward, Device::kCpu, GridForwardCpu);
REGISTER_KERNEL(grid_attention_backward, Device::kCpu, GridBackwardCpu);

}  // namespace
}  // namespace tessera
#endif  // HWY_ONCE
