// What every op's checks need: a tensor in words, and its view as rows.
#ifndef TESSERA_TENSOR_OPS_DESCRIBE_H_
#define TESSERA_TENSOR_OPS_DESCRIBE_H_

#include <string>

#include "absl/strings/str_cat.h"
#include "tensor/tensor.h"

namespace tessera {

// "f32[8, 96]"
inline std::string Describe(const Tensor& t) {
  return t.defined() ? absl::StrCat(Name(t.dtype()), t.shape().ToString()) : "none";
}

// Number of rows of a tensor seen as [rows, last dimension].
inline int64_t NumRows(const Tensor& t) { return t.dim(-1) == 0 ? 0 : t.numel() / t.dim(-1); }

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_DESCRIBE_H_
