// Mixup (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019) of a batch. Sample i is mixed
// with sample B - 1 - i.
#ifndef TESSERA_DATA_TRANSFORMS_MIX_H_
#define TESSERA_DATA_TRANSFORMS_MIX_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "core/random.h"
#include "data/image.h"

namespace tessera {

struct MixOptions {
  double mixup_alpha = 0.0;   // 0: off
  double cutmix_alpha = 0.0;  // 0: off
  double probability = 1.0;
  double switch_probability = 0.5;  // of cutmix, where both are on
  bool per_pair = false;            // a draw for each pair instead of one for the batch

  bool enabled() const { return (mixup_alpha > 0.0 || cutmix_alpha > 0.0) && probability > 0.0; }
};

// How one pair is mixed: with weight `lambda` on the own picture; for CutMix the box comes from the
// partner.
struct MixDraw {
  double lambda = 1.0;
  bool cutmix = false;
  Rect box;
};

// Draws for the batch_size / 2 pairs of [height, width] pictures; batch_size is even.
std::vector<MixDraw> DrawMix(const MixOptions& options, int64_t batch_size, int64_t height,
                             int64_t width, RandomStream& random);

// Mixes both partners' [height, width, 3] pictures in place.
void MixPair(const MixDraw& draw, int64_t height, int64_t width, float* a, float* b);

// Writes [labels.size(), num_classes] soft targets: lambda of the own smoothed one-hot row plus the
// rest of the partner's. `draws` has one entry per pair, or none for no mixing. A negative label
// gives a row of zeros.
void SoftTargets(absl::Span<const int32_t> labels, absl::Span<const MixDraw> draws,
                 int64_t num_classes, double label_smoothing, float* targets);

}  // namespace tessera

#endif  // TESSERA_DATA_TRANSFORMS_MIX_H_
