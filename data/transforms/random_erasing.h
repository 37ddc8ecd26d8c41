// Random erasing (Zhong et al., AAAI 2020) of normalised pictures.
#ifndef TESSERA_DATA_TRANSFORMS_RANDOM_ERASING_H_
#define TESSERA_DATA_TRANSFORMS_RANDOM_ERASING_H_

#include <cstdint>

#include "core/random.h"

namespace tessera {

enum class ErasingFill { kPixelNoise, kZero, kOneColor };

struct ErasingOptions {
  double probability = 0.0;
  ErasingFill fill = ErasingFill::kPixelNoise;
  int64_t max_count = 1;  // 1..max_count boxes share the area
};

// Overwrites boxes of `image`, [height, width, 3], with noise of mean 0 and standard deviation 1,
// zeros or one colour.
void EraseRandomly(const ErasingOptions& options, int64_t height, int64_t width, float* image,
                   RandomStream& random);

}  // namespace tessera

#endif  // TESSERA_DATA_TRANSFORMS_RANDOM_ERASING_H_
