#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "attention/tile_cuda.h"
#include "attention/window/window_kernel.h"
#include "core/cuda/column_sums.h"
#include "core/cuda/elementwise.h"
#include "tensor/ops/float_types.h"

namespace tessera {
namespace {

// What a block works on: one head of one window.
struct Problem {
  int64_t height, width, channels;
  int window, head_dim, num_heads;
  int64_t window_rows, window_columns;
  float scale;

  HOST_DEVICE int tokens() const { return window * window; }
  HOST_DEVICE int stride() const { return TileStride(head_dim); }
  HOST_DEVICE int logits_stride() const { return TileStride(tokens()); }
  HOST_DEVICE int tile_floats() const { return tokens() * stride(); }
  HOST_DEVICE int logits_floats() const { return tokens() * logits_stride(); }
};

class Window {
 public:
  DEVICE explicit Window(const Problem& problem)
      : problem_(problem), head_(static_cast<int>(blockIdx.x % problem.num_heads)) {
    const int64_t per_image = problem.window_rows * problem.window_columns;
    image_ = index() / per_image;
    y_ = index() % per_image / problem.window_columns * problem.window;
    x_ = index() % problem.window_columns * problem.window;
  }
  DEVICE int64_t index() const { return blockIdx.x / problem_.num_heads; }
  DEVICE int channel() const { return head_ * problem_.head_dim; }
  // Index of a token of the window among all; negative for a position that lies beyond the map.
  DEVICE int64_t Token(int t) const {
    const int64_t y = y_ + t / problem_.window, x = x_ + t % problem_.window;
    if (y >= problem_.height || x >= problem_.width) return -1;
    return (image_ * problem_.height + y) * problem_.width + x;
  }
  // Tokens inside of the map.
  DEVICE int num_tokens() const { return Inside(y_, problem_.height) * Inside(x_, problem_.width); }

 private:
  DEVICE int Inside(int64_t first, int64_t size) const {
    return size - first < problem_.window ? static_cast<int>(size - first) : problem_.window;
  }

  const Problem& problem_;
  int head_;
  int64_t image_, y_, x_;
};

// Part 0, 1 or 2 (q, k or v) of the tokens; the bias, or zeros, beyond the map.
template <int kWidth, typename T>
DEVICE void LoadPart(const Problem& problem, const Window& window, const T* qkv, const float* bias,
                     int part, float* tile) {
  const int64_t offset = part * problem.channels + window.channel();
  LoadTile<kWidth>(tile, problem.tokens(), problem.head_dim,
                   [&](int t, int column, float(&v)[kWidth]) {
                     const int64_t token = window.Token(t);
                     if (token >= 0) {
                       LoadFloats(qkv + token * 3 * problem.channels + offset + column, v);
                     } else {
                       UNROLL for (int j = 0; j < kWidth; ++j) {
                         v[j] = bias == nullptr ? 0.0f : bias[offset + column + j];
                       }
                     }
                   });
}

// logits[i][j] = softmax over j of scale q_i k_j.
DEVICE void Probabilities(const Problem& problem, Matrix q, Matrix k, float* logits) {
  const int n = problem.tokens(), stride = problem.logits_stride();
  ProductTransposedB(n, n, problem.head_dim, q, k,
                     [&](int i, int j, float value) { logits[i * stride + j] = value; });
  BLOCK_SYNC();
  for (int i = WarpIndex(); i < n; i += kTileWarps) {
    SoftmaxRow(logits + i * stride, n, problem.scale);
  }
  BLOCK_SYNC();
}

template <int kWidth, typename T>
KERNEL(kTileThreads)
Forward(Problem problem, const T* qkv, const float* bias, T* out) {
  SHARED_DYNAMIC(float, shared);
  const Window window(problem);
  const int n = problem.tokens(), d = problem.head_dim;
  float* q = shared;
  float* k = q + problem.tile_floats();
  float* v = k + problem.tile_floats();
  float* p = v + problem.tile_floats();
  LoadPart<kWidth>(problem, window, qkv, bias, 0, q);
  LoadPart<kWidth>(problem, window, qkv, bias, 1, k);
  LoadPart<kWidth>(problem, window, qkv, bias, 2, v);
  BLOCK_SYNC();
  Probabilities(problem, {q, problem.stride()}, {k, problem.stride()}, p);
  Product(n, d, n, {p, problem.logits_stride()}, {v, problem.stride()},
          [&](int t, int c, float value) {
            const int64_t token = window.Token(t);
            if (token >= 0)
              StoreFloat(value, out + token * problem.channels + window.channel() + c);
          });
}

// padding [windows, 2C], or null: what reaches the bias through k and v of positions beyond the
// map.
template <int kWidth, typename T>
KERNEL(kTileThreads)
Backward(Problem problem, const T* qkv, const float* bias, const T* d_out, T* d_qkv,
         float* padding) {
  SHARED_DYNAMIC(float, shared);
  const Window window(problem);
  const int n = problem.tokens(), d = problem.head_dim, stride = problem.stride();
  const int logits_stride = problem.logits_stride();
  float* q = shared;
  float* k = q + problem.tile_floats();
  float* v = k + problem.tile_floats();
  float* d_o = v + problem.tile_floats();
  float* p = d_o + problem.tile_floats();
  float* d_p = p + problem.logits_floats();
  LoadPart<kWidth>(problem, window, qkv, bias, 0, q);
  LoadPart<kWidth>(problem, window, qkv, bias, 1, k);
  LoadPart<kWidth>(problem, window, qkv, bias, 2, v);
  LoadTile<kWidth>(d_o, n, d, [&](int t, int column, float(&values)[kWidth]) {
    const int64_t token = window.Token(t);
    if (token >= 0) {
      LoadFloats(d_out + token * problem.channels + window.channel() + column, values);
    } else {  // outputs there are dropped, so that its query has no part in any gradient
      UNROLL for (int j = 0; j < kWidth; ++j) values[j] = 0.0f;
    }
  });
  BLOCK_SYNC();
  Probabilities(problem, {q, stride}, {k, stride}, p);
  ProductTransposedB(n, n, d, {d_o, stride}, {v, stride},
                     [&](int i, int j, float value) { d_p[i * logits_stride + j] = value; });
  BLOCK_SYNC();
  for (int i = WarpIndex(); i < n; i += kTileWarps) {
    SoftmaxBackwardRow(p + i * logits_stride, d_p + i * logits_stride, n, problem.scale);
  }
  BLOCK_SYNC();

  const auto store = [&](int part) {
    return [&, part](int t, int c, float value) {
      const int64_t token = window.Token(t);
      if (token >= 0) {
        StoreFloat(value, d_qkv + (token * 3 + part) * problem.channels + window.channel() + c);
      }
      // Positions beyond the map share one key and value, so all have the gradient of the last.
      if (padding != nullptr && part > 0 && t == n - 1) {
        const auto count = static_cast<float>(n - window.num_tokens());
        padding[(window.index() * 2 + part - 1) * problem.channels + window.channel() + c] =
            token >= 0 ? 0.0f : count * value;
      }
    };
  };
  Product(n, d, n, {d_p, logits_stride}, {k, stride}, store(0));
  ProductTransposedA(n, d, n, {d_p, logits_stride}, {q, stride}, store(1));
  ProductTransposedA(n, d, n, {p, logits_stride}, {d_o, stride}, store(2));
}

Problem ProblemOf(const WindowAttentionShape& shape) {
  return {.height = shape.height,
          .width = shape.width,
          .channels = shape.channels(),
          .window = static_cast<int>(shape.window),
          .head_dim = static_cast<int>(shape.head_dim),
          .num_heads = static_cast<int>(shape.num_heads),
          .window_rows = shape.window_rows(),
          .window_columns = shape.window_columns(),
          .scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim))};
}

// Bytes of `tiles` [tokens, head_dim] and `logits` [tokens, tokens].
int64_t SharedBytes(const Problem& problem, int tiles, int logits) {
  constexpr int64_t kMaxBytes = int64_t{227} << 10;
  const int64_t floats =
      int64_t{tiles} * problem.tile_floats() + int64_t{logits} * problem.logits_floats();
  if (floats * 4 > kMaxBytes) {
    std::fprintf(stderr, "window_attention: windows of %d x %d with head_dim %d are too large\n",
                 problem.window, problem.window, problem.head_dim);
    std::abort();
  }
  return floats * 4;
}

int64_t NumWindows(const WindowAttentionShape& shape) {
  return shape.batch * shape.window_rows() * shape.window_columns();
}

bool UsesPacks(const WindowAttentionShape& shape, const void* qkv, const void* out) {
  return shape.head_dim % kPackedElements == 0 && IsAligned16(qkv) && IsAligned16(out);
}

void WindowForwardCuda(const WindowAttentionArgs& args) {
  const Problem problem = ProblemOf(args.shape);
  const Extent grid = {.x = NumWindows(args.shape) * args.shape.num_heads};
  const int64_t bytes = SharedBytes(problem, 3, 1);
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    const T* qkv = static_cast<const T*>(args.qkv);
    T* out = static_cast<T*>(args.out);
    if (UsesPacks(args.shape, qkv, out)) {
      Launch<Forward<kPackedElements, T>>(grid, {.x = kTileThreads}, bytes, CurrentStream(),
                                          problem, qkv, args.qkv_bias, out);
    } else {
      Launch<Forward<1, T>>(grid, {.x = kTileThreads}, bytes, CurrentStream(), problem, qkv,
                            args.qkv_bias, out);
    }
  });
}

void WindowBackwardCuda(const WindowAttentionGradArgs& args) {
  const Problem problem = ProblemOf(args.shape);
  const int64_t windows = NumWindows(args.shape), channels = args.shape.channels();
  const Extent grid = {.x = windows * args.shape.num_heads};
  const int64_t bytes = SharedBytes(problem, 4, 2);
  const Workspace<float> padding(args.d_padding_bias == nullptr ? 0 : windows * 2 * channels);
  float* partials = args.d_padding_bias == nullptr ? nullptr : padding.data();
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    const T* qkv = static_cast<const T*>(args.qkv);
    const T* d_out = static_cast<const T*>(args.d_out);
    T* d_qkv = static_cast<T*>(args.d_qkv);
    if (UsesPacks(args.shape, qkv, d_out)) {
      Launch<Backward<kPackedElements, T>>(grid, {.x = kTileThreads}, bytes, CurrentStream(),
                                           problem, qkv, args.qkv_bias, d_out, d_qkv, partials);
    } else {
      Launch<Backward<1, T>>(grid, {.x = kTileThreads}, bytes, CurrentStream(), problem, qkv,
                             args.qkv_bias, d_out, d_qkv, partials);
    }
  });
  if (args.d_padding_bias == nullptr) return;
  LaunchAddUpPartials(nullptr, 0, 0, channels, {.out = args.d_padding_bias});
  LaunchAddUpPartials(partials, windows, 2 * channels, 2 * channels,
                      {.out = args.d_padding_bias + channels});
}

REGISTER_CUDA_KERNEL(window_attention_forward, WindowForwardCuda);
REGISTER_CUDA_KERNEL(window_attention_backward, WindowBackwardCuda);

}  // namespace
}  // namespace tessera
