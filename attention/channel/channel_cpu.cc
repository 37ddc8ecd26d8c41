// Channel attention on the CPU, in three sweeps: sums over tokens, one [d, d] matrix per image,
// head and chunk of tokens; their sum and its softmax; products of tokens with that matrix.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention/channel/channel_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include <algorithm>
#include <cstdint>

#include "attention/channel/channel_kernel.h"
#include "attention/rows-inl.h"
#include "attention/scratch.h"
#include "attention/small_product-inl.h"
#include "attention/softmax-inl.h"
#include "core/parallel.h"
#include "tensor/ops/float_types.h"
#include "tensor/tensor.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

// Tokens of one tile, few enough for L1, and of one chunk: the sums of a chunk are one partial sum.
constexpr int64_t kTileTokens = 64;
constexpr int64_t kChunkTokens = 512;

// Matrices [d, d] as tiles of `stride` floats per row, one or more for each image and head.
class Matrices {
 public:
  Matrices(const ChannelAttentionShape& shape, int64_t count)
      : d_(shape.head_dim),
        stride_(RoundToVectors(shape.head_dim)),
        num_heads_(shape.num_heads),
        values_(Tensor::Empty({count * shape.num_heads * tile_floats()}, DType::kF32)) {}

  int64_t stride() const { return stride_; }
  // Rows are padded to whole vectors too, as the transposition wants it.
  int64_t tile_floats() const { return stride_ * stride_; }
  float* At(int64_t index, int64_t head) const {
    return values_.data<float>() + (index * num_heads_ + head) * tile_floats();
  }

 private:
  int64_t d_, stride_, num_heads_;
  Tensor values_;
};

// `rows` rows of one head, `row_stride` apart, to a tile.
template <typename T>
void LoadTile(const T* from, int64_t rows, int64_t row_stride, int64_t d, float factor, float* to) {
  const int64_t stride = RoundToVectors(d);
  for (int64_t t = 0; t < rows; ++t)
    LoadRow(from + t * row_stride, d, stride, factor, to + t * stride);
}

template <typename T>
void StoreTile(const float* from, int64_t rows, int64_t row_stride, int64_t d, T* to) {
  const int64_t stride = RoundToVectors(d);
  for (int64_t t = 0; t < rows; ++t) StoreRow(from + t * stride, d, 1.0f, to + t * row_stride);
}

// Calls fn(chunk, image, head, first token over all images, number of tokens) for every tile and
// head, those of a chunk in order on one thread.
template <typename Fn>
void ForEachTile(const ChannelAttentionShape& shape, const Fn& fn) {
  const int64_t chunks = NumChunks(shape.tokens, kChunkTokens);
  ParallelFor(shape.batch * chunks, 1, [&](int64_t begin, int64_t end) HWY_ATTR {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t image = chunk / chunks;
      const int64_t first = chunk % chunks * kChunkTokens;
      const int64_t last = std::min(shape.tokens, first + kChunkTokens);
      for (int64_t t = first; t < last; t += kTileTokens) {
        for (int64_t head = 0; head < shape.num_heads; ++head) {
          fn(chunk, image, head, image * shape.tokens + t, std::min(kTileTokens, last - t));
        }
      }
    }
  });
}

// sums(chunk, head) = factor * sum over the chunk's tokens t of left[t, i] right[t, j]; rows of
// `left` and `right` are so many elements apart.
template <typename T>
void SumOverTokens(const ChannelAttentionShape& shape, float factor, const T* left,
                   int64_t left_stride, const T* right, int64_t right_stride,
                   const Matrices& sums) {
  const int64_t d = shape.head_dim, stride = sums.stride();
  ForEachTile(
      shape, [&](int64_t chunk, int64_t image, int64_t head, int64_t token, int64_t rows) HWY_ATTR {
        ScratchFloats scratch(2 * kTileTokens * stride);
        float* a = scratch.Take(kTileTokens * stride);
        float* b = scratch.Take(kTileTokens * stride);
        LoadTile(left + token * left_stride + head * d, rows, left_stride, d, factor, a);
        LoadTile(right + token * right_stride + head * d, rows, right_stride, d, 1.0f, b);
        const bool first = (token - image * shape.tokens) % kChunkTokens == 0;
        SmallProduct<Left::kTransposed>(d, d,
                                        {.depth = rows,
                                         .a = a,
                                         .lda = stride,
                                         .b = b,
                                         .ldb = stride,
                                         .c = sums.At(chunk, head),
                                         .ldc = stride,
                                         .accumulate = !first});
      });
}

// Calls fn(image, head, sum) with the sum over an image's chunks, which replaces the first one.
template <typename Fn>
void ForEachSum(const ChannelAttentionShape& shape, const Matrices& sums, const Fn& fn) {
  const FloatTag df;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  const int64_t chunks = NumChunks(shape.tokens, kChunkTokens);
  const int64_t floats = shape.head_dim * sums.stride();
  ParallelFor(shape.batch * shape.num_heads, 4, [&](int64_t begin, int64_t end) HWY_ATTR {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t image = i / shape.num_heads, head = i % shape.num_heads;
      float* HWY_RESTRICT sum = sums.At(image * chunks, head);
      for (int64_t chunk = 1; chunk < chunks; ++chunk) {
        const float* HWY_RESTRICT part = sums.At(image * chunks + chunk, head);
        for (int64_t j = 0; j < floats; j += lanes) {
          hn::Store(hn::Add(hn::Load(df, sum + j), hn::Load(df, part + j)), df, sum + j);
        }
      }
      fn(image, head, sum);
    }
  });
}

// to[t, :] = from[t, :] matrix(image, head).
template <typename T>
void MultiplyTokens(const Matrices& matrices, int64_t image, int64_t head, int64_t rows, int64_t d,
                    const float* from, float* product, T* to, int64_t to_stride) {
  SmallProduct<Left::kPlain>(rows, d,
                             {.depth = d,
                              .a = from,
                              .lda = matrices.stride(),
                              .b = matrices.At(image, head),
                              .ldb = matrices.stride(),
                              .c = product,
                              .ldc = matrices.stride(),
                              .accumulate = false});
  StoreTile(product, rows, to_stride, d, to);
}

// Zeros below a matrix of d rows, up to whole vectors.
void ClearRowsBelow(int64_t d, int64_t stride, float* matrix) {
  std::fill(matrix + d * stride, matrix + stride * stride, 0.0f);
}

template <typename T>
void Forward(const ChannelAttentionArgs& args) {
  const ChannelAttentionShape& shape = args.shape;
  const int64_t d = shape.head_dim, row = 3 * shape.channels();
  const T* qkv = static_cast<const T*>(args.qkv);
  const Matrices sums(shape, shape.batch * NumChunks(shape.tokens, kChunkTokens));
  SumOverTokens(shape, static_cast<float>(shape.scale()) * kLog2E, qkv + shape.left(), row,
                qkv + shape.right(), row, sums);

  const Matrices transposed(shape, shape.batch);
  const int64_t stride = transposed.stride();
  ForEachSum(shape, sums, [&](int64_t image, int64_t head, float* logits) HWY_ATTR {
    float* attention = args.attention + (image * shape.num_heads + head) * d * d;
    ScratchFloats scratch(d);
    float* inverse_sums = scratch.Take(d);
    Exp2Rows(d, d, stride, logits, inverse_sums);
    for (int64_t i = 0; i < d; ++i) {
      StoreRow(logits + i * stride, d, inverse_sums[i], attention + i * d);
      LoadRow(attention + i * d, d, stride, 1.0f, logits + i * stride);
    }
    ClearRowsBelow(d, stride, logits);
    TransposeTile(logits, d, d, stride, transposed.At(image, head), stride);
  });

  ForEachTile(
      shape, [&](int64_t, int64_t image, int64_t head, int64_t token, int64_t rows) HWY_ATTR {
        ScratchFloats scratch(2 * kTileTokens * stride);
        float* values = scratch.Take(kTileTokens * stride);
        float* product = scratch.Take(kTileTokens * stride);
        LoadTile(qkv + token * row + shape.values() + head * d, rows, row, d, 1.0f, values);
        T* out = static_cast<T*>(args.out) + token * shape.channels() + head * d;
        MultiplyTokens(transposed, image, head, rows, d, values, product, out, shape.channels());
      });
}

// The gradient of the logits, dM = scale A (dA - rowsum(A dA)), gives those of the two factors,
//   d_left[t, i] = sum over j of dM[i, j] right[t, j],  d_right[t, j] = sum over i of dM[i, j]
//   left[t, i],
// and A itself that of the values.
template <typename T>
void Backward(const ChannelAttentionGradArgs& args) {
  const ChannelAttentionShape& shape = args.shape;
  const int64_t d = shape.head_dim, channels = shape.channels(), row = 3 * channels;
  const T* qkv = static_cast<const T*>(args.qkv);
  const T* d_out = static_cast<const T*>(args.d_out);
  const Matrices sums(shape, shape.batch * NumChunks(shape.tokens, kChunkTokens));
  SumOverTokens(shape, static_cast<float>(shape.scale()), d_out, channels, qkv + shape.values(),
                row, sums);

  const Matrices attention(shape, shape.batch);
  const Matrices d_logits(shape, shape.batch);
  const Matrices d_logits_transposed(shape, shape.batch);
  const int64_t stride = attention.stride();
  ForEachSum(shape, sums, [&](int64_t image, int64_t head, const float* d_attention) HWY_ATTR {
    const float* dense = args.attention + (image * shape.num_heads + head) * d * d;
    float* a = attention.At(image, head);
    float* da = d_logits.At(image, head);
    for (int64_t i = 0; i < d; ++i) {
      LoadRow(dense + i * d, d, stride, 1.0f, a + i * stride);
      LoadRow(d_attention + i * stride, d, stride, 1.0f, da + i * stride);
      SoftmaxBackwardRow(1.0f, stride, a + i * stride, da + i * stride);
    }
    ClearRowsBelow(d, stride, da);
    TransposeTile(da, d, d, stride, d_logits_transposed.At(image, head), stride);
  });

  T* d_qkv = static_cast<T*>(args.d_qkv);
  ForEachTile(shape, [&](int64_t, int64_t image, int64_t head, int64_t token,
                         int64_t rows) HWY_ATTR {
    ScratchFloats scratch(2 * kTileTokens * stride);
    float* factor = scratch.Take(kTileTokens * stride);
    float* product = scratch.Take(kTileTokens * stride);
    const T* tile = qkv + token * row + head * d;
    T* d_tile = d_qkv + token * row + head * d;
    LoadTile(d_out + token * channels + head * d, rows, channels, d, 1.0f, factor);
    MultiplyTokens(attention, image, head, rows, d, factor, product, d_tile + shape.values(), row);
    LoadTile(tile + shape.right(), rows, row, d, 1.0f, factor);
    MultiplyTokens(d_logits_transposed, image, head, rows, d, factor, product,
                   d_tile + shape.left(), row);
    LoadTile(tile + shape.left(), rows, row, d, 1.0f, factor);
    MultiplyTokens(d_logits, image, head, rows, d, factor, product, d_tile + shape.right(), row);
  });
}

}  // namespace

void ChannelForward(const ChannelAttentionArgs& args) {
  WithFloatType(args.dtype, [&](auto t) { Forward<decltype(t)>(args); });
}

void ChannelBackward(const ChannelAttentionGradArgs& args) {
  WithFloatType(args.dtype, [&](auto t) { Backward<decltype(t)>(args); });
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(ChannelForward);
HWY_EXPORT(ChannelBackward);

void ChannelForwardCpu(const ChannelAttentionArgs& args) {
  HWY_DYNAMIC_DISPATCH(ChannelForward)(args);
}
void ChannelBackwardCpu(const ChannelAttentionGradArgs& args) {
  HWY_DYNAMIC_DISPATCH(ChannelBackward)(args);
}

REGISTER_KERNEL(channel_attention_forward, Device::kCpu, ChannelForwardCpu);
REGISTER_KERNEL(channel_attention_backward, Device::kCpu, ChannelBackwardCpu);

}  // namespace
}  // namespace tessera
#endif  // HWY_ONCE
