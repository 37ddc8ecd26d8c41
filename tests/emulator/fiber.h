// Fibers: threads of execution that switch by hand, on one thread of the system. The sanitizers are
// told of every switch; no switch orders memory for ThreadSanitizer.
#ifndef TESSERA_TESTS_EMULATOR_FIBER_H_
#define TESSERA_TESTS_EMULATOR_FIBER_H_

#include <cstddef>

namespace tessera::emulator {

class Fiber {
 public:
  // A fiber that calls entry(argument) at its first Enter(); `entry` must never return.
  Fiber(void (*entry)(void*), void* argument);
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Runs the fiber until it calls Leave(). From outside of all fibers only.
  void Enter();
  // From inside: goes back to where Enter() was called.
  void Leave();

 private:
  static void Start();

  void (*entry_)(void*);
  void* argument_;
  char* stack_;
  void* context_ = nullptr;
  void* fake_stack_ = nullptr;  // AddressSanitizer's
  void* tsan_fiber_ = nullptr;
};

}  // namespace tessera::emulator

#endif  // TESSERA_TESTS_EMULATOR_FIBER_H_
