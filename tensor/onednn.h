// What the oneDNN-backed kernels share: engine, stream, dtype mapping and scratchpad memory.
#ifndef TESSERA_TENSOR_ONEDNN_H_
#define TESSERA_TENSOR_ONEDNN_H_

#include <oneapi/dnnl/dnnl_debug.h>
#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

#include "core/check.h"
#include "core/dtype.h"
#include "tensor/tensor.h"

namespace tessera {

inline dnnl::engine& OneDnnEngine() {
  static auto* const engine = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *engine;
}

inline dnnl::stream& OneDnnStream() {
  thread_local dnnl::stream stream(OneDnnEngine());
  return stream;
}

inline dnnl::memory::data_type OneDnnType(DType dtype) {
  CHECK(dtype == DType::kF32 || dtype == DType::kBF16) << "oneDNN type of " << Name(dtype);
  return dtype == DType::kF32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
}

// Before AVX-512, oneDNN has no bf16 kernels: products of bf16 then run in f32 on converted copies.
inline bool OneDnnHasBf16() {
  static const bool has = dnnl::get_effective_cpu_isa() >= dnnl::cpu_isa::avx512_core;
  return has;
}

// Runs a primitive on its arguments. Unlike primitive::execute it makes no table of them first;
// oneDNN itself still keeps one, on the heap, while it runs.
inline void OneDnnExecute(const dnnl::primitive& primitive,
                          const std::vector<dnnl_exec_arg_t>& arguments) {
  const dnnl_status_t status = dnnl_primitive_execute(
      primitive.get(), OneDnnStream().get(), static_cast<int>(arguments.size()), arguments.data());
  CHECK_EQ(status, dnnl_success) << dnnl_status2str(status);
}

// Scratchpads come from our allocator (scratchpad_mode::user), so that a repeated step allocates
// nothing.
inline Tensor OneDnnScratch(const dnnl::memory::desc& desc) {
  return Tensor::Empty({static_cast<int64_t>(desc.get_size())}, DType::kU8);
}

}  // namespace tessera

#endif  // TESSERA_TENSOR_ONEDNN_H_
