#include "data/transforms/mix.h"

#include <algorithm>

#include "core/check.h"
#include "data/transforms/geometry.h"
#include "data/transforms/pixel_simd.h"

namespace tessera {
namespace {

MixDraw DrawOne(const MixOptions& options, int64_t height, int64_t width, RandomStream& random) {
  MixDraw draw;
  if (!random.Bernoulli(options.probability)) return draw;
  const bool both = options.mixup_alpha > 0.0 && options.cutmix_alpha > 0.0;
  draw.cutmix = both ? random.Bernoulli(options.switch_probability) : options.cutmix_alpha > 0.0;
  const double alpha = draw.cutmix ? options.cutmix_alpha : options.mixup_alpha;
  draw.lambda = random.Beta(alpha, alpha);
  if (draw.cutmix) {
    const int64_t center_y = random.Integer(0, height - 1);
    const int64_t center_x = random.Integer(0, width - 1);
    draw.box = CutMixBox(height, width, draw.lambda, center_y, center_x);
    draw.lambda = CutMixLambda(height, width, draw.box);
  }
  return draw;
}

}  // namespace

std::vector<MixDraw> DrawMix(const MixOptions& options, int64_t batch_size, int64_t height,
                             int64_t width, RandomStream& random) {
  CHECK_EQ(batch_size % 2, 0) << "mixing pairs samples: the batch size must be even";
  std::vector<MixDraw> draws;
  for (int64_t i = 0; i < batch_size / 2; ++i) {
    draws.push_back(i == 0 || options.per_pair ? DrawOne(options, height, width, random)
                                               : draws.front());
  }
  return draws;
}

void MixPair(const MixDraw& draw, int64_t height, int64_t width, float* a, float* b) {
  if (!draw.cutmix) {
    if (draw.lambda == 1.0) return;
    internal::MixValues(a, b, height * width * 3, static_cast<float>(draw.lambda));
    return;
  }
  for (int64_t y = draw.box.top; y < draw.box.top + draw.box.height; ++y) {
    const int64_t at = (y * width + draw.box.left) * 3;
    std::swap_ranges(a + at, a + at + draw.box.width * 3, b + at);
  }
}

void SoftTargets(absl::Span<const int32_t> labels, absl::Span<const MixDraw> draws,
                 int64_t num_classes, double label_smoothing, float* targets) {
  const auto batch_size = static_cast<int64_t>(labels.size());
  const double off = label_smoothing / static_cast<double>(num_classes);
  const double on = 1.0 - label_smoothing + off;
  for (int64_t i = 0; i < batch_size; ++i) {
    float* row = targets + i * num_classes;
    if (labels[i] < 0) {
      std::fill_n(row, num_classes, 0.0f);
      continue;
    }
    std::fill_n(row, num_classes, static_cast<float>(off));
    const int64_t partner = batch_size - 1 - i;
    const double lambda = draws.empty() ? 1.0 : draws[std::min(i, partner)].lambda;
    const int32_t other = draws.empty() ? labels[i] : labels[partner];
    if (other == labels[i]) {
      row[labels[i]] = static_cast<float>(on);
    } else {
      row[labels[i]] = static_cast<float>(lambda * on + (1.0 - lambda) * off);
      row[other] = static_cast<float>((1.0 - lambda) * on + lambda * off);
    }
  }
}

}  // namespace tessera
