#include "models/maxvit.h"

namespace tessera {
namespace {

struct Map {
  int64_t height, width, dim;
  int64_t pixels() const { return height * width; }
  int64_t numel() const { return pixels() * dim; }
};

// The convolutions of a block from map `in` to `out`.
void AddMbConv(const MaxVitConvConfig& config, const Map& in, const Map& out, StageCost* cost) {
  const auto [hidden, squeezed] = MbConvWidthsOf(config, in.dim, out.dim);
  const bool strided = in.pixels() != out.pixels();
  const int64_t shortcut = strided && in.dim != out.dim ? out.pixels() * in.dim : 0;
  cost->macs += shortcut * out.dim + in.numel() * hidden + out.pixels() * hidden * (9 + out.dim) +
                2 * hidden * squeezed;
  // Input of the first norm; then its output, both hidden maps before and after the depthwise
  // convolution with their norms, and the pooled shortcut.
  cost->saved_f32 += in.numel();
  cost->saved_compute +=
      in.numel() + 2 * in.pixels() * hidden + 2 * out.pixels() * hidden + shortcut;
}

// One attention unit with groups of `tokens` pixels.
void AddAttention(const MaxVitTransformerConfig& config, const Map& map, int64_t tokens,
                  StageCost* cost) {
  const auto hidden = static_cast<int64_t>(static_cast<double>(map.dim) * config.expand_ratio);
  cost->macs += map.numel() * (4 * map.dim + 2 * tokens + 2 * hidden);
  // Inputs of both norms; then their outputs, qkv, the attention's output, the hidden map.
  cost->saved_f32 += 2 * map.numel();
  cost->saved_compute += map.numel() * 6 + map.pixels() * hidden;
  if (config.init_values > 0) cost->saved_compute += 2 * map.numel();  // what is scaled
}

}  // namespace

std::vector<StageCost> MaxVit::Costs(int64_t height, int64_t width) const {
  const MaxVitConfig& c = config_;
  const MaxVitTransformerConfig& t = c.transformer_cfg;
  Map map = {(height + 1) / 2, (width + 1) / 2, c.stem_width[1]};
  const int64_t first = map.pixels() * c.stem_width[0];
  std::vector<StageCost> costs;
  costs.push_back({"stem",
                   {map.height, map.width, map.dim},
                   9 * first * (c.in_chans + map.dim),
                   first + height * width * c.in_chans,
                   first});
  for (size_t s = 0; s < c.depths.size(); ++s) {
    StageCost cost{absl::StrCat("stages.", s), {}};
    for (int64_t i = 0; i < c.depths[s]; ++i) {
      const Map in = map;
      if (i == 0) map = {(in.height + 1) / 2, (in.width + 1) / 2, c.embed_dim[s]};
      AddMbConv(c.conv_cfg, in, map, &cost);
      AddAttention(t, map, t.window_size[0] * t.window_size[1], &cost);
      AddAttention(t, map, t.grid_size[0] * t.grid_size[1], &cost);
    }
    cost.output = {map.height, map.width, map.dim};
    costs.push_back(std::move(cost));
  }
  if (c.head_hidden_size == 0) {
    costs.push_back({"norm", {map.height, map.width, map.dim}, 0, map.numel(), 0});
  }
  const int64_t features = c.head_hidden_size == 0 ? map.dim : c.head_hidden_size;
  costs.push_back({"head",
                   {c.num_classes > 0 ? c.num_classes : features},
                   map.dim * c.head_hidden_size + features * c.num_classes,
                   2 * map.dim + 2 * c.head_hidden_size,
                   0});
  return costs;
}

}  // namespace tessera
