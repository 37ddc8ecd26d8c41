// Golden cases of TransNeXt: the official code's options, its attention and gated unit, and its
// backbone for dense prediction.
#include "models/transnext.h"
#include "attention/aggregated/aggregated.h"
#include "autograd/ops/cast.h"
#include "core/status.h"
#include "layers/conv_glu.h"
#include "models/registry.h"
#include "tests/golden/golden_family.h"

namespace tessera {
namespace {

// The official code has None for the window of a stage without one, and a patch size that nothing
// but 4 goes with.
Json Options(const Json& meta) {
  Json options = meta.value("config", Json::object());
  options.erase("patch_size");
  if (options.contains("window_size")) {
    for (Json& side : options["window_size"]) {
      if (side.is_null()) side = 0;
    }
  }
  return options;
}

template <typename M>
class OneChild : public Module {
 public:
  template <typename... Args>
  explicit OneChild(const std::string& name, Args&&... args)
      : child(AddChild<M>(name, std::forward<Args>(args)...)) {}
  M& child;
};

// Tokens [B, H W, C] as a map, in the compute dtype.
Tensor MapOf(const Tensor& tokens, const GridSize& map, const ForwardContext& context) {
  return Cast(tokens.Reshape({tokens.dim(0), map.height, map.width, tokens.dim(2)}),
              context.compute_dtype);
}

Tensor TokensOf(const Tensor& map) {
  return map.Reshape({map.dim(0), map.dim(1) * map.dim(2), map.dim(3)});
}

// [num_heads, positions, keys]
Tensor BiasOfAllPairs(const PositionBias& bias, const GridSize& map) {
  const int64_t heads = bias.values.dim(0), keys = bias.key_offsets.numel();
  const int64_t per_head = bias.values.numel() / heads;
  const Tensor all = Tensor::Empty({heads, map.height * map.width, keys}, DType::kF32);
  float* to = all.data<float>();
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t y = 0; y < map.height; ++y) {
      for (int64_t x = 0; x < map.width; ++x) {
        const float* values = bias.values.data<float>() + head * per_head + y * bias.row_stride + x;
        for (int64_t j = 0; j < keys; ++j) *to++ = values[bias.key_offsets.data<int64_t>()[j]];
      }
    }
  }
  return all;
}

GridSize GridOf(const Json& sides) {
  return {sides.at(0).get<int64_t>(), sides.at(1).get<int64_t>()};
}

absl::StatusOr<GoldenModule> MakeAttention(const Json& meta) {
  const Json& c = meta.at("config");
  const GridSize map = GridOf(c.at("input_resolution"));
  const attention::AggregatedAttentionConfig config = {
      .dim = c.at("dim"),
      .num_heads = c.at("num_heads"),
      .sr_ratio = c.value("sr_ratio", 2),
      .window = c.value("window_size", 3),
      .fixed_pool_size = c.value("fixed_pool_size", 0),
      .reference = c.contains("pretrain_resolution") ? GridOf(c.at("pretrain_resolution")) : map};
  auto module =
      std::make_unique<OneChild<attention::AggregatedAttention>>(std::string("attn"), config);
  const auto& attn = module->child;
  return GoldenModule{
      std::move(module),
      [&attn, map](const Tensor& x, const ForwardContext& context) -> GoldenModule::Outputs {
        const Tensor y = attn.Forward(MapOf(x, map, context), context.compute_dtype);
        return {{"rel_bias", BiasOfAllPairs(attn.Bias(map), map)}, {"y", TokensOf(y)}};
      }};
}

absl::StatusOr<GoldenModule> MakeConvGlu(const Json& meta) {
  const Json& c = meta.at("config");
  const GridSize map = GridOf(c.at("hw"));
  const int64_t hidden = 2 * c.at("hidden").get<int64_t>() / 3;
  auto module = std::make_unique<OneChild<layers::ConvGlu>>(std::string("mlp"),
                                                            c.at("dim").get<int64_t>(), hidden);
  const auto& mlp = module->child;
  return GoldenModule{
      std::move(module),
      [&mlp, map](const Tensor& x, const ForwardContext& context) -> GoldenModule::Outputs {
        return {{"y", TokensOf(mlp.Forward(MapOf(x, map, context)))}};
      }};
}

absl::StatusOr<GoldenModule> MakeBackbone(const Json& meta) {
  Json options = Options(meta);
  options["num_classes"] = 0;
  options["is_extrapolation"] = options.value("is_extrapolation", false);
  ASSIGN_OR_RETURN(const ModelVariant* variant, FindModel("transnext"));
  ASSIGN_OR_RETURN(const ConfigNode node, ParseYaml(options.dump(), "config"));
  ASSIGN_OR_RETURN(std::unique_ptr<ImageModel> model, variant->create(node));
  const auto* backbone = static_cast<const TransNext*>(model.get());
  return GoldenModule{std::move(model), [backbone](const Tensor& x, const ForwardContext& context) {
                        GoldenModule::Outputs outputs;
                        for (const Tensor& map : backbone->ForwardFeatures(x, context)) {
                          outputs.emplace_back(absl::StrCat("f", outputs.size()), map);
                        }
                        return outputs;
                      }};
}

REGISTER_GOLDEN_FAMILY(transnext, {.options = Options,
                                   .token_taps = true,
                                   .modules = {{"op_attention", MakeAttention},
                                               {"op_conv_glu", MakeConvGlu},
                                               {"transnext_backbone", MakeBackbone}}});

}  // namespace
}  // namespace tessera
