// BiFormer's golden cases.
#include "models/biformer.h"
#include "attention/bilevel_routing/bilevel_routing.h"
#include "autograd/ops/cast.h"
#include "core/status.h"
#include "tests/golden/golden_family.h"

namespace tessera {
namespace {

Json Options(const Json& meta) {
  Json options = meta.value("config", Json::object());
  for (const char* fixed : {"qk_dims", "kv_downsample_mode", "kv_per_wins", "side_dwconv",
                            "before_attn_dwconv", "auto_pad"}) {
    options.erase(fixed);
  }
  if (options.contains("n_wins")) options["n_win"] = options["n_wins"];
  options.erase("n_wins");
  if (options.contains("n_win") && options["n_win"].is_number()) {
    options["n_win"] = std::vector<int64_t>(4, options["n_win"].get<int64_t>());
  }
  const std::string kind = meta.value("kind", "");
  if (kind == "biformer_stl") options["layout"] = "stl";
  if (kind == "biformer_stl_nchw") options["layout"] = "stl_nchw";
  if (kind == "biformer_backbone") options["extra_norms"] = options["norm_eval"] = true;
  return options;
}

absl::StatusOr<GoldenModule> MakeAttention(const Json& meta) {
  const Json& config = meta.at("config");
  auto module = std::make_unique<attention::GlobalAttention>(attention::GlobalAttention::Options{
      .dim = config.at("dim"), .num_heads = config.at("num_heads")});
  const auto& attention = *module;
  return GoldenModule{
      std::move(module), [&attention](const Tensor& x, const ForwardContext& context) {
        const Tensor y = attention.Forward(Cast(x, context.compute_dtype), DType::kF32);
        return GoldenModule::Outputs{{"y", y}};
      }};
}

template <bool kPointwise>
absl::StatusOr<GoldenModule> MakeBilevelRouting(const Json& meta) {
  const Json& config = meta.at("config");
  auto module = std::make_unique<attention::BilevelRoutingAttention>(
      attention::BilevelRoutingAttention::Options{.dim = config.at("dim"),
                                                  .num_heads = config.at("num_heads"),
                                                  .n_win = config.at("n_win"),
                                                  .topk = config.at("topk"),
                                                  .pointwise = kPointwise});
  const auto& attention = *module;
  return GoldenModule{
      std::move(module), [&attention](const Tensor& x, const ForwardContext& context) {
        const Tensor y = attention.Forward(Cast(x, context.compute_dtype), context, DType::kF32);
        return GoldenModule::Outputs{{"y", y}};
      }};
}

absl::StatusOr<GoldenModule> MakeBackbone(const Json& meta) {
  ASSIGN_OR_RETURN(const ConfigNode node, ParseYaml(Options(meta).dump(), "config"));
  ASSIGN_OR_RETURN(auto module, BiFormer::Create(BiFormerConfig(), node));
  const auto& model = static_cast<const BiFormer&>(*module);
  return GoldenModule{std::move(module), [&model](const Tensor& x, const ForwardContext& context) {
                        GoldenModule::Outputs outputs;
                        for (const Tensor& feature : model.ForwardFeatures(x, context)) {
                          outputs.emplace_back(absl::StrCat("f", outputs.size()), feature);
                        }
                        return outputs;
                      }};
}

REGISTER_GOLDEN_FAMILY(biformer, {.options = Options,
                                  .modules = {{"op_attention_lepe", MakeAttention},
                                              {"op_bra", MakeBilevelRouting<false>},
                                              {"op_bra_nchw", MakeBilevelRouting<true>},
                                              {"biformer_backbone", MakeBackbone}}});

}  // namespace
}  // namespace tessera
