// What a device can do, measured now: the yardstick of MFU and of kernels.
#ifndef TESSERA_TRAIN_MACHINE_RATES_H_
#define TESSERA_TRAIN_MACHINE_RATES_H_

#include "core/device.h"
#include "core/dtype.h"

namespace tessera::train {

// FLOP/s that a large product reaches with all threads; takes some 50 ms. MFU (model FLOPs
// utilisation, Chowdhery et al., arXiv 2204.02311) is counted against it.
double MeasurePeakFlops(DType compute_dtype, Device device);

// Bytes per second, read and written together, of adding one large tensor to another with all
// threads; takes some 100 ms.
double MeasureBandwidth(Device device);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_MACHINE_RATES_H_
