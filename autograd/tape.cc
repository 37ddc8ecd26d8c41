#include "autograd/tape.h"

#include "core/trace.h"
#include "tensor/ops/add/add.h"

namespace tessera {

struct Tape::Buffers {
  std::vector<Node> nodes;
  std::vector<Slot> slots;
  Arena arena;
  int64_t next_first_slot = 0;
};

namespace {
thread_local Tape* active_tape = nullptr;
thread_local bool recomputing = false;
}  // namespace

Tape::Buffers& Tape::ThreadBuffers() {
  thread_local Buffers buffers;
  return buffers;
}

Tape::Tape()
    : nodes_(ThreadBuffers().nodes),
      slots_(ThreadBuffers().slots),
      arena_(ThreadBuffers().arena),
      first_slot_(ThreadBuffers().next_first_slot) {
  CHECK(active_tape == nullptr) << "a tape is already active on this thread";
  active_tape = this;
}

Tape::~Tape() {
  while (!nodes_.empty()) {
    nodes_.back().destroy(nodes_.back().closure);
    nodes_.pop_back();
  }
  arena_.Rewind({});
  ThreadBuffers().next_first_slot = first_slot_ + static_cast<int64_t>(slots_.size());
  slots_.clear();
  active_tape = nullptr;
}

Tape* Tape::Active() { return active_tape; }

PauseTape::PauseTape() : paused_(active_tape) { active_tape = nullptr; }
PauseTape::~PauseTape() { active_tape = paused_; }

bool Tape::Recomputing() { return recomputing; }
RecomputeScope::RecomputeScope() : before_(recomputing) { recomputing = true; }
RecomputeScope::~RecomputeScope() { recomputing = before_; }

thread_local ObserveOps* ObserveOps::active_ = nullptr;

ObserveOps::ObserveOps(Observer observer) : observer_(std::move(observer)) {
  CHECK(active_ == nullptr) << "ops are observed already on this thread";
  active_ = this;
}
ObserveOps::~ObserveOps() { active_ = nullptr; }

void ObserveOps::ShowOutputs(const char* op, std::initializer_list<const Tensor*> inputs,
                             std::initializer_list<Tensor*> outputs) {
  std::vector<int64_t> slots;
  for (const Tensor* input : inputs) slots.push_back(input->slot());
  for (const Tensor* output : outputs) Show({op, false, *output, slots});
}

bool NeedsGrad(std::initializer_list<const Tensor*> inputs) {
  if (active_tape == nullptr) return false;
  for (const Tensor* t : inputs) {
    if (t->slot() != Tensor::kNoSlot) return true;
  }
  return false;
}

Tape::Slot* Tape::Find(int64_t slot) {
  return slot < first_slot_ ? nullptr : &slots_[slot - first_slot_];
}

int64_t Tape::NewSlot(const Tensor& tensor) {
  slots_.push_back({tensor.shape(), tensor.dtype(), tensor.device(), Tensor(), false, false});
  return first_slot_ + static_cast<int64_t>(slots_.size()) - 1;
}

void Tape::Watch(Tensor& leaf, const Tensor& grad, bool accumulate) {
  CHECK(grad.dtype() == DType::kF32 && grad.numel() == leaf.numel())
      << "Watch " << leaf.shape() << " with gradient " << Name(grad.dtype()) << grad.shape();
  leaf.set_slot(NewSlot(leaf));
  Slot& slot = slots_.back();
  slot.dtype = DType::kF32;
  slot.grad = grad.Reshape(leaf.shape()).Detach();
  slot.has_grad = accumulate;
  slot.leaf = true;
}

Tape::Node& Tape::AppendNode(const char* name, std::initializer_list<const Tensor*> inputs,
                             std::initializer_list<Tensor*> outputs) {
  CHECK(inputs.size() <= kMaxInputs && outputs.size() <= kMaxOutputs) << name;
  Node& node = nodes_.emplace_back();
  node.name = name;
  node.num_inputs = static_cast<int>(inputs.size());
  node.num_outputs = static_cast<int>(outputs.size());
  int i = 0;
  for (const Tensor* t : inputs) node.inputs[i++] = t->slot();
  i = 0;
  for (Tensor* t : outputs) {
    t->set_slot(NewSlot(*t));
    node.outputs[i++] = t->slot();
  }
  return node;
}

void Tape::Backward(const Tensor& loss, float seed) {
  CHECK(loss.numel() == 1 && loss.dtype() == DType::kF32)
      << "Backward from " << Name(loss.dtype()) << loss.shape();
  CHECK(Find(loss.slot()) != nullptr) << "Backward: the loss does not depend on a watched tensor";
  AddGrad(loss.slot(), Tensor::From<float>(loss.shape(), {seed}).To(loss.device()));
  while (!nodes_.empty()) RunLastNode();
  // A leaf that no node reached has gradient zero.
  for (Slot& slot : slots_) {
    if (slot.leaf && !slot.has_grad) slot.grad.FillZero();
    slot.grad = Tensor();
  }
}

void Tape::RunLastNode() {
  Node node = nodes_.back();
  nodes_.pop_back();
  bool has_grad = false;
  for (int k = 0; k < node.num_outputs; ++k) has_grad |= Find(node.outputs[k])->has_grad;
  const size_t num_nodes = nodes_.size();
  if (has_grad) {
    const TraceScope trace(node.name);
    GradContext context(*this, node.inputs.data(), node.num_inputs, node.outputs.data());
    node.run(node.closure, context);
    if (ObserveOps::On()) [[unlikely]] {
      ShowGradients(node);
    }
  }
  node.destroy(node.closure);
  // A checkpoint has just recorded its block above its own closure, so its memory goes later, with
  // a node below.
  if (nodes_.size() == num_nodes) arena_.Rewind(node.mark);
  for (int k = 0; k < node.num_outputs; ++k) Find(node.outputs[k])->grad = Tensor();
}

void Tape::ShowGradients(const Node& node) {
  const absl::Span<const int64_t> inputs(node.inputs.data(), node.num_inputs);
  for (const int64_t input : inputs) {
    const Slot* slot = Find(input);
    if (slot != nullptr && slot->has_grad) ObserveOps::Show({node.name, true, slot->grad, inputs});
  }
}

void Tape::AddGrad(int64_t number, Tensor grad) {
  Slot& slot = *Find(number);
  CHECK_EQ(grad.numel(), slot.shape.numel()) << "gradient " << grad.shape() << " of " << slot.shape;
  if (!slot.has_grad && !slot.leaf) {
    CHECK(grad.dtype() == slot.dtype || slot.dtype == DType::kF32)
        << "gradient " << Name(grad.dtype()) << " of a " << Name(slot.dtype) << " tensor";
    slot.grad = std::move(grad).Detach();
  } else if (!slot.has_grad) {
    slot.grad.CopyFrom(grad);
  } else {
    // The first gradient may be shared with another slot (both inputs of an addition get the same
    // one).
    if (!slot.leaf && !slot.grad.unique()) slot.grad = slot.grad.Clone();
    ops::AddInPlace(slot.grad, grad);
  }
  slot.has_grad = true;
}

Tensor GradContext::out(int k) const {
  const Tape::Slot& slot = *tape_.Find(outputs_[k]);
  return slot.has_grad ? slot.grad.Reshape(slot.shape) : Tensor();
}

Tensor GradContext::Take(int k) const {
  Tape::Slot& slot = *tape_.Find(outputs_[k]);
  if (!slot.has_grad) return Tensor();
  const Tensor grad = std::move(slot.grad);
  return grad.Reshape(slot.shape);
}

bool GradContext::wants(int i) const {
  CHECK_LT(i, num_inputs_);
  return tape_.Find(inputs_[i]) != nullptr;
}

GradDest GradContext::Dest(int i) const {
  CHECK(wants(i));
  Tape::Slot& slot = *tape_.Find(inputs_[i]);
  const bool accumulate = slot.has_grad;
  if (!slot.leaf) {
    if (!accumulate) slot.grad = Tensor::Empty(slot.shape, slot.dtype, slot.device);
    if (accumulate && !slot.grad.unique()) slot.grad = slot.grad.Clone();
  }
  slot.has_grad = true;
  return {slot.grad, accumulate};
}

void GradContext::Add(int i, Tensor grad) const {
  if (wants(i)) tape_.AddGrad(inputs_[i], std::move(grad));
}

void GradContext::Seed(const Tensor& recomputed) const {
  if (tape_.Find(recomputed.slot()) == nullptr) return;
  tape_.AddGrad(recomputed.slot(), out());
}

}  // namespace tessera
