// The learning rate as a pure function of the step.
#ifndef TESSERA_TRAIN_SCHEDULE_H_
#define TESSERA_TRAIN_SCHEDULE_H_

#include <cstdint>

namespace tessera::train {

// Linear warm-up, cosine (Loshchilov and Hutter, arXiv 1608.03983), constant tail. With W warm-up
// steps and C steps of tail out of N:
//   t < W      warmup_lr + (lr - warmup_lr) (t + 1) / W
//   t < N - C  min_lr + (lr - min_lr) (1 + cos(pi (t - W) / (N - C - W))) / 2
//   otherwise  min_lr
struct Schedule {
  double lr = 0.0;
  double min_lr = 0.0;
  double warmup_lr = 0.0;
  int64_t warmup_steps = 0;
  int64_t cooldown_steps = 0;
  int64_t total_steps = 0;

  double LearningRate(int64_t step) const;
};

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_SCHEDULE_H_
