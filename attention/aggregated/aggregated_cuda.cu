// Aggregated attention on GPUs. A block works on a head and a tile of consecutive queries, for one
// image after another; pooled keys pass through shared memory in chunks, neighbours come from
// caches. Gradients of keys and values are a pass of their own, which gathers from what the queries
// left in a workspace.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "attention/aggregated/aggregated_kernel.h"
#include "attention/aggregated/queries_cuda.h"
#include "attention/tile_cuda.h"
#include "core/cuda/column_sums.h"
#include "core/cuda/elementwise.h"
#include "tensor/ops/float_types.h"

namespace tessera {
namespace {

template <typename T>
KERNEL(kTileThreads)
Forward(Problem p, Maps<T> maps, T* out) {
  SHARED_DYNAMIC(float, memory);
  const Shared s(p, memory);
  const Tile tile(p);
  const int n = tile.count(), thread = static_cast<int>(threadIdx.x);
  const int64_t image = blockIdx.y;
  Attend(p, tile, s, maps, image);
  for (int e = thread; e < n * p.d; e += kTileThreads) {
    const int i = e / p.d, c = e % p.d;
    float sum = 0;
    for (int slot = 0; slot < p.slots; ++slot) {
      const int neighbour = tile.Neighbour(i, slot);
      if (neighbour < 0) continue;
      const float weight =
          s.logits[i * p.key_stride() + slot] + s.dynamic[i * p.slot_stride() + slot];
      sum = fmaf(weight, LoadFloat(maps.v + tile.Row(image, neighbour, p.kv_stride) + c), sum);
    }
    s.result[i * p.d_stride() + c] = sum;
  }
  for (int begin = 0; begin < p.pooled; begin += kChunk) {
    const int keys = LoadChunk(p, tile, s, maps.pooled_v, image, begin);
    Product(n, p.d, keys, {s.logits + p.slots + begin, p.key_stride()}, {s.chunk, p.d_stride()},
            [&](int i, int c, float value) { s.result[i * p.d_stride() + c] += value; });
  }
  BLOCK_SYNC();
  for (int e = thread; e < n * p.d; e += kTileThreads) {
    const int i = e / p.d, c = e % p.d;
    StoreFloat(s.result[i * p.d_stride() + c],
               out + tile.Row(image, tile.Position(i), p.channels) + c);
  }
}

// What the pass over queries leaves behind, all f32.
struct Workspaces {
  float* q_scaled;  // [tokens, C]
  float* d_logits;  // [tokens, heads, slots]
  float* weights;   // [tokens, heads, slots]
  float* pooled;    // [tiles, B, heads, P, 2d]: gradients of pooled keys, normalised, and values
  float* position_bias;  // [blockIdx.y, heads, positions, P]
  float* parameters;     // [blockIdx.y, tiles, heads, sums()]
};

template <typename T>
struct QueryGradient {
  const Problem& p;
  const Tile& tile;
  const Shared& s;
  const Maps<T>& maps;
  const T* d_out;
  T* d_q;
  const Workspaces& to;
  float* d_o;  // [queries, d], shared
  float* d_p;  // [queries, keys], shared: of probabilities, then of logits
  int64_t image;
  bool first;  // image of the block

  // Adds `value` to an element of a sum over the block's images, always by the same thread.
  DEVICE void Add(float* at, float value) const { *at = first ? value : *at + value; }
  DEVICE int n() const { return tile.count(); }

  DEVICE void Run() const {
    LoadTile<1>(d_o, n(), p.d, [&](int i, int c, float(&v)[1]) {
      v[0] = LoadFloat(d_out + tile.Row(image, tile.Position(i), p.channels) + c);
    });
    BLOCK_SYNC();
    WeightGradients();
    ParametersOfWeights();
    BLOCK_SYNC();
    for (int i = WarpIndex(); i < n(); i += kTileWarps) {
      SoftmaxBackwardRow(s.logits + i * p.key_stride(), d_p + i * p.key_stride(), p.keys(), 1.0f);
    }
    BLOCK_SYNC();
    LeaveForKeys();
    PooledGradients();
    BLOCK_SYNC();
    QueryRows();
  }

  // d_p: gradients of all weights of values.
  DEVICE void WeightGradients() const {
    for (int e = static_cast<int>(threadIdx.x); e < n() * p.slots; e += kTileThreads) {
      const int i = e / p.slots, slot = e % p.slots, neighbour = tile.Neighbour(i, slot);
      d_p[i * p.key_stride() + slot] =
          neighbour < 0
              ? 0.0f
              : DotRow(p, d_o + i * p.d_stride(), maps.v + tile.Row(image, neighbour, p.kv_stride));
    }
    for (int begin = 0; begin < p.pooled; begin += kChunk) {
      const int keys = LoadChunk(p, tile, s, maps.pooled_v, image, begin);
      ProductTransposedB(n(), keys, p.d, {d_o, p.d_stride()}, {s.chunk, p.d_stride()},
                         [&](int i, int j, float value) {
                           d_p[i * p.key_stride() + p.slots + begin + j] = value;
                         });
    }
    BLOCK_SYNC();
  }

  DEVICE float* Sums() const {
    const int64_t tiles = p.tiles;
    return to.parameters +
           ((blockIdx.y * tiles + tile.index()) * p.num_heads + tile.head()) * p.sums();
  }

  // Of the dynamic weights alone: tokens and token bias; and result = what reaches q through them.
  DEVICE void ParametersOfWeights() const {
    float* tokens = Sums() + p.d + 1 + p.slots;
    float* token_bias = tokens + p.d * p.slots;
    for (int e = static_cast<int>(threadIdx.x); e < p.d * p.slots; e += kTileThreads) {
      const int c = e / p.slots, slot = e % p.slots;
      float sum = 0;
      for (int i = 0; i < n(); ++i) {
        sum = fmaf(s.q_hat[i * p.d_stride() + c], d_p[i * p.key_stride() + slot], sum);
      }
      Add(tokens + e, sum);
    }
    for (int slot = static_cast<int>(threadIdx.x); slot < p.slots; slot += kTileThreads) {
      float sum = 0;
      for (int i = 0; i < n(); ++i) sum += d_p[i * p.key_stride() + slot];
      Add(token_bias + slot, sum);
    }
    for (int e = static_cast<int>(threadIdx.x); e < n() * p.d; e += kTileThreads) {
      const int i = e / p.d, c = e % p.d;
      float sum = 0;
      for (int slot = 0; slot < p.slots; ++slot) {
        sum = fmaf(p.tokens[(tile.head() * p.d + c) * p.slots + slot],
                   d_p[i * p.key_stride() + slot], sum);
      }
      s.result[i * p.d_stride() + c] = sum;
    }
  }

  DEVICE void LeaveForKeys() const {
    for (int e = static_cast<int>(threadIdx.x); e < n() * p.slots; e += kTileThreads) {
      const int i = e / p.slots, slot = e % p.slots;
      const int64_t token = image * p.positions + tile.Position(i);
      const int64_t at = (token * p.num_heads + tile.head()) * p.slots + slot;
      to.d_logits[at] = d_p[i * p.key_stride() + slot];
      to.weights[at] = s.logits[i * p.key_stride() + slot] + s.dynamic[i * p.slot_stride() + slot];
    }
    for (int e = static_cast<int>(threadIdx.x); e < n() * p.d; e += kTileThreads) {
      const int i = e / p.d, c = e % p.d;
      to.q_scaled[tile.Row(image, tile.Position(i), p.channels) + c] =
          s.q_scaled[i * p.d_stride() + c];
    }
    for (int e = static_cast<int>(threadIdx.x); e < n() * p.pooled; e += kTileThreads) {
      const int i = e / p.pooled, j = e % p.pooled;
      const int64_t row = (blockIdx.y * p.num_heads + tile.head()) * p.positions;
      Add(to.position_bias + (row + tile.Position(i)) * p.pooled + j,
          d_p[i * p.key_stride() + p.slots + j]);
    }
    float* local_bias = Sums() + p.d + 1;
    for (int slot = static_cast<int>(threadIdx.x); slot < p.slots; slot += kTileThreads) {
      float sum = 0;
      for (int i = 0; i < n(); ++i) sum += d_p[i * p.key_stride() + slot];
      Add(local_bias + slot, sum);
    }
  }

  // The tile's share of the pooled keys' and values' gradients; d_o becomes the gradient of
  // q_scaled.
  DEVICE void PooledGradients() const {
    const int64_t tile_and_image = tile.index() * p.batch + image;
    float* pooled = to.pooled + (tile_and_image * p.num_heads + tile.head()) * p.pooled * 2 * p.d;
    const Matrix d_logits = {d_p + p.slots, p.key_stride()};
    ProductTransposedA(
        p.pooled, p.d, n(), d_logits, {s.q_scaled, p.d_stride()},
        [&](int j, int c, float value) { pooled[int64_t{j} * 2 * p.d + c] = value; });
    ProductTransposedA(
        p.pooled, p.d, n(), {s.logits + p.slots, p.key_stride()}, {d_o, p.d_stride()},
        [&](int j, int c, float value) { pooled[int64_t{j} * 2 * p.d + p.d + c] = value; });
    BLOCK_SYNC();
    for (int e = static_cast<int>(threadIdx.x); e < n() * p.d; e += kTileThreads) {
      const int i = e / p.d, c = e % p.d;
      float sum = 0;
      for (int slot = 0; slot < p.slots; ++slot) {
        const int neighbour = tile.Neighbour(i, slot);
        if (neighbour < 0) continue;
        const T* k = maps.k + tile.Row(image, neighbour, p.kv_stride);
        sum = fmaf(d_p[i * p.key_stride() + slot], LoadFloat(k + c) * InverseNorm(p, k), sum);
      }
      d_o[i * p.d_stride() + c] = sum;
    }
    for (int begin = 0; begin < p.pooled; begin += kChunk) {
      const int keys = LoadChunk(p, tile, s, maps.pooled_k, image, begin);
      NormalizeRows(p, keys, s.chunk, s.chunk_inverse);
      BLOCK_SYNC();
      Product(n(), p.d, keys, {d_p + p.slots + begin, p.key_stride()}, {s.chunk, p.d_stride()},
              [&](int i, int c, float value) { d_o[i * p.d_stride() + c] += value; });
    }
  }

  DEVICE void QueryRows() const {
    const float softplus = Softplus(p.temperature[tile.head()]);
    const float* embedding = p.query_embedding + tile.head() * p.d;
    for (int c = static_cast<int>(threadIdx.x); c < p.d; c += kTileThreads) {
      float sum = 0;
      for (int i = 0; i < n(); ++i) sum = fmaf(s.length[i], d_o[i * p.d_stride() + c], sum);
      Add(Sums() + c, softplus * sum);
    }
    float d_softplus = 0;
    for (int e = static_cast<int>(threadIdx.x); e < n() * p.d; e += kTileThreads) {
      const int i = e / p.d, c = e % p.d, at = i * p.d_stride() + c;
      const float d = s.length[i] * d_o[at];
      d_softplus = fmaf(d, s.q_hat[at] + embedding[c], d_softplus);
      s.result[at] = fmaf(softplus, d, s.result[at]);
    }
    d_softplus = BlockSum<kTileThreads>(d_softplus);
    if (threadIdx.x == 0) {
      Add(Sums() + p.d, d_softplus / (1.0f + expf(-p.temperature[tile.head()])));
    }
    BLOCK_SYNC();
    for (int i = WarpIndex(); i < n(); i += kTileWarps) {
      float dot = 0;
      for (int c = Lane(); c < p.d; c += kWarpSize) {
        const int at = i * p.d_stride() + c;
        dot = fmaf(s.q_hat[at], s.result[at], dot);
      }
      dot = s.q_inverse[i] < 1.0f / kMinNorm ? WarpSum(dot) : WarpSum(0.0f);
      for (int c = Lane(); c < p.d; c += kWarpSize) {
        const int at = i * p.d_stride() + c;
        StoreFloat((s.result[at] - s.q_hat[at] * dot) * s.q_inverse[i],
                   d_q + tile.Row(image, tile.Position(i), p.q_stride) + c);
      }
    }
  }
};

template <typename T>
KERNEL(kTileThreads)
BackwardQueries(Problem p, Maps<T> maps, const T* d_out, T* d_q, Workspaces to) {
  SHARED_DYNAMIC(float, memory);
  const Shared s(p, memory);
  const Tile tile(p);
  float* d_o = s.end;
  float* d_p = d_o + p.queries * p.d_stride();
  const int64_t begin = blockIdx.y * p.images;
  for (int64_t image = begin; image < p.batch && image < begin + p.images; ++image) {
    Attend(p, tile, s, maps, image);
    const QueryGradient<T> gradient = {p,  tile, s,   maps,  d_out,         d_q,
                                       to, d_o,  d_p, image, image == begin};
    gradient.Run();
  }
}

// Row of d sums in shared memory -> the gradient of what was normalised to row / |row|. A warp.
template <typename T>
DEVICE void StoreNormalizedGradient(int d, const T* x, const float* d_hat, T* to) {
  float squares = 0, dot = 0;
  for (int c = Lane(); c < d; c += kWarpSize) {
    const float v = LoadFloat(x + c);
    squares = fmaf(v, v, squares);
    dot = fmaf(v, d_hat[c], dot);
  }
  const float inverse = 1.0f / fmaxf(sqrtf(WarpSum(squares)), kMinNorm);
  dot = WarpSum(dot) * inverse;
  if (inverse >= 1.0f / kMinNorm) dot = 0;
  for (int c = Lane(); c < d; c += kWarpSize) {
    StoreFloat((d_hat[c] - LoadFloat(x + c) * inverse * dot) * inverse, to + c);
  }
}

// Keys and values of the map, a warp for a head of a position.
template <typename T>
KERNEL(kTileThreads)
BackwardKeys(Problem p, const T* k, const T* d_out, T* d_k, T* d_v, Workspaces from) {
  SHARED_DYNAMIC(float, memory);
  float* d_hat = memory + WarpIndex() * p.d;
  const int64_t i = int64_t{blockIdx.x} * kTileWarps + WarpIndex();
  const int64_t token = i / p.num_heads;
  if (token >= p.batch * p.positions) return;
  const int head = static_cast<int>(i % p.num_heads);
  const int y = static_cast<int>(token % p.positions) / p.width;
  const int x = static_cast<int>(token % p.positions) % p.width;
  const int64_t row = token * p.kv_stride + head * p.d;
  for (int c = Lane(); c < p.d; c += kWarpSize) {
    float key = 0, value = 0;
    for (int slot = 0; slot < p.slots; ++slot) {
      const int dy = slot / p.window - p.radius, dx = slot % p.window - p.radius;
      if (y - dy < 0 || y - dy >= p.height || x - dx < 0 || x - dx >= p.width) continue;
      const int64_t query = token - dy * p.width - dx;
      const int64_t weight = (query * p.num_heads + head) * p.slots + slot;
      const int64_t at = query * p.channels + head * p.d + c;
      key = fmaf(from.d_logits[weight], from.q_scaled[at], key);
      value = fmaf(from.weights[weight], LoadFloat(d_out + at), value);
    }
    d_hat[c] = key;
    StoreFloat(value, d_v + row + c);
  }
  WARP_SYNC();
  StoreNormalizedGradient(p.d, k + row, d_hat, d_k + row);
}

// Pooled keys and values, a warp for a head of a key: sums over the tiles in order.
template <typename T>
KERNEL(kTileThreads)
BackwardPooled(Problem p, const T* pooled_k, T* d_k, T* d_v, const float* partials) {
  SHARED_DYNAMIC(float, memory);
  float* d_hat = memory + WarpIndex() * p.d;
  const int64_t i = int64_t{blockIdx.x} * kTileWarps + WarpIndex();
  const int64_t image = i / (p.num_heads * p.pooled);
  if (image >= p.batch) return;
  const int head = static_cast<int>(i / p.pooled % p.num_heads),
            key = static_cast<int>(i % p.pooled);
  const int64_t row = (image * p.pooled + key) * p.pooled_stride + head * p.d;
  for (int c = Lane(); c < p.d; c += kWarpSize) {
    float k = 0, v = 0;
    for (int64_t tile = 0; tile < p.tiles; ++tile) {
      const float* at =
          partials + (((tile * p.batch + image) * p.num_heads + head) * p.pooled + key) * 2 * p.d;
      k += at[c];
      v += at[p.d + c];
    }
    d_hat[c] = k;
    StoreFloat(v, d_v + row + c);
  }
  WARP_SYNC();
  StoreNormalizedGradient(p.d, pooled_k + row, d_hat, d_k + row);
}

// Every entry of the table: the pairs of a query and a key that have it, in order.
KERNEL(256) BackwardBias(Problem p, int64_t chunks, const float* partials, float* d_bias) {
  const int64_t i = int64_t{blockIdx.x} * 256 + threadIdx.x;
  if (i >= p.num_heads * p.bias.head_stride) return;
  const int64_t head = i / p.bias.head_stride, entry = i % p.bias.head_stride;
  float sum = 0;
  for (int j = 0; j < p.pooled; ++j) {
    const int64_t distance = entry - p.bias.key_offsets[j];
    if (distance < 0) continue;
    const int64_t y = distance / p.bias.row_stride, x = distance % p.bias.row_stride;
    if (y >= p.height || x >= p.width) continue;
    for (int64_t k = 0; k < chunks; ++k) {
      const int64_t row = (k * p.num_heads + head) * p.positions + y * p.width + x;
      sum += partials[row * p.pooled + j];
    }
  }
  d_bias[i] = sum;
}

// With as many queries in a tile as shared memory has room for.
Problem ProblemOf(const AggregatedAttentionArgs& args, bool backward) {
  const AggregatedAttentionShape& s = args.shape;
  Problem p = {.batch = s.batch,
               .positions = s.positions(),
               .q_stride = args.q_stride,
               .kv_stride = args.kv_stride,
               .pooled_stride = args.pooled_stride,
               .channels = s.channels(),
               .height = static_cast<int>(s.height),
               .width = static_cast<int>(s.width),
               .num_heads = static_cast<int>(s.num_heads),
               .d = static_cast<int>(s.head_dim),
               .window = static_cast<int>(std::max<int64_t>(1, s.window)),
               .radius = static_cast<int>(s.window / 2),
               .slots = static_cast<int>(s.slots()),
               .pooled = static_cast<int>(s.num_pooled),
               .queries = 32,
               .temperature = args.temperature,
               .query_embedding = args.query_embedding,
               .local_bias = args.local_bias,
               .tokens = args.tokens,
               .token_bias = args.token_bias,
               .bias = args.position_bias};
  constexpr int64_t kMaxFloats = (int64_t{227} << 10) / 4;
  const auto floats = [&] {
    return Shared::Floats(p) +
           (backward ? int64_t{p.queries} * (p.d_stride() + p.key_stride()) : 0);
  };
  while (floats() > kMaxFloats && p.queries > 1) p.queries /= 2;
  if (floats() > kMaxFloats) {
    std::fprintf(stderr, "aggregated_attention: %d pooled keys with head_dim %d are too many\n",
                 p.pooled, p.d);
    std::abort();
  }
  p.tiles = static_cast<int>(CeilDiv(p.positions, p.queries));
  p.images = 1;
  return p;
}

template <typename T>
Maps<T> MapsOf(const AggregatedAttentionArgs& args) {
  return {static_cast<const T*>(args.q), static_cast<const T*>(args.k),
          static_cast<const T*>(args.v), static_cast<const T*>(args.pooled_k),
          static_cast<const T*>(args.pooled_v)};
}

void AggregatedForwardCuda(const AggregatedAttentionArgs& args) {
  const Problem p = ProblemOf(args, /*backward=*/false);
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    Launch<Forward<T>>({.x = int64_t{p.tiles} * p.num_heads, .y = p.batch}, {.x = kTileThreads},
                       Shared::Floats(p) * 4, CurrentStream(), p, MapsOf<T>(args),
                       static_cast<T*>(args.out));
  });
}

void AddUpParameters(const Problem& p, int64_t rows, const float* partials,
                     const AggregatedAttentionGradArgs& args) {
  const auto add = [&](int64_t offset, int64_t columns, float* out) {
    if (columns == 0) return;
    LaunchAddUpPartials(partials + offset, rows, int64_t{p.num_heads} * p.sums(), columns,
                        {.out = out});
  };
  for (int64_t head = 0; head < p.num_heads; ++head) {
    const int64_t at = head * p.sums();
    add(at, p.d, args.d_query_embedding + head * p.d);
    add(at + p.d, 1, args.d_temperature + head);
    add(at + p.d + 1, p.slots, args.d_local_bias + head * p.slots);
    add(at + p.d + 1 + p.slots, p.d * p.slots, args.d_tokens + head * p.d * p.slots);
    add(at + p.d + 1 + p.slots + p.d * p.slots, p.slots, args.d_token_bias + head * p.slots);
  }
}

template <typename T>
void Backward(const AggregatedAttentionGradArgs& args) {
  constexpr int64_t kMaxChunks = 8;
  Problem p = ProblemOf(args.forward, /*backward=*/true);
  p.images = CeilDiv(p.batch, kMaxChunks);
  const int64_t chunks = CeilDiv(p.batch, p.images), heads = p.num_heads, d = p.d;
  const int64_t tokens = p.batch * p.positions;
  const Workspace<float> q_scaled(tokens * p.channels), d_logits(tokens * heads * p.slots),
      weights(tokens * heads * p.slots), pooled(p.tiles * p.batch * heads * p.pooled * 2 * d),
      position_bias(chunks * heads * p.positions * p.pooled),
      parameters(chunks * p.tiles * heads * p.sums());
  const Workspaces spaces = {q_scaled.data(), d_logits.data(),      weights.data(),
                             pooled.data(),   position_bias.data(), parameters.data()};
  const Maps<T> maps = MapsOf<T>(args.forward);
  const T* d_out = static_cast<const T*>(args.d_out);
  const int64_t floats = Shared::Floats(p) + int64_t{p.queries} * (p.d_stride() + p.key_stride());
  Launch<BackwardQueries<T>>({.x = p.tiles * heads, .y = chunks}, {.x = kTileThreads}, floats * 4,
                             CurrentStream(), p, maps, d_out, static_cast<T*>(args.d_q), spaces);
  if (p.slots > 0) {
    Launch<BackwardKeys<T>>({.x = CeilDiv(tokens * heads, kTileWarps)}, {.x = kTileThreads},
                            kTileWarps * d * 4, CurrentStream(), p, maps.k, d_out,
                            static_cast<T*>(args.d_k), static_cast<T*>(args.d_v), spaces);
  }
  Launch<BackwardPooled<T>>(
      {.x = CeilDiv(p.batch * heads * p.pooled, kTileWarps)}, {.x = kTileThreads},
      kTileWarps * d * 4, CurrentStream(), p, maps.pooled_k, static_cast<T*>(args.d_pooled_k),
      static_cast<T*>(args.d_pooled_v), static_cast<const float*>(spaces.pooled));
  Launch<BackwardBias>({.x = CeilDiv(heads * p.bias.head_stride, 256)}, {.x = 256}, 0,
                       CurrentStream(), p, chunks, static_cast<const float*>(spaces.position_bias),
                       args.d_position_bias);
  AddUpParameters(p, chunks * p.tiles, spaces.parameters, args);
}

void AggregatedBackwardCuda(const AggregatedAttentionGradArgs& args) {
  WithFloatType(args.forward.dtype, [&](auto type) { Backward<decltype(type)>(args); });
}

REGISTER_CUDA_KERNEL(aggregated_attention_forward, AggregatedForwardCuda);
REGISTER_CUDA_KERNEL(aggregated_attention_backward, AggregatedBackwardCuda);

}  // namespace
}  // namespace tessera
