// core/cuda/gemm.h in plain loops, where a GPU has cuBLASLt.
#include "core/cuda/gemm.h"

#include <vector>

#include "tests/emulator/device_memory.h"

namespace tessera {
namespace {

float Load(const void* p, DType dtype, int64_t i) {
  return dtype == DType::kBF16 ? static_cast<float>(static_cast<const BF16*>(p)[i])
                               : static_cast<const float*>(p)[i];
}

void Store(float value, void* p, DType dtype, int64_t i) {
  if (dtype == DType::kBF16) {
    static_cast<BF16*>(p)[i] = BF16(value);
  } else {
    static_cast<float*>(p)[i] = value;
  }
}

// op(matrix) [rows, columns] as floats, column-major.
std::vector<float> Operand(const void* matrix, DType dtype, int64_t rows, int64_t columns,
                           bool transposed) {
  std::vector<float> values(rows * columns);
  for (int64_t j = 0; j < columns; ++j) {
    for (int64_t i = 0; i < rows; ++i) {
      values[j * rows + i] = Load(matrix, dtype, transposed ? i * columns + j : j * rows + i);
    }
  }
  return values;
}

}  // namespace

void Gemm(const GemmArgs& args, Stream) {
  for (const void* p : {args.a, args.b, args.bias, static_cast<const void*>(args.c)}) {
    emulator::CheckArgument("Gemm", p);
  }
  const emulator::DeviceMemoryAccess access;
  const std::vector<float> a = Operand(args.a, args.in_dtype, args.m, args.k, args.transpose_a);
  const std::vector<float> b = Operand(args.b, args.in_dtype, args.k, args.n, args.transpose_b);
  std::vector<float> column(args.m);
  for (int64_t j = 0; j < args.n; ++j) {
    std::fill(column.begin(), column.end(), 0.0f);
    for (int64_t k = 0; k < args.k; ++k) {
      const float factor = b[j * args.k + k];
      const float* const a_column = a.data() + k * args.m;
      for (int64_t i = 0; i < args.m; ++i) column[i] += a_column[i] * factor;
    }
    for (int64_t i = 0; i < args.m; ++i) {
      float sum = column[i];
      if (args.bias != nullptr) sum += Load(args.bias, args.out_dtype, i);
      if (args.accumulate) sum += Load(args.c, args.out_dtype, j * args.m + i);
      Store(sum, args.c, args.out_dtype, j * args.m + i);
    }
  }
}

}  // namespace tessera
