// Bi-level routing attention on GPUs: a block is a few queries of one region and head. It names the
// keys of the chosen regions by the list of routes and reads them where they lie.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <type_traits>

#include "attention/bilevel_routing/bilevel_routing_kernel.h"
#include "attention/tile_cuda.h"
#include "core/cuda/elementwise.h"
#include "core/cuda/launch.h"
#include "tensor/ops/float_types.h"

namespace tessera {
namespace {

constexpr int kQueries = 32;  // of a block, and keys of a block of the gradient of keys
constexpr int kKeys = 64;     // of a tile

struct Problem {
  int64_t height, width, channels;
  int head_dim, num_heads;
  int region_height, region_width, regions, region_columns, topk;
  float scale;

  HOST_DEVICE int region_tokens() const { return region_height * region_width; }
  HOST_DEVICE int keys() const { return topk * region_tokens(); }
  HOST_DEVICE int stride() const { return TileStride(head_dim); }
  HOST_DEVICE int logits_stride() const { return TileStride(keys()); }
  HOST_DEVICE int blocks() const { return (region_tokens() + kQueries - 1) / kQueries; }
  HOST_DEVICE int64_t image_tokens() const { return height * width; }
};

// Position t of a region as a token of its image; negative past the map or the region.
DEVICE int64_t TokenOf(const Problem& problem, int region, int t) {
  const int64_t y =
      int64_t{region / problem.region_columns} * problem.region_height + t / problem.region_width;
  const int64_t x =
      int64_t{region % problem.region_columns} * problem.region_width + t % problem.region_width;
  if (t >= problem.region_tokens() || y >= problem.height || x >= problem.width) return -1;
  return y * problem.width + x;
}

// The block's image, head, region, and first position in it.
struct Work {
  DEVICE explicit Work(const Problem& problem) {
    int64_t rest = blockIdx.x;
    head = static_cast<int>(rest % problem.num_heads);
    rest /= problem.num_heads;
    first = static_cast<int>(rest % problem.blocks()) * kQueries;
    rest /= problem.blocks();
    region = static_cast<int>(rest % problem.regions);
    image = rest / problem.regions;
    count = problem.region_tokens() - first < kQueries ? problem.region_tokens() - first : kQueries;
  }
  DEVICE int channel(const Problem& problem) const { return head * problem.head_dim; }
  DEVICE int64_t Row(const Problem& problem, int64_t token) const {
    return image * problem.image_tokens() + token;
  }
  DEVICE const int32_t* Routes(const Problem& problem, const int32_t* routes) const {
    return routes + (image * problem.regions + region) * problem.topk;
  }

  int64_t image;
  int head, region, first, count;
};

// tile[i] = the row of `from` at position(i), for i < rows: a token of the image, or negative for
// zeros. Rows are `stride` elements apart, the head's channels `offset` from their start.
template <int kWidth, typename T, typename Position>
DEVICE void LoadRows(const Problem& problem, const Work& work, const T* from, int64_t stride,
                     int64_t offset, int rows, const Position& position, float* tile) {
  LoadTile<kWidth>(tile, rows, problem.head_dim, [&](int i, int column, float(&v)[kWidth]) {
    const int64_t token = position(i);
    if (token >= 0) {
      LoadFloats(from + work.Row(problem, token) * stride + offset + work.channel(problem) + column,
                 v);
    } else {
      UNROLL for (int j = 0; j < kWidth; ++j) v[j] = 0.0f;
    }
  });
}

// Position `key` of the list of all keys that a region attends to.
DEVICE int64_t KeyToken(const Problem& problem, const int32_t* routes, int key) {
  return TokenOf(problem, routes[key / problem.region_tokens()], key % problem.region_tokens());
}

// logits [count, keys] = left right^T, right being part `part` of qkv at the region's keys, which
// pass through `tile` [kKeys, head_dim].
template <int kWidth, typename T>
DEVICE void ProductWithKeys(const Problem& problem, const Work& work, const T* qkv,
                            const int32_t* routes, int part, const float* left, float* tile,
                            float* logits) {
  const int stride = problem.stride(), logits_stride = problem.logits_stride();
  for (int begin = 0; begin < problem.keys(); begin += kKeys) {
    const int n = problem.keys() - begin < kKeys ? problem.keys() - begin : kKeys;
    LoadRows<kWidth>(
        problem, work, qkv, 3 * problem.channels, part * problem.channels, n,
        [&](int i) { return KeyToken(problem, routes, begin + i); }, tile);
    BLOCK_SYNC();
    ProductTransposedB(
        work.count, n, problem.head_dim, {left, stride}, {tile, stride},
        [&](int i, int j, float value) { logits[i * logits_stride + begin + j] = value; });
    BLOCK_SYNC();
  }
}

// Calls store(query, channel, value) for weights [count, keys] times part `part` of qkv at the
// region's keys; `sums` [count, head_dim] is memory for them.
template <int kWidth, typename T, typename Store>
DEVICE void ProductOverKeys(const Problem& problem, const Work& work, const T* qkv,
                            const int32_t* routes, int part, const float* weights, float* tile,
                            float* sums, const Store& store) {
  const int stride = problem.stride(), logits_stride = problem.logits_stride();
  for (int begin = 0; begin < problem.keys(); begin += kKeys) {
    const int n = problem.keys() - begin < kKeys ? problem.keys() - begin : kKeys;
    LoadRows<kWidth>(
        problem, work, qkv, 3 * problem.channels, part * problem.channels, n,
        [&](int i) { return KeyToken(problem, routes, begin + i); }, tile);
    BLOCK_SYNC();
    const bool last = begin + n == problem.keys();
    Product(work.count, problem.head_dim, n, {weights + begin, logits_stride}, {tile, stride},
            [&](int i, int c, float value) {
              float& sum = sums[i * stride + c];
              sum = begin == 0 ? value : sum + value;
              if (last) store(i, c, sum);
            });
    BLOCK_SYNC();
  }
}

// What both passes start with: queries [count, head_dim] and softmax(scale q k^T) [count, keys].
template <int kWidth, typename T>
DEVICE void Probabilities(const Problem& problem, const Work& work, const T* qkv,
                          const int32_t* routes, float* q, float* tile, float* p) {
  LoadRows<kWidth>(
      problem, work, qkv, 3 * problem.channels, 0, work.count,
      [&](int i) { return TokenOf(problem, work.region, work.first + i); }, q);
  BLOCK_SYNC();
  ProductWithKeys<kWidth>(problem, work, qkv, routes, 1, q, tile, p);
  for (int i = WarpIndex(); i < work.count; i += kTileWarps) {
    SoftmaxRow(p + i * problem.logits_stride(), problem.keys(), problem.scale);
  }
  BLOCK_SYNC();
}

template <int kWidth, typename T>
KERNEL(kTileThreads)
Forward(Problem problem, const T* qkv, const int32_t* all_routes, T* out) {
  SHARED_DYNAMIC(float, shared);
  const Work work(problem);
  const int32_t* routes = work.Routes(problem, all_routes);
  float* q = shared;
  float* tile = q + kQueries * problem.stride();
  float* p = tile + kKeys * problem.stride();
  Probabilities<kWidth>(problem, work, qkv, routes, q, tile, p);
  // The queries are not needed any more.
  ProductOverKeys<kWidth>(
      problem, work, qkv, routes, 2, p, tile, q, [&](int i, int c, float value) {
        const int64_t token = TokenOf(problem, work.region, work.first + i);
        if (token < 0) return;
        StoreFloat(value,
                   out + work.Row(problem, token) * problem.channels + work.channel(problem) + c);
      });
}

// Gradients of the queries. Of each query and head, `statistics` [tokens, num_heads, 3] gets what
// the gradients of the keys need: the largest scaled logit, 1 / the sum of exponentials, and the
// sum of p dp.
template <int kWidth, typename T>
KERNEL(kTileThreads)
BackwardQueries(Problem problem, const T* qkv, const int32_t* all_routes, const T* d_out, T* d_qkv,
                float* statistics) {
  SHARED_DYNAMIC(float, shared);
  const Work work(problem);
  const int32_t* routes = work.Routes(problem, all_routes);
  const int keys = problem.keys(), logits_stride = problem.logits_stride();
  float* q = shared;
  float* tile = q + kQueries * problem.stride();
  float* p = tile + kKeys * problem.stride();
  float* d_p = p + kQueries * logits_stride;
  const auto position = [&](int i) { return TokenOf(problem, work.region, work.first + i); };
  LoadRows<kWidth>(problem, work, qkv, 3 * problem.channels, 0, work.count, position, q);
  BLOCK_SYNC();
  ProductWithKeys<kWidth>(problem, work, qkv, routes, 1, q, tile, p);
  LoadRows<kWidth>(problem, work, d_out, problem.channels, 0, work.count, position, q);
  BLOCK_SYNC();
  ProductWithKeys<kWidth>(problem, work, qkv, routes, 2, q, tile, d_p);
  for (int i = WarpIndex(); i < work.count; i += kTileWarps) {
    float* row = p + i * logits_stride;
    float* d_row = d_p + i * logits_stride;
    float max = -INFINITY, sum = 0, dot = 0;
    for (int j = Lane(); j < keys; j += kWarpSize) max = fmaxf(max, row[j]);
    max = problem.scale * WarpMax(max);
    for (int j = Lane(); j < keys; j += kWarpSize) {
      row[j] = expf(problem.scale * row[j] - max);
      sum += row[j];
      dot = fmaf(row[j], d_row[j], dot);
    }
    const float inverse = 1.0f / WarpSum(sum);
    dot = WarpSum(dot) * inverse;
    for (int j = Lane(); j < keys; j += kWarpSize) {
      d_row[j] = problem.scale * row[j] * inverse * (d_row[j] - dot);
    }
    const int64_t token = position(i);
    if (token >= 0 && Lane() == 0) {
      float* to = statistics + (work.Row(problem, token) * problem.num_heads + work.head) * 3;
      to[0] = max;
      to[1] = inverse;
      to[2] = dot;
    }
  }
  BLOCK_SYNC();
  ProductOverKeys<kWidth>(
      problem, work, qkv, routes, 1, d_p, tile, q, [&](int i, int c, float value) {
        const int64_t token = position(i);
        if (token < 0) return;
        StoreFloat(value, d_qkv + work.Row(problem, token) * 3 * problem.channels +
                              work.channel(problem) + c);
      });
}

// True if `region` is in the list of `other`; the same for all threads.
DEVICE bool Attends(const Problem& problem, const Work& work, const int32_t* routes, int other) {
  const int32_t* list = routes + (work.image * problem.regions + other) * problem.topk;
  for (int j = 0; j < problem.topk; ++j) {
    if (list[j] == work.region) return true;
  }
  return false;
}

// Gradients of keys and values: a block takes some keys to all regions that attend to them, in
// order.
template <int kWidth, typename T>
KERNEL(kTileThreads)
BackwardKeys(Problem problem, const T* qkv, const int32_t* routes, const T* d_out,
             const float* statistics, T* d_qkv) {
  SHARED_DYNAMIC(float, shared);
  const Work work(problem);
  const int stride = problem.stride(), tile_floats = kQueries * stride;
  float* k = shared;
  float* v = k + tile_floats;
  float* d_k = v + tile_floats;
  float* d_v = d_k + tile_floats;
  float* q = d_v + tile_floats;
  float* d_o = q + tile_floats;
  float* p = d_o + tile_floats;
  float* d_p = p + kQueries * TileStride(kQueries);
  const auto position = [&](int i) { return TokenOf(problem, work.region, work.first + i); };
  LoadRows<kWidth>(problem, work, qkv, 3 * problem.channels, problem.channels, work.count, position,
                   k);
  LoadRows<kWidth>(problem, work, qkv, 3 * problem.channels, 2 * problem.channels, work.count,
                   position, v);
  for (int i = static_cast<int>(threadIdx.x); i < 2 * tile_floats; i += kTileThreads) d_k[i] = 0;
  BLOCK_SYNC();
  constexpr int kStride = TileStride(kQueries);
  for (int other = 0; other < problem.regions; ++other) {
    if (!Attends(problem, work, routes, other)) continue;
    for (int first = 0; first < problem.region_tokens(); first += kQueries) {
      const int rest = problem.region_tokens() - first, n = rest < kQueries ? rest : kQueries;
      const auto query = [&](int i) { return TokenOf(problem, other, first + i); };
      LoadRows<kWidth>(problem, work, qkv, 3 * problem.channels, 0, n, query, q);
      LoadRows<kWidth>(problem, work, d_out, problem.channels, 0, n, query, d_o);
      BLOCK_SYNC();
      const auto at = [](int i, int j) { return i * kStride + j; };
      ProductTransposedB(n, work.count, problem.head_dim, {q, stride}, {k, stride},
                         [&](int i, int j, float value) { p[at(i, j)] = value; });
      ProductTransposedB(n, work.count, problem.head_dim, {d_o, stride}, {v, stride},
                         [&](int i, int j, float value) { d_p[at(i, j)] = value; });
      BLOCK_SYNC();
      for (int i = static_cast<int>(threadIdx.x); i < n * work.count; i += kTileThreads) {
        const int row = i / work.count, at_i = at(row, i % work.count);
        const int64_t token = query(row);
        float weight = 0, gradient = 0;
        if (token >= 0) {
          const float* s =
              statistics + (work.Row(problem, token) * problem.num_heads + work.head) * 3;
          weight = expf(problem.scale * p[at_i] - s[0]) * s[1];
          gradient = problem.scale * weight * (d_p[at_i] - s[2]);
        }
        p[at_i] = weight;
        d_p[at_i] = gradient;
      }
      BLOCK_SYNC();
      ProductTransposedA(work.count, problem.head_dim, n, {d_p, kStride}, {q, stride},
                         [&](int j, int c, float value) { d_k[j * stride + c] += value; });
      ProductTransposedA(work.count, problem.head_dim, n, {p, kStride}, {d_o, stride},
                         [&](int j, int c, float value) { d_v[j * stride + c] += value; });
      BLOCK_SYNC();
    }
  }
  for (int i = static_cast<int>(threadIdx.x); i < work.count * problem.head_dim;
       i += kTileThreads) {
    const int row = i / problem.head_dim, c = i % problem.head_dim;
    const int64_t token = position(row);
    if (token < 0) continue;
    T* to = d_qkv + work.Row(problem, token) * 3 * problem.channels + problem.channels +
            work.channel(problem) + c;
    StoreFloat(d_k[row * stride + c], to);
    StoreFloat(d_v[row * stride + c], to + problem.channels);
  }
}

// means [B, regions, 2 C]: of the queries and the keys of a region's tokens. A block is a region.
template <typename T>
KERNEL(kTileThreads)
RegionMeans(Problem problem, const T* qkv, float* means) {
  const int region = static_cast<int>(blockIdx.x % problem.regions);
  const int64_t image = blockIdx.x / problem.regions, channels = 2 * problem.channels;
  for (int64_t c = threadIdx.x; c < channels; c += kTileThreads) {
    float sum = 0;
    int inside = 0;
    for (int t = 0; t < problem.region_tokens(); ++t) {
      const int64_t token = TokenOf(problem, region, t);
      if (token < 0) continue;
      ++inside;
      sum += LoadFloat(qkv + (image * problem.image_tokens() + token) * 3 * problem.channels + c);
    }
    means[int64_t{blockIdx.x} * channels + c] = sum / static_cast<float>(inside);
  }
}

// The topk best regions of each region, by warp: descending, the lower index first. A block is a
// region; `shared` holds its scores.
static KERNEL(kTileThreads) TopRegions(Problem problem, const float* means, int32_t* routes) {
  SHARED_DYNAMIC(float, scores);
  const int64_t image = blockIdx.x / problem.regions, channels = problem.channels;
  const float* query = means + int64_t{blockIdx.x} * 2 * channels;
  for (int other = WarpIndex(); other < problem.regions; other += kTileWarps) {
    const float* key = means + (image * problem.regions + other) * 2 * channels + channels;
    float dot = 0;
    for (int64_t c = Lane(); c < channels; c += kWarpSize) dot = fmaf(query[c], key[c], dot);
    dot = WarpSum(dot);
    if (Lane() == 0) scores[other] = dot;
  }
  BLOCK_SYNC();
  if (WarpIndex() > 0) return;
  for (int k = 0; k < problem.topk; ++k) {
    // Lanes look at every 32nd score; then the best of two lanes, five times.
    float best = -INFINITY;
    int index = problem.regions;
    for (int j = Lane(); j < problem.regions; j += kWarpSize) {
      if (scores[j] > best || index == problem.regions) {
        best = scores[j];
        index = j;
      }
    }
    for (int mask = kWarpSize / 2; mask > 0; mask /= 2) {
      const float other = ShuffleXor(best, mask);
      const int other_index = ShuffleXor(index, mask);
      if (other > best || (other == best && other_index < index)) {
        best = other;
        index = other_index;
      }
    }
    WARP_SYNC();
    if (Lane() == 0) {
      routes[int64_t{blockIdx.x} * problem.topk + k] = index;
      scores[index] = -INFINITY;
    }
    WARP_SYNC();
  }
}

Problem ProblemOf(const RoutedAttentionShape& s) {
  return {.height = s.height,
          .width = s.width,
          .channels = s.channels(),
          .head_dim = static_cast<int>(s.head_dim),
          .num_heads = static_cast<int>(s.num_heads),
          .region_height = static_cast<int>(s.region_height),
          .region_width = static_cast<int>(s.region_width),
          .regions = static_cast<int>(s.regions()),
          .region_columns = static_cast<int>(s.region_columns()),
          .topk = static_cast<int>(s.topk),
          .scale = s.scale};
}

// Bytes of `tiles` rows of head_dim channels, `logits` rows of all keys and `more` floats.
int64_t SharedBytes(const Problem& problem, int tiles, int logits, int more) {
  constexpr int64_t kMaxBytes = int64_t{227} << 10;
  const int64_t floats =
      int64_t{tiles} * problem.stride() + int64_t{logits} * problem.logits_stride() + more;
  if (floats * 4 > kMaxBytes) {
    std::fprintf(stderr, "bilevel_routing: %d keys with head_dim %d are too many\n", problem.keys(),
                 problem.head_dim);
    std::abort();
  }
  return floats * 4;
}

Extent GridOf(const RoutedAttentionShape& shape, const Problem& problem) {
  return {.x = shape.batch * problem.regions * problem.blocks() * problem.num_heads};
}

void RouteCuda(const RouteArgs& args) {
  const Problem problem = ProblemOf(args.shape);
  const int64_t regions = args.shape.batch * problem.regions;
  const Workspace<float> means(regions * 2 * problem.channels);
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    Launch<RegionMeans<T>>({.x = regions}, {.x = kTileThreads}, 0, CurrentStream(), problem,
                           static_cast<const T*>(args.qkv), means.data());
  });
  Launch<TopRegions>({.x = regions}, {.x = kTileThreads}, problem.regions * 4, CurrentStream(),
                     problem, means.data(), args.routes);
}

// Calls fn(integral constant of a width, T()): packs where sizes and addresses allow them.
template <typename Fn>
void WithWidth(const RoutedAttentionShape& shape, DType dtype, const void* a, const void* b,
               const Fn& fn) {
  const bool packs = shape.head_dim % kPackedElements == 0 && IsAligned16(a) && IsAligned16(b);
  WithFloatType(dtype, [&](auto type) {
    if (packs) {
      fn(std::integral_constant<int, kPackedElements>(), type);
    } else {
      fn(std::integral_constant<int, 1>(), type);
    }
  });
}

void ForwardCuda(const RoutedAttentionArgs& args) {
  const Problem problem = ProblemOf(args.shape);
  const int64_t bytes = SharedBytes(problem, kQueries + kKeys, kQueries, 0);
  WithWidth(args.shape, args.dtype, args.qkv, args.out, [&](auto width, auto type) {
    using T = decltype(type);
    Launch<Forward<width(), T>>(GridOf(args.shape, problem), {.x = kTileThreads}, bytes,
                                CurrentStream(), problem, static_cast<const T*>(args.qkv),
                                args.routes, static_cast<T*>(args.out));
  });
}

void BackwardCuda(const RoutedAttentionGradArgs& args) {
  const Problem problem = ProblemOf(args.shape);
  const Extent grid = GridOf(args.shape, problem);
  const int64_t query_bytes = SharedBytes(problem, kQueries + kKeys, 2 * kQueries, 0);
  const int64_t key_bytes =
      SharedBytes(problem, 6 * kQueries, 0, 2 * kQueries * TileStride(kQueries));
  const Workspace<float> statistics(args.shape.tokens() * args.shape.num_heads * 3);
  WithWidth(args.shape, args.dtype, args.qkv, args.d_out, [&](auto width, auto type) {
    using T = decltype(type);
    const T* qkv = static_cast<const T*>(args.qkv);
    const T* d_out = static_cast<const T*>(args.d_out);
    T* d_qkv = static_cast<T*>(args.d_qkv);
    Launch<BackwardQueries<width(), T>>(grid, {.x = kTileThreads}, query_bytes, CurrentStream(),
                                        problem, qkv, args.routes, d_out, d_qkv, statistics.data());
    Launch<BackwardKeys<width(), T>>(grid, {.x = kTileThreads}, key_bytes, CurrentStream(), problem,
                                     qkv, args.routes, d_out, statistics.data(), d_qkv);
  });
}

REGISTER_CUDA_KERNEL(bilevel_routing_route, RouteCuda);
REGISTER_CUDA_KERNEL(bilevel_routing_forward, ForwardCuda);
REGISTER_CUDA_KERNEL(bilevel_routing_backward, BackwardCuda);

}  // namespace
}  // namespace tessera
