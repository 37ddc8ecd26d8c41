// oneDNN matmul. Creating a primitive costs up to a millisecond, so each thread keeps one per
// shape.
#include <algorithm>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "tensor/onednn.h"
#include "tensor/ops/cast/cast.h"
#include "tensor/ops/matmul/matmul.h"
#include "tensor/ops/matmul/tall_product.h"

namespace tessera {
namespace {

using dnnl::memory;

struct Key {
  int64_t m, n, k;
  bool transpose_a, transpose_b, accumulate, has_bias;
  DType in_dtype, out_dtype;

  friend bool operator==(const Key&, const Key&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const Key& key) {
    return H::combine(std::move(h), key.m, key.n, key.k, key.transpose_a, key.transpose_b,
                      key.accumulate, key.has_bias, key.in_dtype, key.out_dtype);
  }
};

// The primitive of one shape with its memory objects, whose data pointers are set at each call.
struct Product {
  explicit Product(const Key& key);
  void Run(const MatMulArgs& args);

  dnnl::matmul primitive;
  memory::desc scratch_desc;
  memory a, b, bias, c, scratch;
  std::vector<dnnl_exec_arg_t> arguments;
};

memory::desc Matrix(int64_t rows, int64_t cols, bool transposed, DType dtype) {
  return memory::desc({rows, cols}, OneDnnType(dtype),
                      transposed ? memory::format_tag::ba : memory::format_tag::ab);
}

Product::Product(const Key& key) {
  const dnnl::engine& engine = OneDnnEngine();
  const memory::desc a_desc = Matrix(key.m, key.k, key.transpose_a, key.in_dtype);
  const memory::desc b_desc = Matrix(key.k, key.n, key.transpose_b, key.in_dtype);
  const memory::desc c_desc = Matrix(key.m, key.n, false, key.out_dtype);
  const memory::desc bias_desc = Matrix(1, key.n, false, DType::kF32);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (key.accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  const dnnl::matmul::desc desc = key.has_bias
                                      ? dnnl::matmul::desc(a_desc, b_desc, bias_desc, c_desc)
                                      : dnnl::matmul::desc(a_desc, b_desc, c_desc);
  const dnnl::matmul::primitive_desc primitive_desc(desc, attributes, engine);
  primitive = dnnl::matmul(primitive_desc);
  scratch_desc = primitive_desc.scratchpad_desc();
  a = memory(a_desc, engine, nullptr);
  b = memory(b_desc, engine, nullptr);
  c = memory(c_desc, engine, nullptr);
  scratch = memory(scratch_desc, engine, nullptr);
  arguments = {{DNNL_ARG_SRC, a.get()},
               {DNNL_ARG_WEIGHTS, b.get()},
               {DNNL_ARG_DST, c.get()},
               {DNNL_ARG_SCRATCHPAD, scratch.get()}};
  if (key.has_bias) {
    bias = memory(bias_desc, engine, nullptr);
    arguments.push_back({DNNL_ARG_BIAS, bias.get()});
  }
}

void Product::Run(const MatMulArgs& args) {
  a.set_data_handle(const_cast<void*>(args.a));
  b.set_data_handle(const_cast<void*>(args.b));
  c.set_data_handle(args.c);
  if (args.bias != nullptr) bias.set_data_handle(const_cast<float*>(args.bias));
  const Tensor scratch_memory = OneDnnScratch(scratch_desc);
  scratch.set_data_handle(scratch_memory.raw());
  OneDnnExecute(primitive, arguments);
  OneDnnStream().wait();
}

void RunProduct(const MatMulArgs& args) {
  thread_local absl::flat_hash_map<Key, std::unique_ptr<Product>> products;
  const Key key{args.m,
                args.n,
                args.k,
                args.transpose_a,
                args.transpose_b,
                args.accumulate,
                args.bias != nullptr,
                args.in_dtype,
                args.out_dtype};
  std::unique_ptr<Product>& product = products[key];
  if (product == nullptr) product = std::make_unique<Product>(key);
  product->Run(args);
}

// oneDNN shares out a long sum of a^T b to threads, so that their number decides the bits of the
// result. Sums of this length it leaves in one piece.
constexpr int64_t kUncutSum = 1568;

void RunInParts(const MatMulArgs& args) {
  MatMulArgs part = args;
  for (int64_t k = 0; k < args.k; k += kUncutSum) {
    part.a = static_cast<const char*>(args.a) + k * args.m * SizeOf(args.in_dtype);
    part.b = static_cast<const char*>(args.b) + k * args.n * SizeOf(args.in_dtype);
    part.bias = k == 0 ? args.bias : nullptr;
    part.k = std::min(kUncutSum, args.k - k);
    part.accumulate = args.accumulate || k > 0;
    RunProduct(part);
  }
}

bool IsWeightGradient(const MatMulArgs& args) {
  return args.transpose_a && !args.transpose_b && args.out_dtype == DType::kF32;
}

void Run(const MatMulArgs& args) {
  if (IsTallProduct(args)) return RunTallProduct(args);
  if (IsWeightGradient(args)) return RunInParts(args);
  RunProduct(args);
}

void RunConverted(const MatMulArgs& args) {
  const auto convert = [](const void* from, DType from_dtype, void* to, DType to_dtype, int64_t n) {
    cast(Device::kCpu, CastArgs{from, to, n, from_dtype, to_dtype});
  };
  const Tensor a = Tensor::Empty({args.m * args.k}, DType::kF32);
  const Tensor b = Tensor::Empty({args.k * args.n}, DType::kF32);
  convert(args.a, DType::kBF16, a.raw(), DType::kF32, a.numel());
  convert(args.b, DType::kBF16, b.raw(), DType::kF32, b.numel());
  MatMulArgs f32 = args;
  f32.a = a.raw();
  f32.b = b.raw();
  f32.in_dtype = f32.out_dtype = DType::kF32;
  if (args.out_dtype == DType::kF32) return Run(f32);
  const Tensor c = Tensor::Empty({args.m * args.n}, DType::kF32);
  if (args.accumulate) convert(args.c, DType::kBF16, c.raw(), DType::kF32, c.numel());
  f32.c = c.raw();
  Run(f32);
  convert(c.raw(), DType::kF32, args.c, DType::kBF16, c.numel());
}

void MatMulCpu(const MatMulArgs& args) {
  if (args.in_dtype == DType::kBF16 && !OneDnnHasBf16()) return RunConverted(args);
  Run(args);
}

REGISTER_KERNEL(matmul, Device::kCpu, MatMulCpu);

}  // namespace
}  // namespace tessera
