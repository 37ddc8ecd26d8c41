// CHECK, CHECK_EQ, ... and LOG: for errors that only a programmer can cause. A failed CHECK prints
// the values and aborts; put the operation and all shapes into its message: CHECK(a.rank() == 2) <<
// "matmul: " << a.shape();
#ifndef TESSERA_CORE_CHECK_H_
#define TESSERA_CORE_CHECK_H_

#include <glog/logging.h>

#endif  // TESSERA_CORE_CHECK_H_
