// Relative position bias: what a head adds to the logit of a query and a key of one window depends
// on their offset alone (Shaw et al., arXiv 1803.02155; the tables of Liu et al., arXiv
// 2103.14030).
#ifndef TESSERA_ATTENTION_GRID_RELATIVE_POSITION_H_
#define TESSERA_ATTENTION_GRID_RELATIVE_POSITION_H_

#include <optional>

#include "attention/grid/relative_position_kernel.h"
#include "layers/forward_context.h"
#include "layers/linear.h"

namespace tessera {

// table f32, of the shape that `shape.kind` says -> bias f32 [num_heads, tokens, tokens].
Tensor RelativePositionBias(const Tensor& table, const RelativePositionShape& shape);

// How a table is made larger or smaller for another window.
enum class TableResize : uint8_t {
  kUneven,    // timm's: the source's entries stand ever further apart, in geometric progression
  kBilinear,  // the official one: half-pixel centres, no antialiasing
};
// A table, f32, for another window: of shape `to`, which has the same kind and heads. Nothing if
// either is no table; those of kind kQueryMinusKey are taken to be of square windows.
std::optional<Tensor> ResizeRelativeTable(const Tensor& table, const Shape& to, TableResize method);

namespace attention {

// The bias of a window. Parameter: relative_position_bias_table (normal, 0.02).
class RelativePositionTable : public Module {
 public:
  explicit RelativePositionTable(const RelativePositionShape& shape);
  Tensor Bias() const;

 private:
  RelativePositionShape shape_;
  Parameter& table_;
};

// A bias that an MLP computes from the logarithms of the offsets, sign(d) log(1 + |d|) (Liu et al.,
// arXiv 2111.09883, as in timm's rmlp models): children mlp.fc1 [hidden, 2], ReLU, mlp.fc2 [heads,
// hidden], with biases. Training drops an eighth of the hidden channels.
class RelativePositionMlp : public Module {
 public:
  RelativePositionMlp(const RelativePositionShape& shape, int64_t hidden_dim);
  Tensor Bias(const ForwardContext& context) const;

 private:
  class Layers;
  RelativePositionShape shape_;
  // f32 [entries of the table, 2], on the parameters' device from the first use there.
  mutable Tensor offsets_;
  Layers& mlp_;
};

}  // namespace attention
}  // namespace tessera

#endif  // TESSERA_ATTENTION_GRID_RELATIVE_POSITION_H_
