// Shape of a tensor: up to six dimensions, row-major.
#ifndef TESSERA_TENSOR_SHAPE_H_
#define TESSERA_TENSOR_SHAPE_H_

#include <array>
#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <string>

#include "absl/types/span.h"

namespace tessera {

class Shape {
 public:
  static constexpr int kMaxRank = 6;

  Shape() = default;                           // rank 0: a scalar, one element
  Shape(std::initializer_list<int64_t> dims);  // NOLINT: written as {B, H, W, C} at call sites
  explicit Shape(absl::Span<const int64_t> dims);

  int rank() const { return rank_; }
  // Size of dimension `axis`; negative axes count from the end.
  int64_t operator[](int axis) const;
  int64_t numel() const;
  absl::Span<const int64_t> dims() const { return {dims_.data(), static_cast<size_t>(rank_)}; }
  std::string ToString() const;  // "[8, 56, 56, 96]"

  friend bool operator==(const Shape& a, const Shape& b) { return a.dims() == b.dims(); }
  friend std::ostream& operator<<(std::ostream& os, const Shape& s) { return os << s.ToString(); }

 private:
  std::array<int64_t, kMaxRank> dims_ = {};
  int rank_ = 0;
};

}  // namespace tessera

#endif  // TESSERA_TENSOR_SHAPE_H_
