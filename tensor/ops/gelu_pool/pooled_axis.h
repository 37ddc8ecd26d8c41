// How adaptive average pooling cuts an axis (torch.nn.AdaptiveAvgPool2d).
#ifndef TESSERA_TENSOR_OPS_GELU_POOL_POOLED_AXIS_H_
#define TESSERA_TENSOR_OPS_GELU_POOL_POOLED_AXIS_H_

#include <cstdint>

namespace tessera {

// `size` pixels averaged to `cells` cells: cell i has the pixels [Begin(i), End(i)). Neighbouring
// cells share pixels where `size` is no multiple of `cells`.
struct PooledAxis {
  int64_t size;
  int64_t cells;

  constexpr int64_t Begin(int64_t i) const { return i * size / cells; }
  constexpr int64_t End(int64_t i) const { return ((i + 1) * size + cells - 1) / cells; }
  // The cells that have a pixel: [FirstCell(pixel), EndCell(pixel)).
  constexpr int64_t FirstCell(int64_t pixel) const { return pixel * cells / size; }
  constexpr int64_t EndCell(int64_t pixel) const { return ((pixel + 1) * cells + size - 1) / size; }
};

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_GELU_POOL_POOLED_AXIS_H_
