#include "tensor/tensor.h"

#include <new>

#include "core/allocator.h"
#include "core/device_runtime.h"

namespace tessera {
namespace internal {

Storage* Storage::New(int64_t data_bytes, Device device) {
  static_assert(sizeof(Storage) <= kHeaderBytes && kHeaderBytes % kTensorAlignment == 0);
  if (device == Device::kCpu) {
    MemoryBlock* const block = Allocate(kHeaderBytes + data_bytes, device);
    return new (block->data) Storage{{1}, device, block->data + kHeaderBytes, block, nullptr};
  }
  MemoryBlock* const data = Allocate(data_bytes, device);
  MemoryBlock* const header = Allocate(kHeaderBytes, Device::kCpu);
  return new (header->data) Storage{{1}, device, data->data, header, data};
}

void Storage::Unref() {
  if (refs.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  if (data_block != nullptr) Deallocate(data_block, device);
  MemoryBlock* const own_block = block;
  this->~Storage();
  Deallocate(own_block, Device::kCpu);
}

}  // namespace internal

Tensor::Tensor(const Tensor& other)
    : storage_(other.storage_),
      offset_bytes_(other.offset_bytes_),
      shape_(other.shape_),
      dtype_(other.dtype_),
      slot_(other.slot_) {
  if (storage_ != nullptr) storage_->Ref();
}

Tensor::~Tensor() {
  if (storage_ != nullptr) storage_->Unref();
}

void Tensor::swap(Tensor& other) noexcept {
  std::swap(storage_, other.storage_);
  std::swap(offset_bytes_, other.offset_bytes_);
  std::swap(shape_, other.shape_);
  std::swap(dtype_, other.dtype_);
  std::swap(slot_, other.slot_);
}

Tensor Tensor::Empty(const Shape& shape, DType dtype, Device device) {
  Tensor t;
  t.shape_ = shape;
  t.dtype_ = dtype;
  t.storage_ = internal::Storage::New(shape.numel() * SizeOf(dtype), device);
  return t;
}

Tensor Tensor::Zeros(const Shape& shape, DType dtype, Device device) {
  Tensor t = Empty(shape, dtype, device);
  t.FillZero();
  return t;
}

Tensor Tensor::Reshape(const Shape& shape) const {
  CHECK_EQ(shape.numel(), numel()) << "Reshape " << shape_ << " to " << shape;
  Tensor t = *this;
  t.shape_ = shape;
  return t;
}

Tensor Tensor::Slice(int64_t begin, int64_t end) const {
  CHECK(rank() >= 1 && begin >= 0 && begin <= end && end <= dim(0))
      << "Slice [" << begin << ", " << end << ") of " << shape_;
  const int64_t row = dim(0) == 0 ? 0 : numel() / dim(0);
  std::array<int64_t, Shape::kMaxRank> dims = {};
  std::copy(shape_.dims().begin(), shape_.dims().end(), dims.begin());
  dims[0] = end - begin;
  Tensor t = Detach();
  t.shape_ = Shape(absl::MakeConstSpan(dims.data(), rank()));
  t.offset_bytes_ += begin * row * SizeOf(dtype_);
  return t;
}

Tensor Tensor::Detach() const {
  Tensor t = *this;
  t.slot_ = kNoSlot;
  return t;
}

Tensor Tensor::Clone() const {
  Tensor t = Empty(shape_, dtype_, device());
  t.CopyFrom(*this);
  return t;
}

Tensor Tensor::To(Device device) const {
  if (!defined() || device == this->device()) return Detach();
  Tensor t = Empty(shape_, dtype_, device);
  t.CopyFrom(*this);
  return t;
}

void Tensor::CopyFrom(const Tensor& source) const {
  CHECK(source.dtype_ == dtype_ && source.numel() == numel())
      << "CopyFrom " << Name(source.dtype_) << source.shape_ << " to " << Name(dtype_) << shape_;
  if (numel() == 0 || raw() == source.raw()) return;
  const bool to_host = device() == Device::kCpu, from_host = source.device() == Device::kCpu;
  const CopyKind kind = from_host ? CopyKind::kToDevice
                        : to_host ? CopyKind::kToHost
                                  : CopyKind::kOnDevice;
  RuntimeOf(to_host ? source.device() : device()).Copy(raw(), source.raw(), bytes(), kind);
}

void Tensor::FillZero() const {
  if (numel() > 0) RuntimeOf(device()).Fill(raw(), 0, bytes());
}

}  // namespace tessera
