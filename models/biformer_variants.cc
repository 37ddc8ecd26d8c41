#include "models/biformer.h"
#include "models/registry.h"

namespace tessera {
namespace {

ModelVariant Variant(std::string name, BiFormerConfig config, std::string top1) {
  return {std::move(name),
          "biformer",
          224,
          std::move(top1),
          [] { return DescribeConfig<BiFormerConfig>(); },
          [config](const ConfigNode& options) { return BiFormer::Create(config, options); },
          {},
          nullptr};
}

BiFormerConfig Sized(std::vector<int64_t> depth, int64_t first_dim) {
  BiFormerConfig config;
  config.depth = std::move(depth);
  for (size_t s = 0; s < config.embed_dim.size(); ++s) config.embed_dim[s] = first_dim << s;
  return config;
}

// The layout of Swin-Tiny.
BiFormerConfig Stl(std::string layout) {
  BiFormerConfig config = Sized({2, 2, 6, 2}, 96);
  config.mlp_ratios = {4, 4, 4, 4};
  config.layout = std::move(layout);
  return config;
}

std::vector<ModelVariant> BiFormerVariants() {
  return {Variant("biformer", BiFormerConfig(), "-"),
          Variant("biformer_tiny", Sized({2, 2, 8, 2}, 64), "81.4"),
          Variant("biformer_small", Sized({4, 4, 18, 4}, 64), "83.8"),
          Variant("biformer_base", Sized({4, 4, 18, 4}, 96), "84.3"),
          Variant("biformer_stl", Stl("stl"), "82.7"),
          Variant("biformer_stl_nchw", Stl("stl_nchw"), "82.7")};
}

[[maybe_unused]] const bool registered = RegisterModels(BiFormerVariants());

}  // namespace

absl::StatusOr<std::unique_ptr<ImageModel>> BiFormer::Create(const BiFormerConfig& base,
                                                             const ConfigNode& options) {
  BiFormerConfig config = base;
  RETURN_IF_ERROR(ReadConfig(options, &config));
  const auto error = [&](absl::string_view field, const std::string& what) {
    const ConfigNode* node = options.Find(field);
    return ConfigError(
        absl::StrCat(node == nullptr ? options.place : node->place, ": ", field, ": ", what));
  };
  const size_t stages = config.depth.size();
  if (stages == 0) return error("depth", "a BiFormer has at least one stage");
  const std::pair<const char*, size_t> sizes[] = {{"embed_dim", config.embed_dim.size()},
                                                  {"mlp_ratios", config.mlp_ratios.size()},
                                                  {"n_win", config.n_win.size()},
                                                  {"topks", config.topks.size()}};
  for (const auto& [field, size] : sizes) {
    if (size != stages) {
      return error(field, absl::StrCat("expected one entry for each of the ", stages,
                                       " stages of depth, found ", size));
    }
  }
  constexpr int64_t kGlobalHeads = 8;
  for (size_t s = 0; s < stages; ++s) {
    const int64_t dim = config.embed_dim[s];
    if (config.topks[s] == 0) return error("topks", "0 regions leave nothing to attend to");
    const int64_t divisor = config.topks[s] < 0 ? kGlobalHeads : config.head_dim;
    if (dim % divisor != 0) {
      return error("embed_dim", absl::StrCat(dim, " channels of stage ", s, " do not divide into ",
                                             config.topks[s] < 0 ? "8 heads" : "heads of head_dim ",
                                             config.topks[s] < 0 ? "" : absl::StrCat(divisor)));
    }
    if (static_cast<double>(dim) * config.mlp_ratios[s] < 1) {
      return error("mlp_ratios", absl::StrCat("leaves no hidden channel in stage ", s));
    }
  }
  if (config.layout == "biformer" && config.embed_dim[0] % 2 != 0) {
    return error("embed_dim", "the stem needs an even number of channels in the first stage");
  }
  return std::make_unique<BiFormer>(config);
}

}  // namespace tessera
