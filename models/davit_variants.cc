#include <set>

#include "models/davit.h"
#include "models/registry.h"

namespace tessera {
namespace {

ModelVariant Variant(std::string name, DaVitConfig config, std::string top1,
                     int64_t image_size = 224) {
  return {std::move(name),
          "davit",
          image_size,
          std::move(top1),
          [] { return DescribeConfig<DaVitConfig>(); },
          [config](const ConfigNode& options) { return DaVit::Create(config, options); },
          DaVitWeightNames()};
}

// The small variants differ in depth, the large ones in width: head_dim is always 32.
DaVitConfig Sized(std::vector<int64_t> depths, int64_t first_heads) {
  DaVitConfig config;
  config.depths = std::move(depths);
  for (size_t s = 0; s < config.num_heads.size(); ++s) {
    config.num_heads[s] = first_heads << s;
    config.embed_dims[s] = config.num_heads[s] * 32;
  }
  return config;
}

// The image towers of Florence-2 (Xiao et al., arXiv 2311.06242).
DaVitConfig Florence(int64_t first_heads) {
  DaVitConfig config = Sized({1, 1, 9, 1}, first_heads);
  config.window_size = 12;
  config.down_kernel_size = 3;
  config.channel_attn_v2 = true;
  config.named_blocks = true;
  config.num_classes = 0;
  return config;
}

std::vector<ModelVariant> DaVitVariants() {
  return {Variant("davit", DaVitConfig(), "-"),
          Variant("davit_tiny", Sized({1, 1, 3, 1}, 3), "82.8"),
          Variant("davit_small", Sized({1, 1, 9, 1}, 3), "84.2"),
          Variant("davit_base", Sized({1, 1, 9, 1}, 4), "84.6"),
          Variant("davit_large", Sized({1, 1, 9, 1}, 6), "87.5"),
          Variant("davit_huge", Sized({1, 1, 9, 1}, 8), "90.2"),
          Variant("davit_giant", Sized({1, 1, 12, 3}, 12), "90.4"),
          Variant("davit_base_fl", Florence(4), "-", 768),
          Variant("davit_huge_fl", Florence(8), "-", 768)};
}

[[maybe_unused]] const bool registered = RegisterModels(DaVitVariants());

}  // namespace

absl::StatusOr<std::unique_ptr<ImageModel>> DaVit::Create(const DaVitConfig& base,
                                                          const ConfigNode& options) {
  DaVitConfig config = base;
  RETURN_IF_ERROR(ReadConfig(options, &config));
  const auto error = [&](absl::string_view field, const std::string& what) {
    const ConfigNode* node = options.Find(field);
    return ConfigError(
        absl::StrCat(node == nullptr ? options.place : node->place, ": ", field, ": ", what));
  };
  const size_t stages = config.depths.size();
  if (stages == 0) return error("depths", "a DaViT has at least one stage");
  if (config.embed_dims.size() != stages || config.num_heads.size() != stages) {
    return error(config.embed_dims.size() != stages ? "embed_dims" : "num_heads",
                 absl::StrCat("expected one entry for each of the ", stages, " stages of depths"));
  }
  if (config.attn_types.empty()) return error("attn_types", "expected at least one type");
  for (size_t s = 0; s < stages; ++s) {
    if (config.embed_dims[s] % config.num_heads[s] != 0) {
      return error("num_heads",
                   absl::StrCat(config.embed_dims[s], " channels of stage ", s,
                                " do not divide into ", config.num_heads[s], " heads"));
    }
    if (config.ffn && static_cast<double>(config.embed_dims[s]) * config.mlp_ratio < 1) {
      return error("mlp_ratio", absl::StrCat("leaves no hidden channel in stage ", s));
    }
  }
  const std::set<std::string> types(config.attn_types.begin(), config.attn_types.end());
  if (config.named_blocks && types.size() < config.attn_types.size()) {
    return error("named_blocks", "needs attn_types without repeats: names are made of the types");
  }
  return std::make_unique<DaVit>(config);
}

}  // namespace tessera
