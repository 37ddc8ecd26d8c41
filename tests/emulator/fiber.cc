#include "tests/emulator/fiber.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef TESSERA_EMULATOR_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace tessera::emulator {
namespace {

constexpr size_t kStackBytes = size_t{128} << 10;
constexpr size_t kGuardBytes = size_t{4} << 10;

Fiber* starting = nullptr;
void* host_context = nullptr;
#ifdef TESSERA_EMULATOR_TSAN
void* host_tsan_fiber = nullptr;
#endif
#ifdef __SANITIZE_ADDRESS__
void* host_fake_stack = nullptr;
const void* host_stack = nullptr;
size_t host_stack_bytes = 0;
#endif

char* NewStack() {
  void* p = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED || mprotect(p, kGuardBytes, PROT_NONE) != 0) {
    std::perror("emulator: no memory for the stack of a thread");
    std::abort();
  }
  return static_cast<char*>(p) + kGuardBytes;
}

}  // namespace

#ifdef __x86_64__
// Saves the registers that a called function keeps, changes stacks, and restores the other side's.
// swapcontext() would do the same with a system call for the signal mask, 30 times slower.
extern "C" void TesseraSwitchStack(void** save, void* next);
asm(R"(
.text
.globl TesseraSwitchStack
.type TesseraSwitchStack, @function
TesseraSwitchStack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size TesseraSwitchStack, .-TesseraSwitchStack
)");

namespace {

void* NewContext(char* stack, void (*start)()) {
  // What TesseraSwitchStack pops: six registers and where to go; then, as a caller would leave it,
  // a return address (null, the end of all callers) at an odd multiple of 8 bytes.
  auto* top = reinterpret_cast<uintptr_t*>(stack + kStackBytes);
  top -= 8;
  for (int i = 0; i < 8; ++i) top[i] = 0;
  top[6] = reinterpret_cast<uintptr_t>(start);
  return top;
}

void SwitchContext(void** save, void* next) { TesseraSwitchStack(save, next); }

}  // namespace
#else
namespace {

void* NewContext(char* stack, void (*start)()) {
  auto* context = new ucontext_t;
  getcontext(context);
  context->uc_stack.ss_sp = stack;
  context->uc_stack.ss_size = kStackBytes;
  context->uc_link = nullptr;
  makecontext(context, start, 0);
  return context;
}

void SwitchContext(void** save, void* next) {
  if (*save == nullptr) *save = new ucontext_t;
  swapcontext(static_cast<ucontext_t*>(*save), static_cast<ucontext_t*>(next));
}

}  // namespace
#endif

Fiber::Fiber(void (*entry)(void*), void* argument)
    : entry_(entry), argument_(argument), stack_(NewStack()) {
  context_ = NewContext(stack_, &Fiber::Start);
#ifdef TESSERA_EMULATOR_TSAN
  tsan_fiber_ = __tsan_create_fiber(0);
#endif
}

void Fiber::Start() {
  Fiber* self = starting;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &host_stack, &host_stack_bytes);
#endif
  self->entry_(self->argument_);
  std::abort();
}

void Fiber::Enter() {
  starting = this;
#ifdef TESSERA_EMULATOR_TSAN
  host_tsan_fiber = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(tsan_fiber_, __tsan_switch_to_fiber_no_sync);
#endif
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&host_fake_stack, stack_, kStackBytes);
#endif
  SwitchContext(&host_context, context_);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(host_fake_stack, nullptr, nullptr);
#endif
}

void Fiber::Leave() {
#ifdef TESSERA_EMULATOR_TSAN
  __tsan_switch_to_fiber(host_tsan_fiber, __tsan_switch_to_fiber_no_sync);
#endif
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&fake_stack_, host_stack, host_stack_bytes);
#endif
  SwitchContext(&context_, host_context);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake_stack_, &host_stack, &host_stack_bytes);
#endif
}

}  // namespace tessera::emulator
