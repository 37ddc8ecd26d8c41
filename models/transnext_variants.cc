#include "models/registry.h"
#include "models/transnext.h"

namespace tessera {
namespace {

ModelVariant Variant(std::string name, TransNextConfig config, std::string top1) {
  const int64_t image_size = config.img_size;
  return {std::move(name),
          "transnext",
          image_size,
          std::move(top1),
          [] { return DescribeConfig<TransNextConfig>(); },
          [config](const ConfigNode& options) { return TransNext::Create(config, options); }};
}

// head_dim is always 24.
TransNextConfig Sized(std::vector<int64_t> depths, int64_t first_heads) {
  TransNextConfig config;
  config.depths = std::move(depths);
  for (size_t s = 0; s < config.num_heads.size(); ++s) {
    config.num_heads[s] = first_heads << s;
    config.embed_dims[s] = config.num_heads[s] * 24;
  }
  return config;
}

// Aggregated attention in all four stages.
TransNextConfig Aaaa() {
  TransNextConfig config;
  config.sr_ratios = {16, 8, 4, 2};
  config.img_size = 256;
  return config;
}

std::vector<ModelVariant> TransNextVariants() {
  return {Variant("transnext", TransNextConfig(), "-"),
          Variant("transnext_micro", Sized({2, 2, 15, 2}, 2), "82.5"),
          Variant("transnext_tiny", Sized({2, 2, 15, 2}, 3), "84.0"),
          Variant("transnext_small", Sized({5, 5, 22, 5}, 3), "84.7"),
          Variant("transnext_base", Sized({5, 5, 23, 5}, 4), "84.8"),
          Variant("transnext_micro_aaaa", Aaaa(), "82.6")};
}

[[maybe_unused]] const bool registered = RegisterModels(TransNextVariants());

constexpr int64_t kMinPretrainSize = 2;  // positions on a side of the last map

}  // namespace

absl::StatusOr<std::unique_ptr<ImageModel>> TransNext::Create(const TransNextConfig& base,
                                                              const ConfigNode& options) {
  TransNextConfig c = base;
  RETURN_IF_ERROR(ReadConfig(options, &c));
  const auto error = [&](absl::string_view field, const std::string& what) {
    const ConfigNode* node = options.Find(field);
    return ConfigError(
        absl::StrCat(node == nullptr ? options.place : node->place, ": ", field, ": ", what));
  };
  const size_t stages = c.depths.size();
  if (stages == 0) return error("depths", "a TransNeXt has at least one stage");
  const std::pair<const char*, size_t> lengths[] = {{"embed_dims", c.embed_dims.size()},
                                                    {"num_heads", c.num_heads.size()},
                                                    {"mlp_ratios", c.mlp_ratios.size()},
                                                    {"sr_ratios", c.sr_ratios.size()},
                                                    {"window_size", c.window_size.size()}};
  for (const auto& [field, length] : lengths) {
    if (length != stages) {
      return error(
          field, absl::StrCat("expected one entry for each of the ", stages, " stages of depths"));
    }
  }
  for (size_t s = 0; s < stages; ++s) {
    if (c.embed_dims[s] % c.num_heads[s] != 0) {
      return error("num_heads", absl::StrCat(c.embed_dims[s], " channels of stage ", s,
                                             " do not divide into ", c.num_heads[s], " heads"));
    }
    if (c.hidden_dim(s) < 1) {
      return error("mlp_ratios", absl::StrCat("leaves no hidden channel in stage ", s));
    }
    if (c.sr_ratios[s] > 1 && c.window_size[s] % 2 == 0) {
      return error("window_size", absl::StrCat("expected an odd number in stage ", s, ", found ",
                                               c.window_size[s]));
    }
  }
  const int64_t least = kMinPretrainSize * (int64_t{4} << (stages - 1));
  const bool own_size = c.pretrain_size > 0;
  if ((own_size ? c.pretrain_size : c.img_size) < least) {
    return error(own_size ? "pretrain_size" : "img_size",
                 absl::StrCat("at least ", least, " with ", stages,
                              " stages: relative coordinates need two positions"));
  }
  return std::make_unique<TransNext>(c);
}

}  // namespace tessera
