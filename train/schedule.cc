#include "train/schedule.h"

#include <cmath>
#include <numbers>

namespace tessera::train {

double Schedule::LearningRate(int64_t step) const {
  if (step < warmup_steps) {
    return warmup_lr +
           (lr - warmup_lr) * static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
  }
  const int64_t end = total_steps - cooldown_steps;
  if (step >= end) return min_lr;
  const double progress =
      static_cast<double>(step - warmup_steps) / static_cast<double>(end - warmup_steps);
  return min_lr + 0.5 * (lr - min_lr) * (1 + std::cos(std::numbers::pi * progress));
}

}  // namespace tessera::train
