#include "attention/aggregated/aggregated.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "attention/aggregated/aggregated_kernel.h"
#include "autograd/ops/gelu_pool.h"
#include "autograd/tape.h"
#include "tensor/ops/describe.h"
#include "tensor/ops/float_types.h"

namespace tessera {

constinit KernelSlot<void(const AggregatedAttentionArgs&)> aggregated_attention_forward(
    "aggregated_attention_forward");
constinit KernelSlot<void(const AggregatedAttentionGradArgs&)> aggregated_attention_backward(
    "aggregated_attention_backward");

namespace {

// Address of element `offset` of a tensor.
void* At(const Tensor& t, int64_t offset) {
  return static_cast<char*>(t.raw()) + offset * SizeOf(t.dtype());
}

const float* FloatsOf(const Tensor& t) { return t.defined() ? t.data<float>() : nullptr; }

// What both functions hand to their nodes; tensors that one of them does not have are undefined.
struct Operands {
  AggregatedAttentionShape shape;
  Tensor q, kv, pooled_kv;  // without a neighbourhood q is qkv, and the other two are undefined
  Tensor temperature, query_embedding, local_bias, tokens, token_bias, bias;
  Tensor key_offsets;
  int64_t row_stride;

  Operands Detach() const {
    return {shape,
            q.Detach(),
            kv.Detach(),
            pooled_kv.Detach(),
            temperature.Detach(),
            query_embedding.Detach(),
            local_bias.Detach(),
            tokens.Detach(),
            token_bias.Detach(),
            bias.Detach(),
            key_offsets,
            row_stride};
  }
  bool local() const { return shape.window > 0; }
};

// Inputs of the node, in order.
enum Input {
  kQ,
  kKv,
  kPooledKv,
  kTemperature,
  kQueryEmbedding,
  kLocalBias,
  kTokens,
  kTokenBias,
  kBias
};

AggregatedAttentionArgs ArgsOf(const Operands& o) {
  const int64_t channels = o.shape.channels();
  AggregatedAttentionArgs args = {
      .dtype = o.q.dtype(),
      .shape = o.shape,
      .q = o.q.raw(),
      .q_stride = o.q.dim(3),
      .temperature = o.temperature.data<float>(),
      .query_embedding = o.query_embedding.data<float>(),
      .position_bias = {.values = o.bias.data<float>(),
                        .key_offsets = o.key_offsets.data<int64_t>(),
                        .row_stride = o.row_stride,
                        .head_stride = o.bias.numel() / o.shape.num_heads},
      .local_bias = FloatsOf(o.local_bias),
      .tokens = FloatsOf(o.tokens),
      .token_bias = FloatsOf(o.token_bias)};
  if (o.local()) {
    args.k = o.kv.raw();
    args.v = At(o.kv, channels);
    args.kv_stride = 2 * channels;
  }
  const Tensor& pooled = o.local() ? o.pooled_kv : o.q;
  args.pooled_k = At(pooled, o.local() ? 0 : channels);
  args.pooled_v = At(pooled, o.local() ? channels : 2 * channels);
  args.pooled_stride = pooled.dim(-1);
  return args;
}

void Backward(const Operands& o, const GradContext& g) {
  const int64_t channels = o.shape.channels();
  const Tensor d_out = g.out();
  const auto like = [](const Tensor& t) {
    return t.defined() ? Tensor::Empty(t.shape(), t.dtype(), t.device()) : Tensor();
  };
  const auto floats = [](const Tensor& t) { return t.defined() ? t.data<float>() : nullptr; };
  const Tensor d_q = like(o.q), d_kv = like(o.kv), d_pooled_kv = like(o.pooled_kv);
  const Tensor d_temperature = like(o.temperature), d_embedding = like(o.query_embedding);
  const Tensor d_local_bias = like(o.local_bias), d_tokens = like(o.tokens);
  const Tensor d_token_bias = like(o.token_bias), d_bias = like(o.bias);
  const Tensor& d_pooled = o.local() ? d_pooled_kv : d_q;
  aggregated_attention_backward(
      d_out.device(),
      AggregatedAttentionGradArgs{.forward = ArgsOf(o),
                                  .d_out = d_out.raw(),
                                  .d_q = d_q.raw(),
                                  .d_k = d_kv.raw(),
                                  .d_v = o.local() ? At(d_kv, channels) : nullptr,
                                  .d_pooled_k = At(d_pooled, o.local() ? 0 : channels),
                                  .d_pooled_v = At(d_pooled, (o.local() ? 1 : 2) * channels),
                                  .d_temperature = floats(d_temperature),
                                  .d_query_embedding = floats(d_embedding),
                                  .d_position_bias = floats(d_bias),
                                  .d_local_bias = floats(d_local_bias),
                                  .d_tokens = floats(d_tokens),
                                  .d_token_bias = floats(d_token_bias)});
  g.Add(kQ, d_q);
  if (o.local()) {
    g.Add(kKv, d_kv);
    g.Add(kPooledKv, d_pooled_kv);
    g.Add(kLocalBias, d_local_bias);
    g.Add(kTokens, d_tokens);
    g.Add(kTokenBias, d_token_bias);
  }
  g.Add(kTemperature, d_temperature);
  g.Add(kQueryEmbedding, d_embedding);
  g.Add(kBias, d_bias);
}

Tensor Attend(const char* name, const Operands& o) {
  const AggregatedAttentionShape& s = o.shape;
  Tensor out = Tensor::Empty({s.batch, s.height, s.width, s.channels()}, o.q.dtype(), o.q.device());
  if (out.numel() == 0) return out;
  AggregatedAttentionArgs args = ArgsOf(o);
  args.out = out.raw();
  aggregated_attention_forward(o.q.device(), args);
  Record(name,
         {&o.q, &o.kv, &o.pooled_kv, &o.temperature, &o.query_embedding, &o.local_bias, &o.tokens,
          &o.token_bias, &o.bias},
         {&out}, [o = o.Detach()](GradContext& g) { Backward(o, g); });
  return out;
}

void CheckQueries(const Operands& o) {
  const AggregatedAttentionShape& s = o.shape;
  CHECK(IsFloat(o.q.dtype()) && o.temperature.numel() == s.num_heads &&
        o.query_embedding.numel() == s.channels() && o.key_offsets.numel() == s.num_pooled &&
        o.bias.rank() >= 1 && o.bias.dim(0) == s.num_heads)
      << "aggregated_attention: q " << Describe(o.q) << ", " << s.num_heads << " heads, "
      << s.num_pooled << " pooled keys, temperature " << Describe(o.temperature)
      << ", query_embedding " << Describe(o.query_embedding) << ", bias " << Describe(o.bias)
      << " for " << o.key_offsets.numel() << " keys";
}

}  // namespace

Tensor AggregatedAttention(const Tensor& q, const Tensor& kv, const Tensor& pooled_kv,
                           const QueryWeights& query, const NeighbourWeights& neighbours,
                           const PositionBias& bias, int64_t num_heads, int64_t window) {
  CHECK(q.rank() == 4 && kv.rank() == 4 && pooled_kv.rank() >= 3 && num_heads > 0 &&
        window % 2 == 1 && q.dim(3) % num_heads == 0 && kv.dtype() == q.dtype() &&
        kv.numel() == 2 * q.numel() && kv.dim(3) == 2 * q.dim(3) &&
        pooled_kv.dtype() == q.dtype() && pooled_kv.dim(0) == q.dim(0) &&
        pooled_kv.dim(-1) == kv.dim(3))
      << "aggregated_attention: q " << Describe(q) << ", kv " << Describe(kv) << ", pooled_kv "
      << Describe(pooled_kv) << ", " << num_heads << " heads, window " << window;
  const AggregatedAttentionShape shape = {.batch = q.dim(0),
                                          .height = q.dim(1),
                                          .width = q.dim(2),
                                          .num_heads = num_heads,
                                          .head_dim = q.dim(3) / num_heads,
                                          .window = window,
                                          .num_pooled = bias.key_offsets.numel()};
  const Operands o = {shape,
                      q,
                      kv,
                      pooled_kv,
                      query.temperature,
                      query.query_embedding,
                      neighbours.bias,
                      neighbours.tokens,
                      neighbours.token_bias,
                      bias.values,
                      bias.key_offsets,
                      bias.row_stride};
  CheckQueries(o);
  const int64_t slots = shape.slots();
  CHECK(pooled_kv.numel() == shape.batch * shape.num_pooled * kv.dim(3) &&
        o.local_bias.numel() == num_heads * slots && o.token_bias.numel() == num_heads * slots &&
        o.tokens.numel() == shape.channels() * slots)
      << "aggregated_attention: pooled_kv " << Describe(pooled_kv) << " for " << shape.num_pooled
      << " pooled keys; window " << window << ", bias " << Describe(o.local_bias) << ", tokens "
      << Describe(o.tokens) << ", token_bias " << Describe(o.token_bias);
  return Attend("aggregated_attention", o);
}

Tensor LengthScaledAttention(const Tensor& qkv, const QueryWeights& query, const PositionBias& bias,
                             int64_t num_heads) {
  CHECK(qkv.rank() == 4 && num_heads > 0 && qkv.dim(3) % (3 * num_heads) == 0)
      << "length_scaled_attention: qkv " << Describe(qkv) << ", " << num_heads << " heads";
  const AggregatedAttentionShape shape = {.batch = qkv.dim(0),
                                          .height = qkv.dim(1),
                                          .width = qkv.dim(2),
                                          .num_heads = num_heads,
                                          .head_dim = qkv.dim(3) / (3 * num_heads),
                                          .window = 0,
                                          .num_pooled = qkv.dim(1) * qkv.dim(2)};
  const Operands o = {.shape = shape,
                      .q = qkv,
                      .temperature = query.temperature,
                      .query_embedding = query.query_embedding,
                      .bias = bias.values,
                      .key_offsets = bias.key_offsets,
                      .row_stride = bias.row_stride};
  CheckQueries(o);
  return Attend("length_scaled_attention", o);
}

namespace attention {
namespace {

constexpr int64_t kCpbHidden = 512;

// softplus of it is 1 / 0.24.
Init TemperatureInit() { return {Init::Kind::kConstant, std::log(std::expm1(1.0 / 0.24))}; }

}  // namespace

AggregatedAttention::AggregatedAttention(const AggregatedAttentionConfig& config)
    : config_(config),
      temperature_(AddParameter("temperature", {config.num_heads, 1, 1}, TemperatureInit())),
      query_embedding_(AddParameter("query_embedding",
                                    {config.num_heads, 1, config.dim / config.num_heads},
                                    Init::TruncatedNormal(0.02))) {
  const int64_t dim = config.dim, heads = config.num_heads;
  if (pools()) {
    const int64_t slots = config.window * config.window;
    local_bias_ =
        &AddParameter("relative_pos_bias_local", {heads, slots}, Init::TruncatedNormal(0.0004));
    tokens_ =
        &AddParameter("learnable_tokens", {heads, dim / heads, slots}, Init::TruncatedNormal(0.02));
    token_bias_ = &AddParameter("learnable_bias", {heads, 1, slots}, Init::Zeros());
    q_ = &AddChild<layers::Linear>("q", dim, dim);
    kv_ = &AddChild<layers::Linear>("kv", dim, 2 * dim);
    const Init sr_init = Init::TruncatedNormal(std::sqrt(2.0 / static_cast<double>(dim)));
    sr_ = &AddChild<layers::Linear>(
        "sr", dim, dim, layers::Linear::Options{.pointwise = true, .weight_init = sr_init});
    norm_ = &AddChild<layers::LayerNorm>("norm", dim);
  } else {
    qkv_ = &AddChild<layers::Linear>("qkv", dim, 3 * dim);
  }
  cpb_fc1_ = &AddChild<layers::Linear>("cpb_fc1", 2, kCpbHidden);
  cpb_fc2_ = &AddChild<layers::Linear>("cpb_fc2", kCpbHidden, heads);
  proj_ = &AddChild<layers::Linear>("proj", dim, dim);
  VisitParameters([](const std::string& name, Parameter& parameter) {
    const bool tokens = absl::StartsWith(name, "learnable_");
    const bool product = absl::EndsWith(name, ".weight") && !absl::StartsWith(name, "cpb_");
    if (!tokens && !product) parameter.ExcludeFromDecay();
  });
}

GridSize AggregatedAttention::PooledGrid(const GridSize& map) const {
  if (!pools()) return map;
  if (config_.fixed_pool_size > 0) return {config_.fixed_pool_size, config_.fixed_pool_size};
  return {std::max<int64_t>(1, map.height / config_.sr_ratio),
          std::max<int64_t>(1, map.width / config_.sr_ratio)};
}

const PositionBiasTables& AggregatedAttention::TablesOf(const GridSize& map) const {
  const Device device = temperature_.value().device();
  if (tables_map_ == map && tables_.y.device() == device) return tables_;
  const GridSize pooled = PooledGrid(map), from = config_.bias_map;
  tables_ = from == GridSize() || from == map
                ? MakePositionBiasTables(map, pooled, config_.reference, device)
                : MakeResizedPositionBiasTables(from, PooledGrid(from), map, pooled,
                                                config_.reference, device);
  tables_map_ = map;
  return tables_;
}

PositionBias AggregatedAttention::Bias(const GridSize& map) const {
  return MakePositionBias(TablesOf(map), {cpb_fc1_->weight(DType::kF32), cpb_fc1_->bias(),
                                          cpb_fc2_->weight(DType::kF32), cpb_fc2_->bias()});
}

Tensor AggregatedAttention::PooledKv(const Tensor& x, DType dtype) const {
  const GridSize pooled = PooledGrid({x.dim(1), x.dim(2)});
  const Tensor cells = GeluPool(sr_->Forward(x, dtype), pooled.height, pooled.width);
  return kv_->Forward(norm_->Forward(cells, x.dtype()), dtype);
}

Tensor AggregatedAttention::Forward(const Tensor& x, DType out_dtype) const {
  CHECK(x.rank() == 4 && x.dim(3) == config_.dim)
      << "AggregatedAttention of " << config_.dim << " channels: x " << Describe(x);
  const GridSize map = {x.dim(1), x.dim(2)};
  const QueryWeights query = {temperature_.value(), query_embedding_.value()};
  const PositionBias bias = Bias(map);
  if (!pools()) {
    const Tensor qkv = qkv_->Forward(x, x.dtype());
    return proj_->Forward(LengthScaledAttention(qkv, query, bias, config_.num_heads), out_dtype);
  }
  const NeighbourWeights neighbours = {local_bias_->value(), tokens_->value(),
                                       token_bias_->value()};
  const Tensor out = tessera::AggregatedAttention(
      q_->Forward(x, x.dtype()), kv_->Forward(x, x.dtype()), PooledKv(x, x.dtype()), query,
      neighbours, bias, config_.num_heads, config_.window);
  return proj_->Forward(out, out_dtype);
}

}  // namespace attention
}  // namespace tessera
