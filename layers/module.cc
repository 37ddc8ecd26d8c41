#include "layers/module.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "absl/strings/str_cat.h"
#include "core/parallel.h"
#include "core/random.h"
#include "tensor/ops/cast/cast.h"

namespace tessera {
namespace {

constexpr int64_t kSliceAlignment = 16;  // elements

int64_t RoundToSlices(int64_t n) {
  return (n + kSliceAlignment - 1) / kSliceAlignment * kSliceAlignment;
}

// Two independent normal numbers from two words of random bits (Box and Muller, Ann. Math. Stat.
// 29, 1958). 32 bits reach 6.6 standard deviations, which is as far as 10^10 draws go.
std::array<float, 2> NormalPair(uint32_t a, uint32_t b) {
  const float u = (static_cast<float>(a) + 1.0f) * 0x1p-32f;
  const float radius = std::sqrt(-2.0f * std::log(std::min(u, 1.0f)));
  const float angle = static_cast<float>(b) * (0x1p-31f * std::numbers::pi_v<float>);
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

void InitializeChunk(const Init& init, RandomStream random, float* data, int64_t n) {
  const float scale = static_cast<float>(init.scale);
  int64_t i = 0;
  while (i < n) {
    const uint32_t a = random.Next(), b = random.Next();
    std::array<float, 2> draws = {static_cast<float>(a) * 0x1p-31f - 1.0f,
                                  static_cast<float>(b) * 0x1p-31f - 1.0f};
    if (init.kind != Init::Kind::kUniform) draws = NormalPair(a, b);
    for (const float draw : draws) {
      const float value = scale * draw;
      const bool redraw = init.kind == Init::Kind::kTruncatedNormal && std::abs(value) > 2.0f;
      if (i < n && !redraw) data[i++] = value;
    }
  }
}

void Initialize(const Init& init, const std::string& name, uint64_t seed, const Tensor& value) {
  constexpr int64_t kChunk = 16384;  // elements with a stream of their own
  float* data = value.data<float>();
  if (init.kind == Init::Kind::kConstant) {
    std::fill(data, data + value.numel(), static_cast<float>(init.scale));
    return;
  }
  const uint64_t hash = HashString(name);
  ParallelFor(value.numel(), kChunk, [&](int64_t begin, int64_t end) {
    InitializeChunk(init, RandomStream(seed, Purpose::kInit, hash, begin / kChunk), data + begin,
                    end - begin);
  });
}

}  // namespace

Init Init::XavierUniform(int64_t fan_in, int64_t fan_out) {
  return Uniform(std::sqrt(6.0 / static_cast<double>(fan_in + fan_out)));
}

Init Init::FanOutNormal(int64_t fan_out) {
  return Normal(std::sqrt(2.0 / static_cast<double>(fan_out)));
}

const Tensor& Parameter::As(DType dtype) const {
  if (dtype == DType::kF32) return value_;
  CHECK(dtype == DType::kBF16 && bf16_.defined())
      << "parameter " << shape_ << " has no " << Name(dtype) << " copy";
  return bf16_;
}

Parameter& Module::AddParameter(std::string name, const Shape& shape, const Init& init) {
  members_.push_back({std::move(name), std::make_unique<Parameter>(shape, init), nullptr, nullptr});
  return *members_.back().parameter;
}

Buffer& Module::AddBuffer(std::string name, const Shape& shape, DType dtype, int64_t initial) {
  CHECK(dtype == DType::kF32 || dtype == DType::kI64) << "buffer " << name << ": " << Name(dtype);
  members_.push_back(
      {std::move(name), nullptr, std::make_unique<Buffer>(shape, dtype, initial), nullptr});
  return *members_.back().buffer;
}

void Module::VisitParameters(const std::function<void(const std::string&, Parameter&)>& fn,
                             const std::string& prefix) {
  for (Member& member : members_) {
    const std::string name = absl::StrCat(prefix, member.name);
    if (member.parameter != nullptr) fn(name, *member.parameter);
    if (member.child != nullptr) member.child->VisitParameters(fn, absl::StrCat(name, "."));
  }
}

void Module::VisitBuffers(const std::function<void(const std::string&, Buffer&)>& fn,
                          const std::string& prefix) {
  for (Member& member : members_) {
    const std::string name = absl::StrCat(prefix, member.name);
    if (member.buffer != nullptr) fn(name, *member.buffer);
    if (member.child != nullptr) member.child->VisitBuffers(fn, absl::StrCat(name, "."));
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
    size += RoundToSlices(n);
  });
  grads_ = Tensor::Zeros({size}, DType::kF32);
  if (bf16_copies) bf16_ = Tensor::Zeros({size}, DType::kBF16);
  int64_t num_counters = 0;
  LayOutBuffers(module, &size, &num_counters);
  values_ = Tensor::Zeros({size}, DType::kF32);
  counters_ = Tensor::Zeros({num_counters}, DType::kI64);
  CutSlices();
  for (const Entry& entry : entries_) {
    Initialize(entry.parameter->init(), entry.name, seed, entry.parameter->value_);
  }
  for (const BufferEntry& entry : buffers_) {
    const Buffer& b = *entry.buffer;
    if (b.dtype() == DType::kF32) {
      std::fill_n(b.value_.data<float>(), b.shape().numel(), static_cast<float>(b.initial_));
    } else {
      std::fill_n(b.value_.data<int64_t>(), b.shape().numel(), b.initial_);
    }
  }
  RefreshCopies();
}

void ParameterStore::CutSlices() {
  for (const Entry& entry : entries_) {
    Parameter& p = *entry.parameter;
    const int64_t end = entry.offset + p.shape().numel();
    p.value_ = values_.Slice(entry.offset, end).Reshape(p.shape());
    p.grad_ = grads_.Slice(entry.offset, end).Reshape(p.shape());
    if (bf16_.defined()) p.bf16_ = bf16_.Slice(entry.offset, end).Reshape(p.shape());
  }
  for (const BufferEntry& entry : buffers_) {
    Buffer& b = *entry.buffer;
    const Tensor& flat = b.dtype() == DType::kF32 ? values_ : counters_;
    b.value_ = flat.Slice(entry.offset, entry.offset + b.shape().numel()).Reshape(b.shape());
  }
}

void ParameterStore::MoveTo(Device device) {
  values_ = values_.To(device);
  grads_ = grads_.To(device);
  bf16_ = bf16_.To(device);
  CutSlices();
}

// Places f32 buffers from element `size` of the values on, and counts the elements of i64 ones.
void ParameterStore::LayOutBuffers(Module& module, int64_t* size, int64_t* num_counters) {
  module.VisitBuffers([&](const std::string& name, Buffer& buffer) {
    const int64_t n = buffer.shape().numel();
    const bool is_counter = buffer.dtype() == DType::kI64;
    buffers_.push_back({name, &buffer, is_counter ? *num_counters : *size});
    if (is_counter) {
      *num_counters += n;
    } else {
      *size += RoundToSlices(n);
    }
  });
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
  if (bf16_.defined()) ops::CastTo(Trained(values_), bf16_);
}

}  // namespace tessera
