#include <cstdio>
#include <cstdlib>

#include "attention/channel/channel_kernel.h"
#include "attention/tile_cuda.h"
#include "core/cuda/elementwise.h"
#include "tensor/ops/float_types.h"

namespace tessera {
namespace {

constexpr int kChunkTokens = 128;  // that a block works on

// What the kernels need of a ChannelAttentionShape. A block works on one head of one image.
struct Problem {
  int64_t tokens, channels;
  int head_dim, num_heads;
  float scale;

  DEVICE int64_t image() const { return blockIdx.x / num_heads; }
  DEVICE int channel() const { return static_cast<int>(blockIdx.x % num_heads) * head_dim; }
  DEVICE int64_t first_token() const { return int64_t{blockIdx.y} * kChunkTokens; }
  DEVICE int chunk_tokens() const {
    return tokens - first_token() < kChunkTokens ? static_cast<int>(tokens - first_token())
                                                 : kChunkTokens;
  }
  HOST_DEVICE int stride() const { return TileStride(head_dim); }
  HOST_DEVICE int64_t matrix_floats() const { return int64_t{head_dim} * head_dim; }
};

// Rows [B, N, stride] of T, of which an attention's part begins at `offset`.
template <typename T>
struct Rows {
  T* data;
  int64_t stride;

  DEVICE T* At(const Problem& problem, int token) const {
    return data + (problem.image() * problem.tokens + problem.first_token() + token) * stride +
           problem.channel();
  }
};

template <int kWidth, typename T>
DEVICE void LoadChunk(const Problem& problem, const Rows<const T>& rows, float* tile) {
  LoadTile<kWidth>(tile, problem.chunk_tokens(), problem.head_dim,
                   [&](int token, int column, float(&v)[kWidth]) {
                     LoadFloats(rows.At(problem, token) + column, v);
                   });
}

// The matrix [head_dim, head_dim] of the block's image and head, to shared memory.
DEVICE void LoadMatrixOf(const Problem& problem, const float* matrices, float* tile) {
  const float* matrix = matrices + blockIdx.x * problem.matrix_floats();
  LoadTile<1>(tile, problem.head_dim, problem.head_dim, [&](int row, int column, float(&v)[1]) {
    v[0] = matrix[row * problem.head_dim + column];
  });
}

// partials [chunks, B * num_heads, head_dim, head_dim]: a^T b over the tokens of a chunk.
template <int kWidth, typename T>
KERNEL(kTileThreads)
SumOverTokens(Problem problem, Rows<const T> a_rows, Rows<const T> b_rows, float* partials) {
  SHARED_DYNAMIC(float, shared);
  const int d = problem.head_dim;
  float* a = shared;
  float* b = a + kChunkTokens * problem.stride();
  LoadChunk<kWidth>(problem, a_rows, a);
  LoadChunk<kWidth>(problem, b_rows, b);
  BLOCK_SYNC();
  float* sum = partials + (int64_t{blockIdx.y} * gridDim.x + blockIdx.x) * problem.matrix_floats();
  ProductTransposedA(d, d, problem.chunk_tokens(), {a, problem.stride()}, {b, problem.stride()},
                     [&](int i, int j, float value) { sum[i * d + j] = value; });
}

// A warp adds up row i of the partial sums of all chunks.
DEVICE void AddUpRow(const Problem& problem, const float* partials, int64_t chunks, int i,
                     float* row) {
  const int d = problem.head_dim;
  for (int j = Lane(); j < d; j += kWarpSize) {
    float sum = 0;
    for (int64_t k = 0; k < chunks; ++k) {
      sum += partials[(k * gridDim.x + blockIdx.x) * problem.matrix_floats() + i * d + j];
    }
    row[j] = sum;
  }
}

KERNEL(kTileThreads)
SoftmaxOfSums(Problem problem, const float* partials, int64_t chunks, float* attention) {
  for (int i = WarpIndex(); i < problem.head_dim; i += kTileWarps) {
    float* row = attention + blockIdx.x * problem.matrix_floats() + i * problem.head_dim;
    AddUpRow(problem, partials, chunks, i, row);
    SoftmaxRow(row, problem.head_dim, problem.scale);
  }
}

// d_logits = scale A (dA - rowsum(A dA)).
KERNEL(kTileThreads)
SoftmaxBackwardOfSums(Problem problem, const float* partials, int64_t chunks,
                      const float* attention, float* d_logits) {
  for (int i = WarpIndex(); i < problem.head_dim; i += kTileWarps) {
    const int64_t offset = blockIdx.x * problem.matrix_floats() + i * problem.head_dim;
    AddUpRow(problem, partials, chunks, i, d_logits + offset);
    SoftmaxBackwardRow(attention + offset, d_logits + offset, problem.head_dim, problem.scale);
  }
}

// out = x m or, kTransposed, x m^T, for every token, with the matrix of its image and head.
template <int kWidth, bool kTransposed, typename T>
KERNEL(kTileThreads)
MultiplyTokens(Problem problem, Rows<const T> x_rows, const float* matrices, Rows<T> out) {
  SHARED_DYNAMIC(float, shared);
  const int d = problem.head_dim, stride = problem.stride();
  float* x = shared;
  float* m = x + kChunkTokens * stride;
  LoadChunk<kWidth>(problem, x_rows, x);
  LoadMatrixOf(problem, matrices, m);
  BLOCK_SYNC();
  const auto store = [&](int token, int c, float value) {
    StoreFloat(value, out.At(problem, token) + c);
  };
  if constexpr (kTransposed) {
    ProductTransposedB(problem.chunk_tokens(), d, d, {x, stride}, {m, stride}, store);
  } else {
    Product(problem.chunk_tokens(), d, d, {x, stride}, {m, stride}, store);
  }
}

// The launches of one attention.
template <int kWidth, typename T>
class Launcher {
 public:
  explicit Launcher(const ChannelAttentionShape& shape)
      : problem_{.tokens = shape.tokens,
                 .channels = shape.channels(),
                 .head_dim = static_cast<int>(shape.head_dim),
                 .num_heads = static_cast<int>(shape.num_heads),
                 .scale = static_cast<float>(shape.scale())},
        matrices_(shape.batch * shape.num_heads),
        chunks_(CeilDiv(shape.tokens, kChunkTokens)) {
    constexpr int64_t kMaxBytes = int64_t{227} << 10;
    if (Bytes(2, 0) > kMaxBytes || Bytes(1, 1) > kMaxBytes) {
      std::fprintf(stderr, "channel_attention: head_dim %d is too large\n", problem_.head_dim);
      std::abort();
    }
  }

  int64_t matrix_floats() const { return matrices_ * problem_.matrix_floats(); }

  void Sum(Rows<const T> a, Rows<const T> b, const Workspace<float>& partials) const {
    Launch<SumOverTokens<kWidth, T>>({matrices_, chunks_}, {.x = kTileThreads}, Bytes(2, 0),
                                     CurrentStream(), problem_, a, b, partials.data());
  }
  Workspace<float> NewPartials() const { return Workspace<float>(chunks_ * matrix_floats()); }

  void Softmax(const Workspace<float>& partials, float* attention) const {
    Launch<SoftmaxOfSums>({.x = matrices_}, {.x = kTileThreads}, 0, CurrentStream(), problem_,
                          partials.data(), chunks_, attention);
  }
  void SoftmaxBackward(const Workspace<float>& partials, const float* attention,
                       float* d_logits) const {
    Launch<SoftmaxBackwardOfSums>({.x = matrices_}, {.x = kTileThreads}, 0, CurrentStream(),
                                  problem_, partials.data(), chunks_, attention, d_logits);
  }
  template <bool kTransposed>
  void Multiply(Rows<const T> x, const float* matrices, Rows<T> out) const {
    Launch<MultiplyTokens<kWidth, kTransposed, T>>({matrices_, chunks_}, {.x = kTileThreads},
                                                   Bytes(1, 1), CurrentStream(), problem_, x,
                                                   matrices, out);
  }

 private:
  int64_t Bytes(int tiles, int matrices) const {
    return (int64_t{tiles} * kChunkTokens + int64_t{matrices} * problem_.head_dim) *
           problem_.stride() * 4;
  }

  Problem problem_;
  int64_t matrices_, chunks_;
};

// Calls fn(launcher) for the widest accesses that sizes and addresses allow.
template <typename T, typename Fn>
void WithLauncher(const ChannelAttentionShape& shape, bool aligned, const Fn& fn) {
  if (aligned && shape.head_dim % kPackedElements == 0) {
    fn(Launcher<kPackedElements, T>(shape));
  } else {
    fn(Launcher<1, T>(shape));
  }
}

void ChannelForwardCuda(const ChannelAttentionArgs& args) {
  const ChannelAttentionShape& shape = args.shape;
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    const T* qkv = static_cast<const T*>(args.qkv);
    const int64_t row = 3 * shape.channels();
    WithLauncher<T>(shape, IsAligned16(qkv), [&](const auto& launcher) {
      const Workspace<float> partials = launcher.NewPartials();
      launcher.Sum({qkv + shape.left(), row}, {qkv + shape.right(), row}, partials);
      launcher.Softmax(partials, args.attention);
      launcher.template Multiply<true>({qkv + shape.values(), row}, args.attention,
                                       {static_cast<T*>(args.out), shape.channels()});
    });
  });
}

// With M the logits, d_left = right dM^T, d_right = left dM and d_values = d_out A.
void ChannelBackwardCuda(const ChannelAttentionGradArgs& args) {
  const ChannelAttentionShape& shape = args.shape;
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    const T* qkv = static_cast<const T*>(args.qkv);
    T* d_qkv = static_cast<T*>(args.d_qkv);
    const int64_t row = 3 * shape.channels();
    const Rows<const T> d_out = {static_cast<const T*>(args.d_out), shape.channels()};
    WithLauncher<T>(shape, IsAligned16(qkv) && IsAligned16(args.d_out), [&](const auto& launcher) {
      const Workspace<float> partials = launcher.NewPartials();
      const Workspace<float> d_logits(launcher.matrix_floats());
      launcher.Sum(d_out, {qkv + shape.values(), row}, partials);
      launcher.SoftmaxBackward(partials, args.attention, d_logits.data());
      launcher.template Multiply<false>(d_out, args.attention, {d_qkv + shape.values(), row});
      launcher.template Multiply<true>({qkv + shape.right(), row}, d_logits.data(),
                                       {d_qkv + shape.left(), row});
      launcher.template Multiply<false>({qkv + shape.left(), row}, d_logits.data(),
                                        {d_qkv + shape.right(), row});
    });
  });
}

REGISTER_CUDA_KERNEL(channel_attention_forward, ChannelForwardCuda);
REGISTER_CUDA_KERNEL(channel_attention_backward, ChannelBackwardCuda);

}  // namespace
}  // namespace tessera
