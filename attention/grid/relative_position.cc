#include "attention/grid/relative_position.h"

#include <cmath>

#include "autograd/ops/activation.h"
#include "autograd/ops/dropout.h"
#include "core/random.h"
#include "tensor/ops/describe.h"

namespace tessera {

constinit KernelSlot<void(const RelativePositionArgs&)> relative_position("relative_position");
constinit KernelSlot<void(const RelativePositionGradArgs&)> relative_position_backward(
    "relative_position_backward");

namespace {

Shape TableShape(const RelativePositionShape& s) {
  if (s.kind == RelativeTable::kKeyMinusQuery) {
    return {s.num_heads, s.table_rows(), s.table_columns()};
  }
  return {s.table_rows() * s.table_columns(), s.num_heads};
}

}  // namespace

Tensor RelativePositionBias(const Tensor& table, const RelativePositionShape& shape) {
  CHECK(table.dtype() == DType::kF32 && table.shape() == TableShape(shape))
      << "relative_position: table " << Describe(table) << ", expected " << TableShape(shape);
  Tensor bias =
      Tensor::Empty({shape.num_heads, shape.tokens(), shape.tokens()}, DType::kF32, table.device());
  relative_position(table.device(),
                    RelativePositionArgs{
                        .shape = shape, .table = table.data<float>(), .bias = bias.data<float>()});
  Record("relative_position", {&table}, {&bias}, [shape](GradContext& g) {
    const Tensor d_bias = g.out();
    const GradDest d_table = g.Dest(0);
    relative_position_backward(d_bias.device(),
                               RelativePositionGradArgs{.shape = shape,
                                                        .d_bias = d_bias.data<float>(),
                                                        .d_table = d_table.tensor.data<float>(),
                                                        .accumulate = d_table.accumulate});
  });
  return bias;
}

namespace attention {

RelativePositionTable::RelativePositionTable(const RelativePositionShape& shape)
    : shape_(shape),
      table_(AddParameter("relative_position_bias_table", TableShape(shape), Init::Normal(0.02))) {}

Tensor RelativePositionTable::Bias() const { return RelativePositionBias(table_.value(), shape_); }

// The two layers, under the name "mlp".
class RelativePositionMlp::Layers : public Module {
 public:
  Layers(int64_t hidden_dim, int64_t num_heads)
      : fc1_(AddChild<layers::Linear>("fc1", 2, hidden_dim)),
        fc2_(AddChild<layers::Linear>("fc2", hidden_dim, num_heads)) {}

  Tensor Forward(const Tensor& offsets, const ForwardContext& context) const {
    constexpr double kDropRate = 0.125;
    Tensor hidden = Activate(fc1_.Forward(offsets, DType::kF32), Activation::kRelu);
    if (context.training) {
      hidden = Dropout(
          hidden, kDropRate,
          RandomKey(context.seed, Purpose::kDropout, context.step, HashString(full_name())));
    }
    return fc2_.Forward(hidden, DType::kF32);
  }
  Device device() const { return fc1_.bias().device(); }

 private:
  layers::Linear& fc1_;
  layers::Linear& fc2_;
};

RelativePositionMlp::RelativePositionMlp(const RelativePositionShape& shape, int64_t hidden_dim)
    : shape_(shape),
      offsets_(Tensor::Empty({shape.table_rows() * shape.table_columns(), 2}, DType::kF32)),
      mlp_(AddChild<Layers>("mlp", hidden_dim, shape.num_heads)) {
  shape_.kind = RelativeTable::kQueryMinusKey;
  const auto scaled = [](int64_t d) {
    return static_cast<float>(std::copysign(std::log1p(std::abs(static_cast<double>(d))), d));
  };
  float* to = offsets_.data<float>();
  for (int64_t down = 1 - shape.rows; down < shape.rows; ++down) {
    for (int64_t across = 1 - shape.columns; across < shape.columns; ++across) {
      *to++ = scaled(down);
      *to++ = scaled(across);
    }
  }
}

Tensor RelativePositionMlp::Bias(const ForwardContext& context) const {
  if (offsets_.device() != mlp_.device()) offsets_ = offsets_.To(mlp_.device());
  return RelativePositionBias(mlp_.Forward(offsets_, context), shape_);
}

}  // namespace attention
}  // namespace tessera
