#include "layers/layer_scale.h"

#include "autograd/ops/scale_columns.h"

namespace tessera::layers {

LayerScale::LayerScale(int64_t dim, double init_value)
    : gamma_(AddParameter("gamma", {dim}, {Init::Kind::kConstant, init_value})) {}

Tensor LayerScale::Forward(const Tensor& x) const { return ScaleColumns(x, gamma_.value()); }

}  // namespace tessera::layers
