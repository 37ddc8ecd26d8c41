// Tensor: a value handle on dense, row-major memory. Images are [B, H, W, C], tokens are [B, N, C].
//
// Copies share storage; the last handle frees it. A view is a Reshape or a Slice of the leading
// dimension, both without a copy; anything that permutes is a kernel. A Tensor also carries its
// autograd slot (autograd/tape.h).
#ifndef TESSERA_TENSOR_TENSOR_H_
#define TESSERA_TENSOR_TENSOR_H_

#include <atomic>
#include <cstdint>
#include <utility>

#include "core/allocator.h"
#include "core/check.h"
#include "core/device.h"
#include "core/dtype.h"
#include "tensor/shape.h"

namespace tessera {

namespace internal {

// Reference-counted memory. On the CPU this header sits in the first bytes of the block itself;
// that of another device's memory, which the CPU can not write to, is a block of its own.
struct Storage {
  std::atomic<int32_t> refs;
  Device device;
  char* data;
  MemoryBlock* block;       // this header's
  MemoryBlock* data_block;  // null where the header's block holds the data too

  static constexpr int64_t kHeaderBytes = 64;

  static Storage* New(int64_t data_bytes, Device device);
  void Ref() { refs.fetch_add(1, std::memory_order_relaxed); }
  void Unref();
};

}  // namespace internal

class Tensor {
 public:
  static constexpr int64_t kNoSlot = -1;

  Tensor() = default;  // no tensor: defined() is false
  Tensor(const Tensor& other);
  Tensor(Tensor&& other) noexcept { swap(other); }
  Tensor& operator=(Tensor other) noexcept {
    swap(other);
    return *this;
  }
  ~Tensor();

  // Uninitialised, zero-filled.
  static Tensor Empty(const Shape& shape, DType dtype, Device device = Device::kCpu);
  static Tensor Zeros(const Shape& shape, DType dtype, Device device = Device::kCpu);
  // A copy of `values` (as many as the shape has), on the CPU.
  template <typename T>
  static Tensor From(const Shape& shape, absl::Span<const T> values);

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  int64_t dim(int axis) const { return shape_[axis]; }
  int64_t numel() const { return shape_.numel(); }
  int64_t bytes() const { return numel() * SizeOf(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const { return storage_ == nullptr ? Device::kCpu : storage_->device; }

  // Address of the first element. The typed form CHECKs the dtype.
  void* raw() const { return storage_ == nullptr ? nullptr : storage_->data + offset_bytes_; }
  template <typename T>
  T* data() const {
    CHECK(kDTypeOf<T> == dtype_) << "data<" << Name(kDTypeOf<T>) << "> of a " << Name(dtype_)
                                 << " tensor " << shape_;
    return static_cast<T*>(raw());
  }

  // The same elements under another shape of as many elements. Keeps the autograd slot: the
  // gradient of a reshape is the same memory.
  Tensor Reshape(const Shape& shape) const;
  // Rows [begin, end) of the leading dimension, sharing storage. Has no autograd slot.
  Tensor Slice(int64_t begin, int64_t end) const;
  // The same memory without an autograd slot.
  Tensor Detach() const;
  // A copy in memory of its own, without an autograd slot.
  Tensor Clone() const;
  // This tensor if it lives on `device`, else a copy there. Has no autograd slot.
  Tensor To(Device device) const;
  // Same number of elements and dtype, any devices. Returns when the host may use its side again.
  void CopyFrom(const Tensor& source) const;
  void FillZero() const;

  // True if no other handle shares the storage.
  bool unique() const { return storage_ != nullptr && storage_->refs.load() == 1; }

  int64_t slot() const { return slot_; }
  void set_slot(int64_t slot) { slot_ = slot; }

 private:
  void swap(Tensor& other) noexcept;

  internal::Storage* storage_ = nullptr;
  int64_t offset_bytes_ = 0;
  Shape shape_;
  DType dtype_ = DType::kF32;
  int64_t slot_ = kNoSlot;
};

template <typename T>
Tensor Tensor::From(const Shape& shape, absl::Span<const T> values) {
  CHECK_EQ(shape.numel(), static_cast<int64_t>(values.size())) << "Tensor::From " << shape;
  Tensor t = Empty(shape, kDTypeOf<T>);
  std::copy(values.begin(), values.end(), t.data<T>());
  return t;
}

}  // namespace tessera

#endif  // TESSERA_TENSOR_TENSOR_H_
