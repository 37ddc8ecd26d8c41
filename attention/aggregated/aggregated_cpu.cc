// Aggregated attention on the CPU. Sixteen neighbouring queries (with AVX-512) stand in the lanes
// of a vector, so that their neighbourhoods are shifted loads, and a softmax goes down a column.
// Logits exist as a tile of four such vectors; the backward pass computes them again.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention/aggregated/aggregated_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include <algorithm>
#include <cstdint>

#include "attention/aggregated/aggregated_kernel.h"
#include "attention/aggregated/gradient-inl.h"
#include "attention/aggregated/head-inl.h"
#include "attention/scratch.h"
#include "core/parallel.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/partial_sums.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

// Counts the floats of pieces instead of handing them out.
class Count {
 public:
  float* operator()(int64_t n) {
    constexpr int64_t kLineFloats = 16;
    total_ += (n + kLineFloats - 1) / kLineFloats * kLineFloats;
    return nullptr;
  }
  int64_t total() const { return total_; }

 private:
  int64_t total_ = 0;
};

// Rows [begin, end) of the map of one head.
template <typename T>
void ForwardRows(const AggregatedAttentionArgs& args, const Geometry& g,
                 const LengthScales& lengths, int64_t image, int64_t head_index, int64_t begin,
                 int64_t end) {
  const FloatTag df;
  Count count;
  HeadScratch(g, [&](int64_t n) { return count(n); });
  ScratchFloats memory(count.total());
  const HeadScratch s(g, [&](int64_t n) { return memory.Take(n); });
  std::fill_n(s.result, g.d_stride * g.columns, 0.0f);
  const Head<T> head(args, g, lengths, s, image, head_index);
  int64_t loaded = std::max<int64_t>(0, begin - g.radius);
  for (int64_t i = begin * g.row_vectors; i < end * g.row_vectors; i += Geometry::kTileVectors) {
    const TileRange tile = {i, std::min(end * g.row_vectors, i + Geometry::kTileVectors)};
    if (g.slots > 0) {
      const int64_t last = (tile.end - 1) / g.row_vectors;
      const int64_t wanted = std::min(g.shape.height, last + g.radius + 1);
      head.LoadKeyRows(loaded, wanted);
      loaded = wanted;
    }
    head.Attend(tile);
    SmallProduct<Left::kTransposed, FloatTiles>(
        g.d, head.Columns(tile), g.shape.num_pooled, {s.pooled_v, g.d_stride},
        {s.p + g.slots * g.columns, g.columns}, s.result, g.columns, /*accumulate=*/false);
    if (g.slots > 0) {
      ForEachPositionVector(g, tile, [&](const PositionVector& v, int64_t column) HWY_ATTR {
        CombineNeighbours(
            Neighbours<false>{head.values(), g.shape.window, v.y, v.x}, g.d,
            [&](int64_t slot, int64_t, int64_t) HWY_ATTR {
              const int64_t at = slot * g.columns + column;
              return hn::Add(hn::Load(df, s.p + at), hn::Load(df, s.dynamic + at));
            },
            s.result + column, g.columns);
      });
    }
    head.StoreResult(tile, args.out, g.channels);
  }
}

template <typename T>
void Forward(const AggregatedAttentionArgs& args) {
  const AggregatedAttentionShape& shape = args.shape;
  const Geometry g(shape);
  const LengthScales lengths(g);
  // Bands of rows, of 512 queries or more: each loads the keys around it.
  const int64_t band = std::min(shape.height, std::max<int64_t>(1, NumChunks(512, shape.width)));
  const int64_t bands = NumChunks(shape.height, band);
  ParallelFor(shape.batch * shape.num_heads * bands, 1, [&](int64_t i, int64_t) {
    const int64_t begin = i % bands * band, head = i / bands % shape.num_heads;
    ForwardRows<T>(args, g, lengths, i / bands / shape.num_heads, head, begin,
                   std::min(shape.height, begin + band));
  });
}

// One head's sums for the parameters over a chunk of images, in a row of partial sums that holds
// all heads, parameter by parameter.
class ParameterLayout {
 public:
  ParameterLayout(const Geometry& g, int64_t bias_stride)
      : heads_(g.shape.num_heads), d_(g.d), slots_(g.slots), bias_stride_(bias_stride) {}

  ParameterSums At(float* row, int64_t head) const {
    return {.position_bias = row + PositionBias() + head * bias_stride_,
            .query_embedding = row + QueryEmbedding() + head * d_,
            .temperature = row + Temperature() + head,
            .local_bias = row + LocalBias() + head * slots_,
            .tokens = row + Tokens() + head * d_ * slots_,
            .token_bias = row + TokenBias() + head * slots_};
  }
  int64_t width() const { return TokenBias() + heads_ * slots_; }

  void AddUp(const PartialSums& sums, const AggregatedAttentionGradArgs& to) const {
    const auto add = [&](int64_t offset, int64_t n, float* target) {
      if (n > 0) sums.AddUp(offset, n, target, /*accumulate=*/false);
    };
    add(PositionBias(), heads_ * bias_stride_, to.d_position_bias);
    add(QueryEmbedding(), heads_ * d_, to.d_query_embedding);
    add(Temperature(), heads_, to.d_temperature);
    add(LocalBias(), heads_ * slots_, to.d_local_bias);
    add(Tokens(), heads_ * d_ * slots_, to.d_tokens);
    add(TokenBias(), heads_ * slots_, to.d_token_bias);
  }

 private:
  int64_t PositionBias() const { return 0; }
  int64_t QueryEmbedding() const { return heads_ * bias_stride_; }
  int64_t Temperature() const { return QueryEmbedding() + heads_ * d_; }
  int64_t LocalBias() const { return Temperature() + heads_; }
  int64_t Tokens() const { return LocalBias() + heads_ * slots_; }
  int64_t TokenBias() const { return Tokens() + heads_ * d_ * slots_; }

  int64_t heads_, d_, slots_, bias_stride_;
};

template <typename T>
void Backward(const AggregatedAttentionGradArgs& args) {
  const AggregatedAttentionShape& shape = args.forward.shape;
  const Geometry g(shape);
  const LengthScales lengths(g);
  constexpr int64_t kMaxChunks = 8;
  const int64_t chunk = NumChunks(shape.batch, kMaxChunks), chunks = NumChunks(shape.batch, chunk);
  const ParameterLayout layout(g, args.forward.position_bias.head_stride);
  const PartialSums sums(chunks, layout.width());
  ParallelFor(chunks * shape.num_heads, 1, [&](int64_t i, int64_t) {
    const int64_t head = i % shape.num_heads, k = i / shape.num_heads;
    Count count;
    HeadScratch(g, [&](int64_t n) { return count(n); });
    GradScratch(g, [&](int64_t n) { return count(n); });
    ScratchFloats memory(count.total());
    const HeadScratch head_scratch(g, [&](int64_t n) { return memory.Take(n); });
    const GradScratch scratch(g, [&](int64_t n) { return memory.Take(n); });
    const ParameterSums to = layout.At(sums.chunk(k), head);
    const HeadGradient<T> gradient(args, g, head_scratch, scratch, head, to.position_bias);
    for (int64_t b = k * chunk; b < std::min(shape.batch, (k + 1) * chunk); ++b) {
      gradient.Image(b, lengths);
    }
    gradient.SumParameters(to);
  });
  layout.AddUp(sums, args);
}

}  // namespace

void AggregatedForward(const AggregatedAttentionArgs& args) {
  WithFloatType(args.dtype, [&](auto t) { Forward<decltype(t)>(args); });
}

void AggregatedBackward(const AggregatedAttentionGradArgs& args) {
  WithFloatType(args.forward.dtype, [&](auto t) { Backward<decltype(t)>(args); });
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(AggregatedForward);
HWY_EXPORT(AggregatedBackward);

void AggregatedForwardCpu(const AggregatedAttentionArgs& args) {
  HWY_DYNAMIC_DISPATCH(AggregatedForward)(args);
}
void AggregatedBackwardCpu(const AggregatedAttentionGradArgs& args) {
  HWY_DYNAMIC_DISPATCH(AggregatedBackward)(args);
}

REGISTER_KERNEL(aggregated_attention_forward, Device::kCpu, AggregatedForwardCpu);
REGISTER_KERNEL(aggregated_attention_backward, Device::kCpu, AggregatedBackwardCpu);

}  // namespace
}  // namespace tessera
#endif  // HWY_ONCE
