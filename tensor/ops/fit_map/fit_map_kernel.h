// Kernel of cutting or padding a map: what runs on a device, on pointers and sizes. See fit_map.h.
#ifndef TESSERA_TENSOR_OPS_FIT_MAP_FIT_MAP_KERNEL_H_
#define TESSERA_TENSOR_OPS_FIT_MAP_FIT_MAP_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"

namespace tessera {

struct FitMapArgs {
  DType dtype;    // of x and y: f32 or bf16
  const void* x;  // [B, H, W, C]
  void* y;        // [B, OH, OW, C]
  int64_t batch, height, width, out_height, out_width, channels;
};
extern KernelSlot<void(const FitMapArgs&)> fit_map;

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_FIT_MAP_FIT_MAP_KERNEL_H_
