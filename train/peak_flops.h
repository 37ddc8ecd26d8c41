// What this machine can do, for MFU.
#ifndef TESSERA_TRAIN_PEAK_FLOPS_H_
#define TESSERA_TRAIN_PEAK_FLOPS_H_

#include "core/dtype.h"

namespace tessera::train {

// FLOP/s that a large product reaches with all threads, measured now; takes some 50 ms. MFU (model
// FLOPs utilisation, Chowdhery et al., arXiv 2204.02311) is counted against it.
double MeasurePeakFlops(DType compute_dtype);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_PEAK_FLOPS_H_
