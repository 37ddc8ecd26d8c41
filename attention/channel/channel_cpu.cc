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
#include "attention/formats-inl.h"
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

// Some tokens of one head of one image.
struct Tile {
  int64_t chunk, image, head;
  int64_t token;  // the first, counted over all images
  int64_t rows;
};

// Calls fn(tile) for every tile and head, those of a chunk in order on one thread.
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
          fn(Tile{chunk, image, head, image * shape.tokens + t, std::min(kTileTokens, last - t)});
        }
      }
    }
  });
}

// Reads a tile of a map [tokens, row_stride], whose first head begins at `map`, and
// asks for the same rows of the tile that comes next: rows are far apart and short.
template <class Format, typename T>
void LoadTile(const ChannelAttentionShape& shape, const Tile& tile, const T* map,
              int64_t row_stride, float* to) {
  constexpr int64_t kLineElements = 64 / sizeof(T);
  const int64_t d = shape.head_dim, stride = Format::Stride(d);
  const T* from = map + tile.token * row_stride + tile.head * d;
  const int64_t next =
      tile.head + 1 < shape.num_heads ? d : kTileTokens * row_stride - tile.head * d;
  for (int64_t t = 0; t < tile.rows; ++t) {
    const T* row = from + t * row_stride;
    for (int64_t c = 0; c < d; c += kLineElements) __builtin_prefetch(row + next + c, 0, 2);
    Format::Load(row, d, to + t * stride);
  }
}

// sums(chunk, head) = sum over the chunk's tokens t of left[t, i] right[t, j], from maps
// whose rows are so many elements apart.
template <class Format, typename T>
void SumOverTokens(const ChannelAttentionShape& shape, const T* left, int64_t left_stride,
                   const T* right, int64_t right_stride, const Matrices& sums) {
  const int64_t d = shape.head_dim, floats = kTileTokens * sums.stride();
  ForEachTile(shape, [&](const Tile& tile) HWY_ATTR {
    ScratchFloats scratch(4 * floats);
    float* left_rows = scratch.Take(floats);
    float* right_rows = scratch.Take(floats);
    LoadTile<Format>(shape, tile, left, left_stride, left_rows);
    LoadTile<Format>(shape, tile, right, right_stride, right_rows);
    const Factor a = Format::AlongRows(left_rows, tile.rows, d, scratch.Take(floats));
    const Factor b = Format::AlongRows(right_rows, tile.rows, d, scratch.Take(floats));
    const bool first = (tile.token - tile.image * shape.tokens) % kChunkTokens == 0;
    SmallProduct<Left::kTransposed, Format>(d, d, Format::Depth(tile.rows), a, b,
                                            sums.At(tile.chunk, tile.head), sums.stride(), !first);
  });
}

// The tile of `to` = that of `from` times the matrix of its image and head.
template <class Format, typename T>
void MultiplyTile(const ChannelAttentionShape& shape, const Tile& tile, const T* from,
                  int64_t from_stride, const Matrices& matrices, T* to, int64_t to_stride) {
  const int64_t d = shape.head_dim, stride = matrices.stride();
  ScratchFloats scratch(2 * kTileTokens * stride);
  float* factor = scratch.Take(kTileTokens * stride);
  float* product = scratch.Take(kTileTokens * stride);
  LoadTile<Format>(shape, tile, from, from_stride, factor);
  SmallProduct<Left::kPlain, Format>(tile.rows, d, Format::Depth(d), {factor, Format::Stride(d)},
                                     {matrices.At(tile.image, tile.head), stride}, product, stride,
                                     false);
  T* first = to + tile.token * to_stride + tile.head * d;
  for (int64_t t = 0; t < tile.rows; ++t) {
    StoreRow(product + t * stride, d, 1.0f, first + t * to_stride);
  }
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

// Zeros below a matrix of d rows, up to whole vectors.
void ClearRowsBelow(int64_t d, int64_t stride, float* matrix) {
  std::fill(matrix + d * stride, matrix + stride * stride, 0.0f);
}

template <class Format, typename T>
void Forward(const ChannelAttentionArgs& args) {
  const ChannelAttentionShape& shape = args.shape;
  const int64_t d = shape.head_dim, row = 3 * shape.channels();
  const T* qkv = static_cast<const T*>(args.qkv);
  const Matrices sums(shape, shape.batch * NumChunks(shape.tokens, kChunkTokens));
  SumOverTokens<Format>(shape, qkv + shape.left(), row, qkv + shape.right(), row, sums);

  const Matrices transposed(shape, shape.batch);
  const int64_t stride = transposed.stride();
  ForEachSum(shape, sums, [&](int64_t image, int64_t head, float* logits) HWY_ATTR {
    float* attention = args.attention + (image * shape.num_heads + head) * d * d;
    ScratchFloats scratch(d);
    float* inverse_sums = scratch.Take(d);
    Exp2Rows(d, d, stride, static_cast<float>(shape.scale()) * kLog2E, logits, inverse_sums);
    for (int64_t i = 0; i < d; ++i) {
      StoreRow(logits + i * stride, d, inverse_sums[i], attention + i * d);
      LoadRow(attention + i * d, d, stride, 1.0f, logits + i * stride);
    }
    ClearRowsBelow(d, stride, logits);
    float* result = transposed.At(image, head);
    TransposeTile(logits, d, d, stride, result, stride);
    Format::AlongRowsFromFloats(result, d, stride, result);
  });

  ForEachTile(shape, [&](const Tile& tile) HWY_ATTR {
    MultiplyTile<Format>(shape, tile, qkv + shape.values(), row, transposed,
                         static_cast<T*>(args.out), shape.channels());
  });
}

// The gradient of the logits, dM = scale A (dA - rowsum(A dA)), gives those of the two factors,
//   d_left = right dM^T,  d_right = left dM,
// and A that of the values, d_values = d_out A.
template <class Format, typename T>
void Backward(const ChannelAttentionGradArgs& args) {
  const ChannelAttentionShape& shape = args.shape;
  const int64_t d = shape.head_dim, channels = shape.channels(), row = 3 * channels;
  const T* qkv = static_cast<const T*>(args.qkv);
  const T* d_out = static_cast<const T*>(args.d_out);
  const Matrices sums(shape, shape.batch * NumChunks(shape.tokens, kChunkTokens));
  SumOverTokens<Format>(shape, d_out, channels, qkv + shape.values(), row, sums);

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
      LoadRow(d_attention + i * stride, d, stride, static_cast<float>(shape.scale()),
              da + i * stride);
      SoftmaxBackwardRow(1.0f, stride, a + i * stride, da + i * stride);
    }
    ClearRowsBelow(d, stride, da);
    float* da_transposed = d_logits_transposed.At(image, head);
    TransposeTile(da, d, d, stride, da_transposed, stride);
    for (float* factor : {a, da, da_transposed}) {
      Format::AlongRowsFromFloats(factor, d, stride, factor);
    }
  });

  T* d_qkv = static_cast<T*>(args.d_qkv);
  ForEachTile(shape, [&](const Tile& tile) HWY_ATTR {
    MultiplyTile<Format>(shape, tile, d_out, channels, attention, d_qkv + shape.values(), row);
    MultiplyTile<Format>(shape, tile, qkv + shape.right(), row, d_logits_transposed,
                         d_qkv + shape.left(), row);
    MultiplyTile<Format>(shape, tile, qkv + shape.left(), row, d_logits, d_qkv + shape.right(),
                         row);
  });
}

}  // namespace

void ChannelForward(const ChannelAttentionArgs& args) {
  WithFloatType(args.dtype, [&](auto t) {
    using T = decltype(t);
    WithTileFormat<T>([&](auto format) { Forward<decltype(format), T>(args); });
  });
}

void ChannelBackward(const ChannelAttentionGradArgs& args) {
  WithFloatType(args.dtype, [&](auto t) {
    using T = decltype(t);
    WithTileFormat<T>([&](auto format) { Backward<decltype(format), T>(args); });
  });
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
