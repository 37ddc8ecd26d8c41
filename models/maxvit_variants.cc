#include <array>

#include "absl/strings/match.h"
#include "attention/grid/relative_position.h"
#include "models/maxvit.h"
#include "models/registry.h"

namespace tessera {
namespace {

// Position tables of checkpoints for another window.
std::optional<Tensor> ResizeWeight(absl::string_view name, const Tensor& from, const Shape& to) {
  if (!absl::EndsWith(name, "relative_position_bias_table")) return std::nullopt;
  return ResizeRelativeTable(from, to, TableResize::kUneven);
}

ModelVariant Variant(std::string name, MaxVitConfig config, std::string top1, int64_t image_size) {
  return {std::move(name),
          "maxvit",
          image_size,
          std::move(top1),
          [] { return DescribeConfig<MaxVitConfig>(); },
          [config](const ConfigNode& options) { return MaxVit::Create(config, options); },
          {},
          ResizeWeight};
}

void SetWindow(int64_t size, MaxVitConfig* config) {
  config->transformer_cfg.window_size = config->transformer_cfg.grid_size = {size, size};
}

// The tf family, as the official checkpoints: head_dim is always 32.
MaxVitConfig Tf(std::vector<int64_t> depths, int64_t stem, int64_t dim, int64_t image_size) {
  MaxVitConfig config;
  config.depths = std::move(depths);
  config.embed_dim = {dim, 2 * dim, 4 * dim, 8 * dim};
  config.stem_width = {stem, stem};
  config.head_hidden_size = 8 * dim;
  SetWindow(image_size / 32, &config);
  return config;
}

// timm's own family.
MaxVitConfig Rw(std::vector<int64_t> depths, std::vector<int64_t> stem, int64_t dim,
                int64_t image_size, const char* rel_pos_type) {
  MaxVitConfig config = Tf(std::move(depths), 0, dim, image_size);
  config.stem_width = std::move(stem);
  config.stem_bias = false;
  config.head_hidden_size = 0;
  config.conv_cfg.expand_output = false;
  config.conv_cfg.output_bias = false;
  config.conv_cfg.attn_ratio = 1.0 / 16;
  config.conv_cfg.act_layer = "silu";
  config.conv_cfg.padding = "";
  config.conv_cfg.norm_eps = 1e-5;
  config.transformer_cfg.head_first = true;
  config.transformer_cfg.rel_pos_type = rel_pos_type;
  config.transformer_cfg.act_layer = "gelu";
  config.transformer_cfg.norm_eps = 1e-6;
  return config;
}

std::vector<ModelVariant> MaxVitVariants() {
  struct Size {
    const char* name;
    std::vector<int64_t> depths;
    int64_t stem, dim;
    const char* top1[3];  // at 224, 384 and 512
  };
  const std::vector<int64_t> shallow = {2, 2, 5, 2}, deep = {2, 6, 14, 2};
  const Size sizes[] = {{"tiny", shallow, 64, 64, {"83.6", "85.2", "85.7"}},
                        {"small", shallow, 64, 96, {"84.5", "85.7", "86.2"}},
                        {"base", deep, 64, 96, {"85.0", "86.3", "86.7"}},
                        {"large", deep, 128, 128, {"85.2", "86.4", "86.7"}},
                        {"xlarge", deep, 192, 192, {"-", "88.3", "88.5"}}};
  std::vector<ModelVariant> variants = {Variant("maxvit", MaxVitConfig(), "-", 224)};
  for (const Size& size : sizes) {
    for (int i = 0; i < 3; ++i) {
      const int64_t image_size = std::array<int64_t, 3>{224, 384, 512}[i];
      variants.push_back(Variant(absl::StrCat("maxvit_", size.name, "_tf_", image_size),
                                 Tf(size.depths, size.stem, size.dim, image_size), size.top1[i],
                                 image_size));
    }
  }
  const auto add = [&](const char* name, const MaxVitConfig& config, const char* top1,
                       int64_t image_size) {
    variants.push_back(Variant(name, config, top1, image_size));
  };
  add("maxvit_nano_rw_256", Rw({1, 2, 3, 1}, {32, 64}, 64, 256, "bias"), "82.9", 256);
  add("maxvit_tiny_rw_224", Rw(shallow, {32, 64}, 64, 224, "bias"), "83.5", 224);
  add("maxvit_rmlp_pico_rw_256", Rw(shallow, {24, 32}, 32, 256, "mlp"), "80.6", 256);
  add("maxvit_rmlp_nano_rw_256", Rw({1, 2, 3, 1}, {32, 64}, 64, 256, "mlp"), "83.0", 256);
  add("maxvit_rmlp_tiny_rw_256", Rw(shallow, {32, 64}, 64, 256, "mlp"), "84.2", 256);
  MaxVitConfig small = Rw(shallow, {32, 64}, 96, 224, "mlp");
  small.transformer_cfg.init_values = 1e-6;
  add("maxvit_rmlp_small_rw_224", small, "84.5", 224);
  for (const int64_t image_size : {224, 384}) {
    MaxVitConfig base = Rw(deep, {32, 64}, 96, image_size, "mlp");
    base.head_hidden_size = 768;
    variants.push_back(Variant(absl::StrCat("maxvit_rmlp_base_rw_", image_size), base,
                               image_size == 224 ? "86.9" : "87.8", image_size));
  }
  return variants;
}

[[maybe_unused]] const bool registered = RegisterModels(MaxVitVariants());

}  // namespace

absl::StatusOr<std::unique_ptr<ImageModel>> MaxVit::Create(const MaxVitConfig& base,
                                                           const ConfigNode& options) {
  MaxVitConfig config = base;
  RETURN_IF_ERROR(ReadConfig(options, &config));
  const auto error = [&](absl::string_view field, const std::string& what) {
    return ConfigError(
        absl::StrCat(options.place, options.place.empty() ? "" : ": ", field, ": ", what));
  };
  const size_t stages = config.depths.size();
  if (stages == 0) return error("depths", "a MaxViT has at least one stage");
  if (config.embed_dim.size() != stages) {
    return error("embed_dim",
                 absl::StrCat("expected one entry for each of the ", stages, " stages of depths"));
  }
  const MaxVitTransformerConfig& t = config.transformer_cfg;
  for (const auto& [name, list] : {std::pair("stem_width", config.stem_width),
                                   std::pair("transformer_cfg.window_size", t.window_size),
                                   std::pair("transformer_cfg.grid_size", t.grid_size)}) {
    if (list.size() != 2) return error(name, "expected two entries");
  }
  int64_t in_dim = config.stem_width[1];
  for (size_t s = 0; s < stages; ++s) {
    const int64_t dim = config.embed_dim[s];
    if (dim % t.dim_head != 0) {
      return error("embed_dim", absl::StrCat(dim, " channels of stage ", s,
                                             " do not divide into heads of ", t.dim_head));
    }
    if (static_cast<double>(dim) * t.expand_ratio < 1) {
      return error("transformer_cfg.expand_ratio",
                   absl::StrCat("leaves no hidden channel in stage ", s));
    }
    if (MbConvWidthsOf(config.conv_cfg, in_dim, dim).squeezed < 1) {
      return error("conv_cfg.attn_ratio",
                   absl::StrCat("leaves squeeze-excite no channel in stage ", s));
    }
    in_dim = dim;
  }
  return std::make_unique<MaxVit>(config);
}

}  // namespace tessera
