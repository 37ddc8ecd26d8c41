#include "attention/scratch.h"

#include "core/check.h"
#include "hwy/aligned_allocator.h"

namespace tessera {
namespace {

constexpr int64_t kLineFloats = 16;
constexpr int64_t kMaxPieces = 20;

}  // namespace

ScratchFloats::ScratchFloats(int64_t num_floats) {
  thread_local hwy::AlignedFreeUniquePtr<float[]> buffer;
  thread_local int64_t capacity = 0;
  const int64_t wanted = num_floats + kMaxPieces * kLineFloats;
  if (wanted > capacity) {
    buffer = hwy::AllocateAligned<float>(static_cast<size_t>(wanted));
    CHECK(buffer != nullptr) << "attention: no memory for " << wanted * sizeof(float)
                             << " bytes of scratch";
    capacity = wanted;
  }
  next_ = buffer.get();
  end_ = next_ + capacity;
}

float* ScratchFloats::Take(int64_t num_floats) {
  float* piece = next_;
  next_ += (num_floats + kLineFloats - 1) / kLineFloats * kLineFloats;
  CHECK(next_ <= end_) << "attention: scratch of " << num_floats << " floats past its end";
  return piece;
}

}  // namespace tessera
