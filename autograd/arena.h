// Stack of raw memory for the closures of a tape: allocated upward, rewound as backward consumes
// them, never moved.
#ifndef TESSERA_AUTOGRAD_ARENA_H_
#define TESSERA_AUTOGRAD_ARENA_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace tessera {

class Arena {
 public:
  // A position to rewind to.
  struct Mark {
    size_t chunk = 0;
    size_t used = 0;
  };

  // `size` bytes aligned to `align` (a power of two, at most 64).
  void* Allocate(size_t size, size_t align) {
    top_.used = (top_.used + align - 1) & ~(align - 1);
    while (top_.chunk == chunks_.size() || top_.used + size > chunks_[top_.chunk].size) {
      if (top_.chunk < chunks_.size()) ++top_.chunk;
      top_.used = 0;
      if (top_.chunk == chunks_.size()) chunks_.push_back(Chunk(std::max(size, kChunkBytes)));
    }
    void* p = chunks_[top_.chunk].data.get() + top_.used;
    top_.used += size;
    return p;
  }
  Mark Top() const { return top_; }
  void Rewind(Mark mark) { top_ = mark; }

 private:
  static constexpr size_t kChunkBytes = size_t{1} << 16;

  struct Chunk {
    explicit Chunk(size_t bytes) : data(new (std::align_val_t{64}) std::byte[bytes]), size(bytes) {}
    struct Free {
      void operator()(std::byte* p) const { operator delete[](p, std::align_val_t{64}); }
    };
    std::unique_ptr<std::byte[], Free> data;
    size_t size;
  };

  std::vector<Chunk> chunks_;
  Mark top_;
};

}  // namespace tessera

#endif  // TESSERA_AUTOGRAD_ARENA_H_
