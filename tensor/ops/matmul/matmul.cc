#include "tensor/ops/matmul/matmul.h"

namespace tessera {

constinit KernelSlot<void(const MatMulArgs&)> matmul("matmul");

namespace ops {
namespace {

int64_t Rows(const Tensor& t) { return t.dim(-1) == 0 ? 0 : t.numel() / t.dim(-1); }

Shape WithLastDim(const Shape& shape, int64_t last) {
  std::array<int64_t, Shape::kMaxRank> dims = {};
  std::copy(shape.dims().begin(), shape.dims().end(), dims.begin());
  dims[shape.rank() - 1] = last;
  return Shape(absl::MakeConstSpan(dims.data(), shape.rank()));
}

}  // namespace

Tensor Linear(const Tensor& x, const Tensor& w, const Tensor& bias, DType out_dtype) {
  CHECK(x.rank() >= 1 && w.rank() == 2 && x.dim(-1) == w.dim(1) && x.dtype() == w.dtype())
      << "linear: " << Name(x.dtype()) << x.shape() << " x " << Name(w.dtype()) << w.shape();
  CHECK(!bias.defined() || bias.numel() == w.dim(0))
      << "linear: bias " << bias.shape() << " for weight " << w.shape();
  Tensor y = Tensor::Empty(WithLastDim(x.shape(), w.dim(0)), out_dtype, x.device());
  if (y.numel() == 0) return y;
  matmul(x.device(), MatMulArgs{.a = x.raw(),
                                .b = w.raw(),
                                .bias = bias.defined() ? bias.data<float>() : nullptr,
                                .c = y.raw(),
                                .m = Rows(x),
                                .n = w.dim(0),
                                .k = w.dim(1),
                                .transpose_a = false,
                                .transpose_b = true,
                                .accumulate = false,
                                .in_dtype = x.dtype(),
                                .out_dtype = out_dtype});
  return y;
}

void LinearGradInput(const Tensor& dy, const Tensor& w, const Tensor& dx, bool accumulate) {
  CHECK(dy.dim(-1) == w.dim(0) && dx.dim(-1) == w.dim(1) && Rows(dy) == Rows(dx) &&
        dy.dtype() == w.dtype())
      << "linear, input gradient: " << Name(dy.dtype()) << dy.shape() << " x " << Name(w.dtype())
      << w.shape() << " -> " << dx.shape();
  if (dx.numel() == 0) return;
  matmul(dy.device(), MatMulArgs{.a = dy.raw(),
                                 .b = w.raw(),
                                 .bias = nullptr,
                                 .c = dx.raw(),
                                 .m = Rows(dy),
                                 .n = w.dim(1),
                                 .k = w.dim(0),
                                 .transpose_a = false,
                                 .transpose_b = false,
                                 .accumulate = accumulate,
                                 .in_dtype = dy.dtype(),
                                 .out_dtype = dx.dtype()});
}

void LinearGradWeight(const Tensor& dy, const Tensor& x, const Tensor& dw, bool accumulate) {
  CHECK(dw.rank() >= 2 && dw.numel() == dw.dim(0) * dw.dim(1) && dy.dim(-1) == dw.dim(0) &&
        x.dim(-1) == dw.dim(1) && Rows(dy) == Rows(x) && dy.dtype() == x.dtype() &&
        dw.dtype() == DType::kF32)
      << "linear, weight gradient: " << Name(dy.dtype()) << dy.shape() << "^T x " << Name(x.dtype())
      << x.shape() << " -> " << Name(dw.dtype()) << dw.shape();
  if (Rows(x) == 0) {
    if (!accumulate) dw.FillZero();
    return;
  }
  matmul(dy.device(), MatMulArgs{.a = dy.raw(),
                                 .b = x.raw(),
                                 .bias = nullptr,
                                 .c = dw.raw(),
                                 .m = dw.dim(0),
                                 .n = dw.dim(1),
                                 .k = Rows(x),
                                 .transpose_a = true,
                                 .transpose_b = false,
                                 .accumulate = accumulate,
                                 .in_dtype = x.dtype(),
                                 .out_dtype = DType::kF32});
}

}  // namespace ops
}  // namespace tessera
