// Mixup (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019) of a batch. Sample i is mixed
// with sample B - 1 - i.
#ifndef TESSERA_DATA_TRANSFORMS_MIX_H_
#define TESSERA_DATA_TRANSFORMS_MIX_H_

#include <cstdint>
#include <vector>

#include "core/random.h"
#include "data/image.h"

namespace tessera {

enum class MixMode { kBatch, kPair, kElement };  // what shares a draw

struct MixOptions {
  double mixup_alpha = 0.0;   // 0: off
  double cutmix_alpha = 0.0;  // 0: off
  double probability = 1.0;
  double switch_probability = 0.5;  // of cutmix, where both are on
  MixMode mode = MixMode::kBatch;

  bool enabled() const { return (mixup_alpha > 0.0 || cutmix_alpha > 0.0) && probability > 0.0; }
};

// How a picture is mixed: with weight `lambda` on the own picture; for CutMix the box comes from
// the partner and lambda is the share of the area outside it.
struct MixDraw {
  double lambda = 1.0;
  bool cutmix = false;
  Rect box;
};

// One draw for each of the [height, width] pictures; batch_size is even.
std::vector<MixDraw> DrawMix(const MixOptions& options, int64_t batch_size, int64_t height,
                             int64_t width, RandomStream& random);

// Mixes `partner`, as it was before any mixing, into `image`; both [height, width, 3].
void MixInto(const MixDraw& draw, int64_t height, int64_t width, const float* partner,
             float* image);

// Writes a row of `num_classes`: lambda of the smoothed one-hot row of `label` and the rest of the
// partner's. Smoothing spreads its share evenly over all classes.
void SoftTarget(int64_t label, int64_t partner_label, double lambda, int64_t num_classes,
                double label_smoothing, float* row);

}  // namespace tessera

#endif  // TESSERA_DATA_TRANSFORMS_MIX_H_
