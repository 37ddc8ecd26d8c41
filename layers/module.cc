#include "layers/module.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/random.h"
#include "tensor/ops/cast/cast.h"

namespace tessera {
namespace {

constexpr int64_t kSliceAlignment = 16;  // elements

void Initialize(const Init& init, const std::string& name, uint64_t seed, const Tensor& value) {
  RandomStream random(seed, Purpose::kInit, HashString(name));
  float* data = value.data<float>();
  for (int64_t i = 0; i < value.numel(); ++i) {
    double x = init.scale;
    if (init.kind == Init::Kind::kUniform) x = random.Uniform(-init.scale, init.scale);
    if (init.kind == Init::Kind::kTruncatedNormal) {
      do x = init.scale * random.Normal();
      while (std::abs(x) > 2.0);
    }
    data[i] = static_cast<float>(x);
  }
}

}  // namespace

const Tensor& Parameter::As(DType dtype) const {
  if (dtype == DType::kF32) return value_;
  CHECK(dtype == DType::kBF16 && bf16_.defined())
      << "parameter " << shape_ << " has no " << Name(dtype) << " copy";
  return bf16_;
}

Parameter& Module::AddParameter(std::string name, const Shape& shape, const Init& init) {
  members_.push_back({std::move(name), std::make_unique<Parameter>(shape, init), nullptr});
  return *members_.back().parameter;
}

void Module::VisitParameters(const std::function<void(const std::string&, Parameter&)>& fn,
                             const std::string& prefix) {
  for (Member& member : members_) {
    const std::string name = absl::StrCat(prefix, member.name);
    if (member.parameter != nullptr) fn(name, *member.parameter);
    if (member.child != nullptr) member.child->VisitParameters(fn, absl::StrCat(name, "."));
  }
}

void Module::SetNames(const std::string& full_name) {
  full_name_ = full_name;
  const std::string prefix = full_name.empty() ? "" : absl::StrCat(full_name, ".");
  for (Member& member : members_) {
    if (member.child != nullptr) member.child->SetNames(absl::StrCat(prefix, member.name));
  }
}

ParameterStore::ParameterStore(Module& module, uint64_t seed, bool bf16_copies) {
  module.SetNames("");
  int64_t size = 0;
  module.VisitParameters([&](const std::string& name, Parameter& parameter) {
    CHECK(Find(name) == nullptr) << "two parameters are called " << name;
    entries_.push_back({name, &parameter, size});
    const int64_t n = parameter.shape().numel();
    num_parameters_ += n;
    size += (n + kSliceAlignment - 1) / kSliceAlignment * kSliceAlignment;
  });
  values_ = Tensor::Zeros({size}, DType::kF32);
  grads_ = Tensor::Zeros({size}, DType::kF32);
  if (bf16_copies) bf16_ = Tensor::Zeros({size}, DType::kBF16);
  for (const Entry& entry : entries_) {
    Parameter& p = *entry.parameter;
    const int64_t end = entry.offset + p.shape().numel();
    p.value_ = values_.Slice(entry.offset, end).Reshape(p.shape());
    p.grad_ = grads_.Slice(entry.offset, end).Reshape(p.shape());
    if (bf16_copies) p.bf16_ = bf16_.Slice(entry.offset, end).Reshape(p.shape());
    Initialize(p.init(), entry.name, seed, p.value_);
  }
  RefreshCopies();
}

Parameter* ParameterStore::Find(absl::string_view name) const {
  for (const Entry& entry : entries_) {
    if (entry.name == name) return entry.parameter;
  }
  return nullptr;
}

void ParameterStore::Watch(Tape& tape, bool accumulate) {
  for (const Entry& entry : entries_) {
    Parameter& p = *entry.parameter;
    tape.Watch(p.value_, p.grad_, accumulate);
    if (p.bf16_.defined()) Tape::Alias(p.value_, p.bf16_);
  }
}

void ParameterStore::RefreshCopies() {
  if (bf16_.defined()) ops::CastTo(values_, bf16_);
}

}  // namespace tessera
