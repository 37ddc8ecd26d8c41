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
  std::vector<MixDraw> draws(batch_size);
  for (int64_t i = 0; i < batch_size; ++i) {
    const int64_t partner = batch_size - 1 - i;
    if (i == 0 || options.mode == MixMode::kElement ||
        (options.mode == MixMode::kPair && i < partner)) {
      draws[i] = DrawOne(options, height, width, random);
    } else {
      draws[i] = draws[options.mode == MixMode::kPair ? partner : 0];
    }
  }
  return draws;
}

void MixInto(const MixDraw& draw, int64_t height, int64_t width, const float* partner,
             float* image) {
  if (!draw.cutmix) {
    if (draw.lambda == 1.0) return;
    internal::MixValues(image, partner, height * width * 3, static_cast<float>(draw.lambda));
    return;
  }
  for (int64_t y = draw.box.top; y < draw.box.top + draw.box.height; ++y) {
    const int64_t at = (y * width + draw.box.left) * 3;
    std::copy_n(partner + at, draw.box.width * 3, image + at);
  }
}

void SoftTarget(int64_t label, int64_t partner_label, double lambda, int64_t num_classes,
                double label_smoothing, float* row) {
  const double off = label_smoothing / static_cast<double>(num_classes);
  const double on = 1.0 - label_smoothing + off;
  std::fill_n(row, num_classes, static_cast<float>(off));
  if (label == partner_label) {
    row[label] = static_cast<float>(on);
    return;
  }
  row[label] = static_cast<float>(lambda * on + (1.0 - lambda) * off);
  row[partner_label] = static_cast<float>((1.0 - lambda) * on + lambda * off);
}

}  // namespace tessera
