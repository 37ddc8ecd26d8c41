#include "tensor/shape.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/check.h"

namespace tessera {

Shape::Shape(std::initializer_list<int64_t> dims)
    : Shape(absl::MakeConstSpan(dims.begin(), dims.size())) {}

Shape::Shape(absl::Span<const int64_t> dims) : rank_(static_cast<int>(dims.size())) {
  CHECK_LE(rank_, kMaxRank);
  for (int64_t d : dims) CHECK_GE(d, 0) << "shape [" << absl::StrJoin(dims, ", ") << "]";
  std::copy(dims.begin(), dims.end(), dims_.begin());
}

int64_t Shape::operator[](int axis) const {
  CHECK(axis >= -rank_ && axis < rank_) << "axis " << axis << " of shape " << *this;
  return dims_[axis < 0 ? axis + rank_ : axis];
}

int64_t Shape::numel() const {
  int64_t n = 1;
  for (int64_t d : dims()) n *= d;
  return n;
}

std::string Shape::ToString() const { return absl::StrCat("[", absl::StrJoin(dims(), ", "), "]"); }

}  // namespace tessera
