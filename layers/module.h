// Module: a tree of named parameters, and the flat memory that holds their values and gradients.
//
// A module adds its parameters, buffers and children in its constructor; the names joined by dots
// are the checkpoint's names:
//   class Linear : public Module {
//    public:
//     Linear(int64_t in, int64_t out)
//         : weight_(AddParameter("weight", {out, in}, Init::TruncatedNormal(0.02))) {}
//     Tensor Forward(const Tensor& x) const;
//    private:
//     Parameter& weight_;
//   };
// After the tree is built, a ParameterStore gives every parameter its slice of the flat memory.
// Modules stay where they were made: they are neither copied nor moved.
#ifndef TESSERA_LAYERS_MODULE_H_
#define TESSERA_LAYERS_MODULE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "autograd/tape.h"
#include "tensor/tensor.h"

namespace tessera {

// How a parameter starts.
struct Init {
  enum class Kind { kConstant, kUniform, kNormal, kTruncatedNormal };
  Kind kind = Kind::kConstant;
  double scale = 0.0;

  static Init Zeros() { return {Kind::kConstant, 0.0}; }
  static Init Ones() { return {Kind::kConstant, 1.0}; }
  // Uniform in [-bound, bound).
  static Init Uniform(double bound) { return {Kind::kUniform, bound}; }
  // Uniform with the variance that keeps that of activations and of gradients on average (Glorot
  // and Bengio, AISTATS 2010).
  static Init XavierUniform(int64_t fan_in, int64_t fan_out);
  static Init Normal(double std) { return {Kind::kNormal, std}; }
  // Normal with the variance that keeps that of gradients through a convolution (He et al., arXiv
  // 1502.01852): fan_out counts the outputs that an input reaches.
  static Init FanOutNormal(int64_t fan_out);
  // Normal with this standard deviation, redrawn outside [-2, 2] (absolute bounds, as timm's
  // trunc_normal_).
  static Init TruncatedNormal(double std) { return {Kind::kTruncatedNormal, std}; }
};

// A learned tensor. Its value is f32; with bf16 compute it also has a bf16 copy, refreshed after
// each optimizer step.
class Parameter {
 public:
  Parameter(const Shape& shape, const Init& init) : shape_(shape), init_(init) {}

  const Shape& shape() const { return shape_; }
  const Init& init() const { return init_; }
  // Weight decay applies to matrices and kernels, not to biases and the parameters of norms, nor to
  // what a module excludes from it.
  bool decays() const { return shape_.rank() >= 2 && !excluded_from_decay_; }
  void ExcludeFromDecay() { excluded_from_decay_ = true; }

  const Tensor& value() const { return value_; }  // f32
  const Tensor& grad() const { return grad_; }    // f32; holds the gradient after Tape::Backward
  // The value as an operand of products in `dtype`: f32, or the bf16 copy (CHECKs that the store
  // keeps one).
  const Tensor& As(DType dtype) const;

 private:
  friend class ParameterStore;
  Shape shape_;
  Init init_;
  bool excluded_from_decay_ = false;
  Tensor value_;
  Tensor grad_;
  Tensor bf16_;
};

// A tensor that belongs to a model's state but is not trained: running statistics (f32), counters
// (i64). Forward passes in training write to it.
class Buffer {
 public:
  Buffer(const Shape& shape, DType dtype, int64_t initial)
      : shape_(shape), dtype_(dtype), initial_(initial) {}

  const Shape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }
  const Tensor& value() const { return value_; }

 private:
  friend class ParameterStore;
  Shape shape_;
  DType dtype_;
  int64_t initial_;  // value of every element
  Tensor value_;
};

class Module {
 public:
  Module() = default;
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  // Calls fn(full name, parameter) for every parameter below, in the order in which they were
  // added.
  void VisitParameters(const std::function<void(const std::string&, Parameter&)>& fn,
                       const std::string& prefix = "");
  void VisitBuffers(const std::function<void(const std::string&, Buffer&)>& fn,
                    const std::string& prefix = "");

  // Dotted name within the tree, such as "stages.0.blocks.0.1.attn"; empty at the root and until
  // a ParameterStore has been made.
  const std::string& full_name() const { return full_name_; }

 protected:
  Parameter& AddParameter(std::string name, const Shape& shape, const Init& init);
  Buffer& AddBuffer(std::string name, const Shape& shape, DType dtype, int64_t initial);
  // Makes a child module of type M; it lives as long as this module.
  template <typename M, typename... Args>
  M& AddChild(std::string name, Args&&... args);

 private:
  // One of the three; all in one list, which keeps their order.
  struct Member {
    std::string name;
    std::unique_ptr<Parameter> parameter;
    std::unique_ptr<Buffer> buffer;
    std::unique_ptr<Module> child;
  };
  friend class ParameterStore;
  void SetNames(const std::string& full_name);

  std::vector<Member> members_;
  std::string full_name_;
};

// Flat memory of all parameters of a module: one tensor for values, one for gradients, one for bf16
// copies. Each parameter is a slice that starts at a multiple of 16 elements (a cache line of
// floats); the gaps are zero everywhere. f32 buffers are slices of the same values, behind the
// parameters; i64 buffers have a tensor of their own.
class ParameterStore {
 public:
  struct Entry {
    std::string name;
    Parameter* parameter;
    int64_t offset;  // in elements
  };
  struct BufferEntry {
    std::string name;
    Buffer* buffer;
    int64_t offset;  // in elements of values() or, for i64, of counters()
  };

  // Lays everything out on the CPU and initialises every value from (seed, the parameter's name).
  // With `bf16_copies`, parameters also get their bf16 copy.
  ParameterStore(Module& module, uint64_t seed, bool bf16_copies);

  const std::vector<Entry>& entries() const { return entries_; }
  const std::vector<BufferEntry>& buffers() const { return buffers_; }
  // The parameter of this name, or null.
  Parameter* Find(absl::string_view name) const;
  int64_t num_parameters() const { return num_parameters_; }  // without the gaps
  Device device() const { return values_.device(); }

  const Tensor& values() const { return values_; }  // f32, all slices and gaps
  const Tensor& grads() const { return grads_; }    // f32, the parameters' part of that layout
  const Tensor& bf16() const { return bf16_; }      // bf16, like grads(); undefined without copies
  const Tensor& counters() const { return counters_; }  // i64, without gaps; on the CPU
  // The parameters' part of a tensor laid out like values().
  Tensor Trained(const Tensor& flat) const { return flat.Slice(0, grads_.numel()); }

  // Makes the parameters leaves of the tape: gradients overwrite, or add to, what grads() holds.
  void Watch(Tape& tape, bool accumulate);
  // Moves everything but the counters to another device; not while a tape watches.
  void MoveTo(Device device);
  // Brings the bf16 copies up to date, after values were loaded or changed by other means than the
  // optimizer's sweep.
  void RefreshCopies();

 private:
  void LayOutBuffers(Module& module, int64_t* size, int64_t* num_counters);
  // Makes parameters and buffers slices of the flat tensors.
  void CutSlices();

  std::vector<Entry> entries_;
  std::vector<BufferEntry> buffers_;
  int64_t num_parameters_ = 0;
  Tensor values_;
  Tensor grads_;
  Tensor bf16_;
  Tensor counters_;
};

template <typename M, typename... Args>
M& Module::AddChild(std::string name, Args&&... args) {
  auto child = std::make_unique<M>(std::forward<Args>(args)...);
  M& reference = *child;
  members_.push_back({std::move(name), nullptr, nullptr, std::move(child)});
  return reference;
}

}  // namespace tessera

#endif  // TESSERA_LAYERS_MODULE_H_
