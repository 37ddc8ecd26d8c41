// Bi-level routing attention on the CPU. A task is one head of one image: it packs the head's keys
// and values once, by regions, and then takes region after region of queries to the groups of the
// regions that it chose. So the gradients of keys and values are sums of one task in a fixed order.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention/bilevel_routing/bilevel_routing_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>

#include "attention/bilevel_routing/bilevel_routing_kernel.h"
#include "attention/bilevel_routing/token_groups-inl.h"
#include "attention/scratch.h"
#include "core/parallel.h"
#include "tensor/ops/float_types.h"
#include "tensor/tensor.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

// The tokens of every region as indices into an image, in whole groups; -1 for positions past the
// map and past the region's end.
class RegionTokens {
 public:
  explicit RegionTokens(const RoutedAttentionShape& s)
      : per_region_(NumChunks(s.region_tokens(), kGroup) * kGroup),
        tokens_(Tensor::Empty({s.regions(), per_region_}, DType::kI64)) {
    int64_t* to = tokens_.data<int64_t>();
    for (int64_t region = 0; region < s.regions(); ++region, to += per_region_) {
      const int64_t top = region / s.region_columns() * s.region_height;
      const int64_t left = region % s.region_columns() * s.region_width;
      std::fill_n(to, per_region_, -1);
      for (int64_t i = 0; i < s.region_height && top + i < s.height; ++i) {
        for (int64_t j = 0; j < s.region_width && left + j < s.width; ++j) {
          to[i * s.region_width + j] = (top + i) * s.width + left + j;
        }
      }
    }
  }
  int64_t per_region() const { return per_region_; }
  const int64_t* Of(int64_t region) const { return tokens_.data<int64_t>() + region * per_region_; }

 private:
  int64_t per_region_;
  Tensor tokens_;
};

// For every region of every image, the groups of the regions that it chose.
class GroupLists {
 public:
  GroupLists(const RoutedAttentionShape& s, const int32_t* routes, int64_t region_groups)
      : size_(s.topk * region_groups),
        region_groups_(region_groups),
        lists_(Tensor::Empty({s.batch * s.regions() * size_ + region_groups}, DType::kI32)) {
    int32_t* to = lists_.data<int32_t>();
    for (int64_t i = 0; i < s.batch * s.regions() * s.topk; ++i) {
      for (int64_t g = 0; g < region_groups; ++g) {
        *to++ = routes[i] * static_cast<int32_t>(region_groups) + static_cast<int32_t>(g);
      }
    }
    std::iota(to, to + region_groups, 0);
  }
  GroupList Of(int64_t region_of_batch) const {
    return {lists_.data<int32_t>() + region_of_batch * size_, size_};
  }
  // For a region that is packed alone.
  GroupList OfOneRegion() const {
    return {lists_.data<int32_t>() + lists_.numel() - region_groups_, region_groups_};
  }

 private:
  int64_t size_, region_groups_;
  Tensor lists_;
};

// What all tasks of a call share.
struct Problem {
  explicit Problem(const RoutedAttentionShape& s, const int32_t* routes)
      : shape(s),
        tokens(s),
        region_groups(tokens.per_region() / kGroup),
        lists(s, routes, region_groups),
        row_stride(RoundToVectors(s.head_dim)) {}

  // The region after this one, if there is one.
  int64_t Next(int64_t region) const { return std::min(region + 1, shape.regions() - 1); }
  int64_t image_tokens() const { return shape.height * shape.width; }
  int64_t group_floats() const { return kGroup * row_stride; }
  // One head of an image, in groups or in rows.
  int64_t head_floats() const { return shape.regions() * region_floats(); }
  int64_t region_floats() const { return region_groups * group_floats(); }
  int64_t list_size() const { return shape.topk * region_groups; }
  int64_t region_vectors() const { return NumChunks(shape.region_tokens(), kVectorQueries); }
  int64_t max_logits() const { return list_size() * kMaxVectors * kLanes; }

  const RoutedAttentionShape& shape;
  RegionTokens tokens;
  int64_t region_groups;
  GroupLists lists;
  int64_t row_stride;
};

// A head's channels of one tensor: the first one of the image's first token, and how far apart
// tokens are.
template <typename T>
struct HeadRows {
  T* data;
  int64_t stride;

  T* Row(int64_t token) const { return token < 0 ? nullptr : data + token * stride; }
  // For reading soon: rows lie too far apart for the processor to see it coming.
  void Prefetch(int64_t token, int64_t head_dim) const {
    const char* row = reinterpret_cast<const char*>(Row(std::max<int64_t>(token, 0)));
    for (int64_t i = 0; i < head_dim * static_cast<int64_t>(sizeof(T)); i += 64) {
      hwy::Prefetch(row + i);
    }
  }
};

// A region's tokens, while those of the region that is needed next are fetched.
template <typename T>
void PackGroups(const Problem& problem, const HeadRows<const T>& from, int64_t region, int64_t next,
                float* to) {
  const int64_t* tokens = problem.tokens.Of(region);
  const int64_t* ahead = problem.tokens.Of(next);
  for (int64_t g = 0; g < problem.region_groups; ++g, tokens += kGroup) {
    for (int64_t i = 0; i < kGroup; ++i) {
      from.Prefetch(ahead[g * kGroup + i], problem.shape.head_dim);
    }
    const T* const rows[kGroup] = {from.Row(tokens[0]), from.Row(tokens[1]), from.Row(tokens[2]),
                                   from.Row(tokens[3])};
    PackGroup(rows, problem.shape.head_dim, to + g * problem.group_floats());
  }
}

template <typename T>
void PackRows(const Problem& problem, const HeadRows<const T>& from, int64_t region, int64_t next,
              float* to) {
  const int64_t* tokens = problem.tokens.Of(region);
  const int64_t* ahead = problem.tokens.Of(next);
  for (int64_t i = 0; i < problem.tokens.per_region(); ++i, to += problem.row_stride) {
    from.Prefetch(ahead[i], problem.shape.head_dim);
    if (const T* row = from.Row(tokens[i]); row != nullptr) {
      LoadRow(row, problem.shape.head_dim, problem.row_stride, 1.0f, to);
    } else {
      std::fill_n(to, problem.row_stride, 0.0f);
    }
  }
}

// The opposite, for `count` rows from position `first` of a region.
template <typename T>
void UnpackRows(const Problem& problem, const float* from, int64_t region, int64_t first,
                int64_t count, const HeadRows<T>& to) {
  const int64_t* tokens = problem.tokens.Of(region) + first;
  for (int64_t i = 0; i < count; ++i) {
    if (T* row = to.Row(tokens[i]); row != nullptr) {
      StoreRow(from + i * problem.row_stride, problem.shape.head_dim, 1.0f, row);
    }
  }
}

// exps = 2^(scale log2(e) q k^T) over the largest, for some query vectors of a region.
void ExpLogits(const Problem& problem, const GroupList& list, const float* queries, int64_t first,
               int64_t vectors, const float* keys, float* exps, float* inverse_sums) {
  Logits(problem.shape.head_dim, queries, first, vectors, keys, problem.group_floats(), list, exps);
  if (const int64_t rest = problem.shape.region_tokens() % kGroup; rest != 0) {
    MaskKeys(list.size, problem.region_groups, vectors, rest, exps);
  }
  ExpOfLogits(list.size, vectors, problem.shape.scale * kLog2E, exps, inverse_sums);
}

// Calls fn(first, count) for the query vectors of a region.
template <typename Fn>
void ForEachBlock(const Problem& problem, const Fn& fn) {
  const int64_t vectors = problem.region_vectors();
  for (int64_t v = 0; v < vectors; v += kMaxVectors) fn(v, std::min(kMaxVectors, vectors - v));
}

// Head `head` of an image in a tensor [B, H, W, parts * C], of which it is part `part`.
template <typename T>
HeadRows<T> RowsOf(const Problem& problem, int64_t image, int64_t head, T* data, int64_t parts,
                   int64_t part) {
  const int64_t channels = problem.shape.channels(), stride = parts * channels;
  return {data + image * problem.image_tokens() * stride + part * channels +
              head * problem.shape.head_dim,
          stride};
}

template <typename T>
void ForwardHead(const RoutedAttentionArgs& args, const Problem& problem, int64_t image,
                 int64_t head) {
  const T* qkv = static_cast<const T*>(args.qkv);
  const auto part = [&](int64_t p) { return RowsOf(problem, image, head, qkv, 3, p); };
  const auto out = RowsOf(problem, image, head, static_cast<T*>(args.out), 1, 0);
  const int64_t regions = problem.shape.regions(), region_floats = problem.region_floats();
  // Where each region chose only one, that is packed when its turn comes, and stays in the L1
  // cache.
  const bool one_each = problem.shape.topk == 1;
  const int64_t packed_floats = one_each ? region_floats : problem.head_floats();
  ScratchFloats scratch(2 * packed_floats + region_floats + problem.max_logits() +
                        kMaxVectors * kLanes * (1 + problem.row_stride));
  float* keys = scratch.Take(packed_floats);
  float* values = scratch.Take(packed_floats);
  float* queries = scratch.Take(region_floats);
  float* exps = scratch.Take(problem.max_logits());
  float* inverse_sums = scratch.Take(kMaxVectors * kLanes);
  float* rows = scratch.Take(kMaxVectors * kVectorQueries * problem.row_stride);
  for (int64_t region = 0; !one_each && region < regions; ++region) {
    PackGroups(problem, part(1), region, problem.Next(region), keys + region * region_floats);
    PackRows(problem, part(2), region, problem.Next(region), values + region * region_floats);
  }
  const int32_t* routes = args.routes + image * regions;
  for (int64_t region = 0; region < regions; ++region) {
    PackGroups(problem, part(0), region, problem.Next(region), queries);
    if (one_each) {
      PackGroups(problem, part(1), routes[region], routes[problem.Next(region)], keys);
      PackRows(problem, part(2), routes[region], routes[problem.Next(region)], values);
    }
    const GroupList list =
        one_each ? problem.lists.OfOneRegion() : problem.lists.Of(image * regions + region);
    ForEachBlock(problem, [&](int64_t first, int64_t vectors) HWY_ATTR {
      ExpLogits(problem, list, queries, first, vectors, keys, exps, inverse_sums);
      WeightedRows(exps, vectors, values, problem.row_stride, list, rows);
      const int64_t* tokens = problem.tokens.Of(region) + first * kVectorQueries;
      for (int64_t q = 0; q < vectors * kVectorQueries; ++q) {
        if (T* row = out.Row(tokens[q]); row != nullptr) {
          StoreRow(rows + q * problem.row_stride, problem.shape.head_dim, inverse_sums[q * kGroup],
                   row);
        }
      }
    });
  }
}

template <typename T>
void BackwardHead(const RoutedAttentionGradArgs& args, const Problem& problem, int64_t image,
                  int64_t head) {
  const auto part = [&](int64_t p) {
    return RowsOf(problem, image, head, static_cast<const T*>(args.qkv), 3, p);
  };
  const auto d_part = [&](int64_t p) {
    return RowsOf(problem, image, head, static_cast<T*>(args.d_qkv), 3, p);
  };
  const auto d_out = RowsOf(problem, image, head, static_cast<const T*>(args.d_out), 1, 0);
  const int64_t regions = problem.shape.regions(), region_floats = problem.region_floats();
  const int64_t head_floats = problem.head_floats(), row_stride = problem.row_stride;
  ScratchFloats scratch(5 * head_floats + 4 * region_floats + 2 * problem.max_logits() +
                        kMaxVectors * kLanes * (1 + row_stride));
  float* keys = scratch.Take(head_floats);
  float* key_rows = scratch.Take(head_floats);
  float* values = scratch.Take(head_floats);
  float* d_keys = scratch.Take(head_floats);
  float* d_values = scratch.Take(head_floats);
  float* queries = scratch.Take(region_floats);
  float* query_rows = scratch.Take(region_floats);
  float* d_outs = scratch.Take(region_floats);
  float* d_out_rows = scratch.Take(region_floats);
  float* p = scratch.Take(problem.max_logits());
  float* d_logits = scratch.Take(problem.max_logits());
  float* inverse_sums = scratch.Take(kMaxVectors * kLanes);
  float* rows = scratch.Take(kMaxVectors * kVectorQueries * row_stride);
  std::fill_n(d_keys, head_floats, 0.0f);
  std::fill_n(d_values, head_floats, 0.0f);
  for (int64_t region = 0; region < regions; ++region) {
    PackGroups(problem, part(1), region, problem.Next(region), keys + region * region_floats);
    PackRows(problem, part(1), region, problem.Next(region), key_rows + region * region_floats);
    PackGroups(problem, part(2), region, problem.Next(region), values + region * region_floats);
  }
  for (int64_t region = 0; region < regions; ++region) {
    const GroupList list = problem.lists.Of(image * regions + region);
    PackGroups(problem, part(0), region, problem.Next(region), queries);
    PackRows(problem, part(0), region, problem.Next(region), query_rows);
    PackGroups(problem, d_out, region, problem.Next(region), d_outs);
    PackRows(problem, d_out, region, problem.Next(region), d_out_rows);
    ForEachBlock(problem, [&](int64_t first, int64_t vectors) HWY_ATTR {
      const int64_t first_row = first * kVectorQueries * row_stride;
      ExpLogits(problem, list, queries, first, vectors, keys, p, inverse_sums);
      Logits(problem.shape.head_dim, d_outs, first, vectors, values, problem.group_floats(), list,
             d_logits);
      SoftmaxBackwardOfLogits(list.size, vectors, problem.shape.scale, inverse_sums, p, d_logits);
      WeightedRows(d_logits, vectors, key_rows, row_stride, list, rows);
      UnpackRows(problem, rows, region, first * kVectorQueries, vectors * kVectorQueries,
                 d_part(0));
      AddOuter(p, vectors, d_out_rows + first_row, row_stride, list, d_values);
      AddOuter(d_logits, vectors, query_rows + first_row, row_stride, list, d_keys);
    });
  }
  for (int64_t region = 0; region < regions; ++region) {
    const int64_t at = region * region_floats, count = problem.tokens.per_region();
    UnpackRows(problem, d_keys + at, region, 0, count, d_part(1));
    UnpackRows(problem, d_values + at, region, 0, count, d_part(2));
  }
}

// Calls fn(image, head) in parallel.
template <typename Fn>
void ForEachHead(const RoutedAttentionShape& shape, const Fn& fn) {
  ParallelFor(shape.batch * shape.num_heads, 1, [&](int64_t task, int64_t) HWY_ATTR {
    fn(task / shape.num_heads, task % shape.num_heads);
  });
}

// means [2 C]: of the queries and the keys of a region's tokens.
template <typename T>
void RegionMeans(const RoutedAttentionShape& shape, const T* image, const int64_t* tokens,
                 int64_t count, float* means) {
  const FloatTag df;
  const int64_t channels = 2 * shape.channels();
  std::fill_n(means, channels, 0.0f);
  int64_t inside = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (tokens[i] < 0) continue;
    ++inside;
    const T* row = image + tokens[i] * 3 * shape.channels();
    ForEachVector(df, channels, [&](int64_t c, auto lanes) HWY_ATTR {
      const FloatVec sum = hn::Add(LoadF32N(df, means + c, lanes), LoadF32N(df, row + c, lanes));
      StoreF32N(sum, df, means + c, lanes);
    });
  }
  const FloatVec factor = hn::Set(df, 1.0f / static_cast<float>(inside));
  ForEachVector(df, channels, [&](int64_t c, auto lanes) HWY_ATTR {
    StoreF32N(hn::Mul(LoadF32N(df, means + c, lanes), factor), df, means + c, lanes);
  });
}

float Dot(const float* a, const float* b, int64_t n) {
  const FloatTag df;
  return SumF32(df, SumOverVectors(df, n, [&](int64_t i, auto lanes) HWY_ATTR {
                  return hn::Mul(LoadF32N(df, a + i, lanes), LoadF32N(df, b + i, lanes));
                }));
}

// The indices of the k largest of n scores, descending; the lower index first where they are equal.
void TopIndices(const float* scores, int64_t n, int64_t k, int32_t* top) {
  int64_t found = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (found == k && !(scores[i] > scores[top[k - 1]])) continue;
    int64_t at = found == k ? k - 1 : found++;
    for (; at > 0 && scores[i] > scores[top[at - 1]]; --at) top[at] = top[at - 1];
    top[at] = static_cast<int32_t>(i);
  }
}

template <typename T>
void Route(const RouteArgs& args) {
  const RoutedAttentionShape& shape = args.shape;
  const int64_t regions = shape.regions(), channels = shape.channels();
  const RegionTokens tokens(shape);
  const Tensor means = Tensor::Empty({shape.batch * regions, 2 * channels}, DType::kF32);
  const auto mean = [&](int64_t region) { return means.data<float>() + region * 2 * channels; };
  const int64_t image_elements = shape.height * shape.width * 3 * channels;
  ParallelFor(shape.batch * regions, 1, [&](int64_t i, int64_t) HWY_ATTR {
    RegionMeans(shape, static_cast<const T*>(args.qkv) + i / regions * image_elements,
                tokens.Of(i % regions), tokens.per_region(), mean(i));
  });
  ParallelFor(shape.batch * regions, 1, [&](int64_t i, int64_t) HWY_ATTR {
    ScratchFloats scratch(regions);
    float* scores = scratch.Take(regions);
    for (int64_t other = 0; other < regions; ++other) {
      scores[other] = Dot(mean(i), mean(i / regions * regions + other) + channels, channels);
    }
    TopIndices(scores, regions, shape.topk, args.routes + i * shape.topk);
  });
}

}  // namespace

void RouteRegionsOf(const RouteArgs& args) {
  WithFloatType(args.dtype, [&](auto t) { Route<decltype(t)>(args); });
}

void RoutedForward(const RoutedAttentionArgs& args) {
  const Problem problem(args.shape, args.routes);
  WithFloatType(args.dtype, [&](auto t) {
    ForEachHead(args.shape, [&](int64_t image, int64_t head) {
      ForwardHead<decltype(t)>(args, problem, image, head);
    });
  });
}

void RoutedBackward(const RoutedAttentionGradArgs& args) {
  const Problem problem(args.shape, args.routes);
  WithFloatType(args.dtype, [&](auto t) {
    ForEachHead(args.shape, [&](int64_t image, int64_t head) {
      BackwardHead<decltype(t)>(args, problem, image, head);
    });
  });
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(RouteRegionsOf);
HWY_EXPORT(RoutedForward);
HWY_EXPORT(RoutedBackward);

void RouteCpu(const RouteArgs& args) { HWY_DYNAMIC_DISPATCH(RouteRegionsOf)(args); }
void ForwardCpu(const RoutedAttentionArgs& args) { HWY_DYNAMIC_DISPATCH(RoutedForward)(args); }
void BackwardCpu(const RoutedAttentionGradArgs& args) {
  HWY_DYNAMIC_DISPATCH(RoutedBackward)(args);
}

REGISTER_KERNEL(bilevel_routing_route, Device::kCpu, RouteCpu);
REGISTER_KERNEL(bilevel_routing_forward, Device::kCpu, ForwardCpu);
REGISTER_KERNEL(bilevel_routing_backward, Device::kCpu, BackwardCpu);

}  // namespace
}  // namespace tessera
#endif  // HWY_ONCE
