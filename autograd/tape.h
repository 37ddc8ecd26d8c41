// Reverse-mode differentiation on a linear tape: nodes in execution order, so backward is that
// order reversed.
//
//   Tape tape;                                    // records what this thread computes from now on
//   tape.Watch(weight, weight_grad, /*accumulate=*/false);
//   Tensor loss = ...;                            // ops call Record()
//   tape.Backward(loss);                          // weight_grad now holds d loss / d weight
//
// An op records itself like this; the closure holds what its backward needs and is destroyed as
// soon as it ran:
//   Tensor MeanPool(const Tensor& x) {
//     Tensor y = ops::MeanPool(x);
//     Record("mean_pool", {&x}, {&y}, [](GradContext& g) {
//       const GradDest dx = g.Dest(0);
//       ops::MeanPoolBackward(g.out(), dx.tensor, dx.accumulate);
//     });
//     return y;
//   }
// Gradients have the dtype of their tensor (f32 for watched leaves) and have no gradients
// themselves. Memory of nodes and closures comes from an arena that is reused by the next tape of
// the thread.
#ifndef TESSERA_AUTOGRAD_TAPE_H_
#define TESSERA_AUTOGRAD_TAPE_H_

#include <array>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <new>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "autograd/arena.h"
#include "tensor/tensor.h"

namespace tessera {

class Tape;

// Where the gradient of an input is to be written: overwritten, or added to when `accumulate`.
struct GradDest {
  Tensor tensor;
  bool accumulate = false;
};

// What a node's backward sees.
class GradContext {
 public:
  // Gradient of output k. A node runs only if some output has one; the others are undefined
  // tensors.
  Tensor out(int k = 0) const;
  // The same, taken away from the tape: a node may overwrite its memory, say with the gradient of
  // an input, if the result is unique().
  Tensor Take(int k = 0) const;
  // True if input i needs a gradient; computing one that is not wanted is a waste.
  bool wants(int i) const;
  // The place for the gradient of input i, for kernels that can write or accumulate in place. The
  // kernel must fill it before the node returns. CHECKs wants(i).
  GradDest Dest(int i) const;
  // Hands over a whole gradient of input i: kept as it is when it is the first, else added. Ignored
  // unless wants(i). It may be bf16 where an f32 input was made by products that take it as bf16.
  void Add(int i, Tensor grad) const;
  // Makes the gradient of output 0 that of `recomputed`, whose nodes this backward has just
  // recorded.
  void Seed(const Tensor& recomputed) const;

 private:
  friend class Tape;
  GradContext(Tape& tape, const int64_t* inputs, int num_inputs, const int64_t* outputs)
      : tape_(tape), inputs_(inputs), num_inputs_(num_inputs), outputs_(outputs) {}
  Tape& tape_;
  const int64_t* inputs_;
  int num_inputs_;
  const int64_t* outputs_;
};

class Tape {
 public:
  static constexpr int kMaxInputs = 9;
  static constexpr int kMaxOutputs = 3;

  Tape();  // becomes the thread's active tape; CHECKs that there is none
  ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  // The tape that records on this thread, or null (none, or paused).
  static Tape* Active();

  // Makes `leaf` require a gradient, written to (or added to) `grad`: f32, as many elements as the
  // leaf.
  void Watch(Tensor& leaf, const Tensor& grad, bool accumulate);
  // True while a checkpoint runs its block again: what the first run did on the side, say to
  // running statistics, is not to be done twice.
  static bool Recomputing();

  // Gives `alias` (say the bf16 copy of a watched parameter) the slot of `leaf`.
  static void Alias(const Tensor& leaf, Tensor& alias) { alias.set_slot(leaf.slot()); }

  // Runs all nodes in reverse, starting from d loss / d loss = seed. `loss` is a scalar f32.
  // Empties the tape.
  void Backward(const Tensor& loss, float seed = 1.0f);

  int64_t num_nodes() const { return static_cast<int64_t>(nodes_.size()); }

  // Implementation of Record().
  template <typename Fn>
  void Push(const char* name, std::initializer_list<const Tensor*> inputs,
            std::initializer_list<Tensor*> outputs, Fn fn);

 private:
  friend class GradContext;
  friend class PauseTape;

  struct Slot {
    Shape shape;
    DType dtype;
    Device device;
    Tensor grad;  // undefined until the first gradient arrives, except for leaves
    bool has_grad = false;
    bool leaf = false;
  };
  struct Node {
    const char* name;
    void (*run)(void* closure, GradContext& context);
    void (*destroy)(void* closure);
    void* closure;
    Arena::Mark mark;  // top of the arena before the closure
    int num_inputs;
    int num_outputs;
    std::array<int64_t, kMaxInputs> inputs;
    std::array<int64_t, kMaxOutputs> outputs;
  };

  Node& AppendNode(const char* name, std::initializer_list<const Tensor*> inputs,
                   std::initializer_list<Tensor*> outputs);
  void RunLastNode();
  void ShowGradients(const Node& node);
  void AddGrad(int64_t slot, Tensor grad);
  // The slot with this number, or null: kNoSlot and slots of earlier tapes have none.
  Slot* Find(int64_t slot);
  int64_t NewSlot(const Tensor& tensor);

  // Owned by the thread, so that a repeated step allocates nothing.
  struct Buffers;
  static Buffers& ThreadBuffers();
  std::vector<Node>& nodes_;
  std::vector<Slot>& slots_;
  Arena& arena_;
  int64_t
      first_slot_;  // slot numbers grow over all tapes of the thread, so stale ones are recognised
};

// Stops recording on this thread while it lives.
class PauseTape {
 public:
  PauseTape();
  ~PauseTape();

 private:
  Tape* paused_;
};

// Makes Tape::Recomputing() true while it lives.
class RecomputeScope {
 public:
  RecomputeScope();
  ~RecomputeScope();

 private:
  bool before_;
};

// One tensor that an op made while it was observed.
struct OpResult {
  const char* op;  // the name it records itself by
  bool backward;   // a gradient of one of its inputs rather than an output
  const Tensor& value;
  absl::Span<const int64_t> inputs;  // their slots
};

// Shows a function every result of the ops of this thread while it lives, in the order in which
// they are made, to find where something went wrong. Ops show their outputs whether or not a tape
// records them. At most one at a time.
class ObserveOps {
 public:
  using Observer = std::function<void(const OpResult&)>;
  explicit ObserveOps(Observer observer);
  ~ObserveOps();
  ObserveOps(const ObserveOps&) = delete;
  ObserveOps& operator=(const ObserveOps&) = delete;

  static bool On() { return active_ != nullptr; }
  static void Show(const OpResult& result) { active_->observer_(result); }
  static void ShowOutputs(const char* op, std::initializer_list<const Tensor*> inputs,
                          std::initializer_list<Tensor*> outputs);

 private:
  static thread_local ObserveOps* active_;
  Observer observer_;
};

// True if a tape is active and one of the tensors needs a gradient.
bool NeedsGrad(std::initializer_list<const Tensor*> inputs);

// Appends a node to the active tape and gives the outputs their slots. Does nothing unless
// NeedsGrad(inputs). Undefined tensors are allowed as inputs and never want a gradient.
template <typename Fn>
void Record(const char* name, std::initializer_list<const Tensor*> inputs,
            std::initializer_list<Tensor*> outputs, Fn fn) {
  if (ObserveOps::On()) [[unlikely]] {
    ObserveOps::ShowOutputs(name, inputs, outputs);
  }
  if (NeedsGrad(inputs)) Tape::Active()->Push(name, inputs, outputs, std::move(fn));
}

// Runs fn(x) -> Tensor without recording it; backward runs it again, recording, and so saves the
// memory of everything inside at the price of a second forward (Chen et al., arXiv 1604.06174). fn
// must give the same values both times.
template <typename Fn>
Tensor Checkpoint(const Tensor& x, Fn fn) {
  Tape* tape = Tape::Active();
  if (tape == nullptr) return fn(x);
  Tensor y;
  {
    PauseTape pause;
    y = fn(x);
  }
  tape->Push("checkpoint", {&x}, {&y}, [x, fn = std::move(fn)](GradContext& g) {
    const RecomputeScope recompute;
    g.Seed(fn(x));
  });
  return y;
}

template <typename Fn>
void Tape::Push(const char* name, std::initializer_list<const Tensor*> inputs,
                std::initializer_list<Tensor*> outputs, Fn fn) {
  Node& node = AppendNode(name, inputs, outputs);
  node.mark = arena_.Top();
  node.closure = new (arena_.Allocate(sizeof(Fn), alignof(Fn))) Fn(std::move(fn));
  node.run = [](void* closure, GradContext& context) { (*static_cast<Fn*>(closure))(context); };
  node.destroy = [](void* closure) { static_cast<Fn*>(closure)->~Fn(); };
}

}  // namespace tessera

#endif  // TESSERA_AUTOGRAD_TAPE_H_
