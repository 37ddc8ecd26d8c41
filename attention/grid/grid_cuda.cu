// Block and grid attention on GPUs: one block per group and head, whose tiles lie in shared memory.
// In the backward pass a block takes several groups of one head, over which it sums the gradient of
// the bias in memory of its own.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "attention/grid/grid_kernel.h"
#include "attention/tile_cuda.h"
#include "core/cuda/column_sums.h"
#include "core/cuda/elementwise.h"
#include "tensor/ops/float_types.h"

namespace tessera {
namespace {

// The sizes of GridAttentionShape as the kernels need them.
struct Problem {
  int64_t groups, num_heads, channels;
  int64_t groups_across, groups_per_image, pixels_per_image;
  int64_t group_down, group_across;  // pixels from a group to the next one
  int64_t token_down, token_across;  // pixels from a token of a group to the next one
  int64_t head_step, part_step;      // channels of qkv from a head, or of q, k, v, to the next one
  int tokens, columns, head_dim;
  float scale;

  HOST_DEVICE int stride() const { return TileStride(head_dim); }
  HOST_DEVICE int logits_stride() const { return TileStride(tokens); }
  HOST_DEVICE int tile_floats() const { return tokens * stride(); }
  HOST_DEVICE int logits_floats() const { return tokens * logits_stride(); }
};

// The tokens of a group, for one head.
class Group {
 public:
  DEVICE Group(const Problem& problem, int64_t index, int head)
      : problem(problem),
        head_(head),
        first_(index / problem.groups_per_image * problem.pixels_per_image +
               index % problem.groups_per_image / problem.groups_across * problem.group_down +
               index % problem.groups_across * problem.group_across) {}
  // Of part 0, 1 or 2 (q, k or v) in qkv, and in the output.
  DEVICE int64_t PartOffset(int t, int part) const {
    return Pixel(t) * 3 * problem.channels + head_ * problem.head_step + part * problem.part_step;
  }
  DEVICE int64_t OutOffset(int t) const {
    return Pixel(t) * problem.channels + int64_t{head_} * problem.head_dim;
  }

  const Problem& problem;

 private:
  DEVICE int64_t Pixel(int t) const {
    return first_ + t / problem.columns * problem.token_down +
           t % problem.columns * problem.token_across;
  }

  int head_;
  int64_t first_;
};

template <int kWidth, typename T>
DEVICE void LoadPart(const Group& group, const T* qkv, int part, float* tile) {
  LoadTile<kWidth>(tile, group.problem.tokens, group.problem.head_dim,
                   [&](int t, int column, float(&v)[kWidth]) {
                     LoadFloats(qkv + group.PartOffset(t, part) + column, v);
                   });
}

// logits[i][j] = softmax over j of scale q_i k_j + bias[i][j].
DEVICE void Probabilities(const Problem& problem, Matrix q, Matrix k, const float* bias,
                          float* logits) {
  const int n = problem.tokens, stride = problem.logits_stride();
  ProductTransposedB(n, n, problem.head_dim, q, k, [&](int i, int j, float value) {
    logits[i * stride + j] = fmaf(problem.scale, value, bias[i * n + j]);
  });
  BLOCK_SYNC();
  for (int i = WarpIndex(); i < n; i += kTileWarps) SoftmaxRow(logits + i * stride, n, 1.0f);
  BLOCK_SYNC();
}

template <int kWidth, typename T>
KERNEL(kTileThreads)
GridForward(Problem problem, const T* qkv, const float* bias, T* out) {
  SHARED_DYNAMIC(float, shared);
  const int head = static_cast<int>(blockIdx.x % problem.num_heads);
  const Group group(problem, blockIdx.x / problem.num_heads, head);
  const int n = problem.tokens, d = problem.head_dim;
  float* q = shared;
  float* k = q + problem.tile_floats();
  float* v = k + problem.tile_floats();
  float* p = v + problem.tile_floats();
  LoadPart<kWidth>(group, qkv, 0, q);
  LoadPart<kWidth>(group, qkv, 1, k);
  LoadPart<kWidth>(group, qkv, 2, v);
  BLOCK_SYNC();
  Probabilities(problem, {q, problem.stride()}, {k, problem.stride()}, bias + int64_t{head} * n * n,
                p);
  Product(n, d, n, {p, problem.logits_stride()}, {v, problem.stride()},
          [&](int t, int c, float value) { StoreFloat(value, out + group.OutOffset(t) + c); });
}

// Block x sums over groups x * groups_per_block to the next one's first; y is the head. d_bias
// [blocks, num_heads, n, n] is the block's own.
template <int kWidth, typename T>
KERNEL(kTileThreads)
GridBackward(Problem problem, const T* qkv, const float* bias, const T* d_out, T* d_qkv,
             int64_t groups_per_block, float* d_bias) {
  SHARED_DYNAMIC(float, shared);
  const int head = static_cast<int>(blockIdx.y);
  const int n = problem.tokens, d = problem.head_dim, stride = problem.stride();
  const int logits_stride = problem.logits_stride();
  float* q = shared;
  float* k = q + problem.tile_floats();
  float* v = k + problem.tile_floats();
  float* d_o = v + problem.tile_floats();
  float* p = d_o + problem.tile_floats();
  float* d_p = p + problem.logits_floats();
  const float* head_bias = bias + int64_t{head} * n * n;
  float* sums = d_bias + (blockIdx.x * problem.num_heads + head) * n * n;
  for (int i = static_cast<int>(threadIdx.x); i < n * n; i += kTileThreads) sums[i] = 0.0f;
  const int64_t first = blockIdx.x * groups_per_block;
  for (int64_t g = first; g < first + groups_per_block && g < problem.groups; ++g) {
    const Group group(problem, g, head);
    BLOCK_SYNC();  // the tiles of the group before have been read
    LoadPart<kWidth>(group, qkv, 0, q);
    LoadPart<kWidth>(group, qkv, 1, k);
    LoadPart<kWidth>(group, qkv, 2, v);
    LoadTile<kWidth>(d_o, n, d, [&](int t, int column, float(&values)[kWidth]) {
      LoadFloats(d_out + group.OutOffset(t) + column, values);
    });
    BLOCK_SYNC();
    Probabilities(problem, {q, stride}, {k, stride}, head_bias, p);
    ProductTransposedB(n, n, d, {d_o, stride}, {v, stride},
                       [&](int i, int j, float value) { d_p[i * logits_stride + j] = value; });
    BLOCK_SYNC();
    for (int i = WarpIndex(); i < n; i += kTileWarps) {
      SoftmaxBackwardRow(p + i * logits_stride, d_p + i * logits_stride, n, 1.0f);
    }
    BLOCK_SYNC();
    for (int i = static_cast<int>(threadIdx.x); i < n * n; i += kTileThreads) {
      sums[i] += d_p[i / n * logits_stride + i % n];
    }
    const auto store = [&](int part, float factor) {
      return [&, part, factor](int t, int c, float value) {
        StoreFloat(factor * value, d_qkv + group.PartOffset(t, part) + c);
      };
    };
    Product(n, d, n, {d_p, logits_stride}, {k, stride}, store(0, problem.scale));
    ProductTransposedA(n, d, n, {d_p, logits_stride}, {q, stride}, store(1, problem.scale));
    ProductTransposedA(n, d, n, {p, logits_stride}, {d_o, stride}, store(2, 1.0f));
  }
}

Problem ProblemOf(const GridAttentionShape& s) {
  const bool block = s.partition == Partition::kBlock;
  return {.groups = s.groups(),
          .num_heads = s.num_heads,
          .channels = s.channels(),
          .groups_across = s.groups_across(),
          .groups_per_image = s.groups_down() * s.groups_across(),
          .pixels_per_image = s.height * s.width,
          .group_down = (block ? s.rows : 1) * s.width,
          .group_across = block ? s.columns : 1,
          .token_down = s.step_down() * s.width,
          .token_across = s.step_across(),
          .head_step = s.PartChannel(1, 0),
          .part_step = s.PartChannel(0, 1),
          .tokens = static_cast<int>(s.tokens()),
          .columns = static_cast<int>(s.columns),
          .head_dim = static_cast<int>(s.head_dim),
          .scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim))};
}

// Bytes of `tiles` [tokens, head_dim] and `logits` [tokens, tokens].
int64_t SharedBytes(const Problem& problem, int tiles, int logits) {
  constexpr int64_t kMaxBytes = int64_t{227} << 10;
  const int64_t bytes =
      4 * (int64_t{tiles} * problem.tile_floats() + int64_t{logits} * problem.logits_floats());
  if (bytes > kMaxBytes) {
    std::fprintf(stderr, "grid_attention: groups of %d tokens with head_dim %d are too large\n",
                 problem.tokens, problem.head_dim);
    std::abort();
  }
  return bytes;
}

// Calls fn(std::integral_constant width) with the elements per access that alignment allows.
template <typename Fn>
void WithWidth(const GridAttentionShape& shape, const void* a, const void* b, const Fn& fn) {
  if (shape.head_dim % kPackedElements == 0 && IsAligned16(a) && IsAligned16(b)) {
    fn(std::integral_constant<int, kPackedElements>());
  } else {
    fn(std::integral_constant<int, 1>());
  }
}

void GridForwardCuda(const GridAttentionArgs& args) {
  const Problem problem = ProblemOf(args.shape);
  const int64_t bytes = SharedBytes(problem, 3, 1);
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    WithWidth(args.shape, args.qkv, args.out, [&](auto width) {
      Launch<GridForward<decltype(width)::value, T>>(
          {.x = args.shape.groups() * args.shape.num_heads}, {.x = kTileThreads}, bytes,
          CurrentStream(), problem, static_cast<const T*>(args.qkv), args.bias,
          static_cast<T*>(args.out));
    });
  });
}

void GridBackwardCuda(const GridAttentionGradArgs& args) {
  constexpr int64_t kMaxBlocks = 256;  // per head
  const GridAttentionShape& shape = args.shape;
  const Problem problem = ProblemOf(shape);
  const int64_t bytes = SharedBytes(problem, 4, 2);
  const int64_t groups_per_block = CeilDiv(shape.groups(), kMaxBlocks);
  const int64_t blocks = CeilDiv(shape.groups(), groups_per_block);
  const int64_t bias_size = shape.num_heads * shape.tokens() * shape.tokens();
  const Workspace<float> partials(blocks * bias_size);
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    WithWidth(shape, args.qkv, args.d_out, [&](auto width) {
      Launch<GridBackward<decltype(width)::value, T>>(
          {.x = blocks, .y = shape.num_heads}, {.x = kTileThreads}, bytes, CurrentStream(), problem,
          static_cast<const T*>(args.qkv), args.bias, static_cast<const T*>(args.d_out),
          static_cast<T*>(args.d_qkv), groups_per_block, partials.data());
    });
  });
  LaunchAddUpPartials(partials.data(), blocks, bias_size, bias_size, {.out = args.d_bias});
}

REGISTER_CUDA_KERNEL(grid_attention_forward, GridForwardCuda);
REGISTER_CUDA_KERNEL(grid_attention_backward, GridBackwardCuda);

}  // namespace
}  // namespace tessera
