// After two steps that warm up, a training step calls neither malloc nor the system for memory.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "core/allocator.h"
#include "tests/train/train_testing.h"
#include "train/step.h"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

namespace {

// Counts while `counting`, on all threads. oneDNN keeps a hash table of arguments for every
// execution of a primitive, whose few small nodes can not be avoided from outside: calls from
// within that library are counted apart.
std::atomic<bool> counting{false};
std::atomic<int64_t> calls{0}, calls_of_onednn{0};
std::atomic<const void*> last_caller{nullptr};

bool IsOneDnn(const void* caller) {
  Dl_info info;
  return dladdr(caller, &info) != 0 && std::strstr(info.dli_fname, "libdnnl") != nullptr;
}

void Count(const void* caller) {
  if (!counting.load(std::memory_order_relaxed)) return;
  if (IsOneDnn(caller)) {
    ++calls_of_onednn;
  } else {
    ++calls;
    last_caller = caller;
  }
}

std::string NameOfCaller() {
  Dl_info info = {};
  if (dladdr(last_caller.load(), &info) == 0) return "?";
  return std::string(info.dli_fname) + " " + (info.dli_sname == nullptr ? "" : info.dli_sname);
}

}  // namespace

extern "C" {

void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* p, size_t size);
void* __libc_memalign(size_t alignment, size_t size);

// These take the place of the C library's functions.
void* malloc(size_t size) {
  Count(__builtin_return_address(0));
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  Count(__builtin_return_address(0));
  return __libc_calloc(count, size);
}
void* realloc(void* p, size_t size) {
  Count(__builtin_return_address(0));
  return __libc_realloc(p, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  Count(__builtin_return_address(0));
  return __libc_memalign(alignment, size);
}
void* memalign(size_t alignment, size_t size) {
  Count(__builtin_return_address(0));
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** p, size_t alignment, size_t size) {
  Count(__builtin_return_address(0));
  *p = __libc_memalign(alignment, size);
  return *p == nullptr ? ENOMEM : 0;
}

}  // extern "C"

// Here as well, so that the caller is the one of operator new.
void* operator new(size_t size) {
  Count(__builtin_return_address(0));
  return __libc_malloc(size);
}
void* operator new(size_t size, std::align_val_t alignment) {
  Count(__builtin_return_address(0));
  return __libc_memalign(static_cast<size_t>(alignment), size);
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }

namespace tessera::train {
namespace {

struct Subject {
  std::string name, model, options;
  int64_t image_size;
  bool bf16;
  StepOptions step;
};

std::vector<Subject> Subjects() {
  const std::string davit =
      "{depths: [1, 1], embed_dims: [16, 32], num_heads: [1, 2], num_classes: 4, drop_path_rate: "
      "0.3, drop_rate: 0.1}";
  return {{"davit", "davit", davit, 33, false, {.clip_grad = 1}},
          {"davit_bf16", "davit", davit, 64, true, {.compute_dtype = DType::kBF16}},
          {"biformer",
           "biformer",
           "{depth: [1, 2], embed_dim: [16, 32], head_dim: 8, mlp_ratios: [3, 2], n_win: [2, 2], "
           "topks: [2, -2], drop_path_rate: 0.2, num_classes: 4}",
           32,
           false,
           {}},
          {"maxvit",
           "maxvit",
           "{embed_dim: [8, 16], depths: [1, 1], stem_width: [8, 8], head_hidden_size: 16, "
           "transformer_cfg: {dim_head: 8, window_size: [2, 2], grid_size: [2, 2]}, "
           "drop_path_rate: 0.2, num_classes: 4}",
           32,
           true,
           {.compute_dtype = DType::kBF16}},
          {"transnext",
           "transnext",
           "{depths: [1, 1], embed_dims: [16, 32], num_heads: [2, 2], mlp_ratios: [2, 2], "
           "sr_ratios: [2, 1], window_size: [3, 0], img_size: 64, drop_path_rate: 0.2, "
           "num_classes: 4}",
           96,
           false,
           {}},
          {"davit_in_parts",
           "davit",
           davit,
           32,
           true,
           {.compute_dtype = DType::kBF16, .checkpoint_blocks = true, .accumulate = 2}}};
}

class Malloc : public ::testing::TestWithParam<Subject> {};

TEST_P(Malloc, IsNotCalledInAStep) {
  constexpr int64_t kBatch = 4;
  const Subject& subject = GetParam();
  InTraining run = MakeInTraining(subject.model, subject.options, subject.bf16);
  const Tensor images = RandomImages(kBatch, subject.image_size, subject.image_size);
  const Tensor targets = OneHotTargets(kBatch);
  const auto step = [&](int64_t number) {
    return TrainStep(*run.model, *run.store, *run.optimizer, subject.step, images, targets, number,
                     1e-3)
        .updated;
  };
  for (int64_t i = 0; i < 2; ++i) ASSERT_TRUE(step(i));
  calls = calls_of_onednn = 0;
  const int64_t blocks = GetAllocatorStats(Device::kCpu).num_system_allocs;
  for (int64_t i = 2; i < 6; ++i) {
    counting = true;
    const bool updated = step(i);
    counting = false;
    ASSERT_TRUE(updated);
    EXPECT_EQ(calls, 0) << "step " << i << ", last by " << NameOfCaller();
    calls = 0;
  }
  EXPECT_EQ(GetAllocatorStats(Device::kCpu).num_system_allocs, blocks);
  RecordProperty("calls_of_onednn_per_step", std::to_string(calls_of_onednn / 4));
}

INSTANTIATE_TEST_SUITE_P(Of, Malloc, ::testing::ValuesIn(Subjects()),
                         [](const auto& info) { return info.param.name; });

TEST(Counting, SeesACall) {
  counting = true;
  void* volatile p = std::malloc(10);
  auto* volatile q = new int(3);
  counting = false;
  EXPECT_EQ(calls, 2);
  std::free(p);
  delete q;
  calls = 0;
}

}  // namespace
}  // namespace tessera::train

#endif  // a sanitizer has its own malloc
