// Per-thread scratch memory of the attention kernels. It grows to the largest tile that the thread
// has seen and is kept, so that a steady training step allocates nothing.
#ifndef TESSERA_ATTENTION_SCRATCH_H_
#define TESSERA_ATTENTION_SCRATCH_H_

#include <cstdint>

namespace tessera {

// Room for `num_floats` floats on the calling thread, handed out in pieces aligned to a cache line.
// Contents are undefined. One at a time per thread.
class ScratchFloats {
 public:
  explicit ScratchFloats(int64_t num_floats);
  float* Take(int64_t num_floats);

 private:
  float* next_;
  float* end_;
};

}  // namespace tessera

#endif  // TESSERA_ATTENTION_SCRATCH_H_
