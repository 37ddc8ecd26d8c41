// cuBLASLt. Asking it for an algorithm takes a fraction of a millisecond, so answers are kept by
// shape.
#include "core/cuda/gemm.h"

#include <cublasLt.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <tuple>

namespace tessera {
namespace {

constexpr int64_t kMaxWorkspaceBytes = int64_t{32} << 20;

void CheckBlas(cublasStatus_t status, const GemmArgs& args, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  std::fprintf(stderr, "%s: %s: product of %s [%lld, %lld] and [%lld, %lld] to %s\n", what,
               cublasLtGetStatusString(status), Name(args.in_dtype), static_cast<long long>(args.m),
               static_cast<long long>(args.k), static_cast<long long>(args.k),
               static_cast<long long>(args.n), Name(args.out_dtype));
  std::abort();
}

cublasLtHandle_t Handle() {
  static const cublasLtHandle_t handle = [] {
    cublasLtHandle_t created = nullptr;
    if (const cublasStatus_t status = cublasLtCreate(&created); status != CUBLAS_STATUS_SUCCESS) {
      std::fprintf(stderr, "cublasLtCreate: %s\n", cublasLtGetStatusString(status));
      std::abort();
    }
    return created;
  }();
  return handle;
}

cudaDataType_t TypeOf(DType dtype) { return dtype == DType::kBF16 ? CUDA_R_16BF : CUDA_R_32F; }

// The largest power of two, up to 256, that divides the address.
uint32_t AlignmentOf(const void* p) {
  const uint64_t address = reinterpret_cast<uint64_t>(p) | 256;
  return static_cast<uint32_t>(address & (~address + 1));
}

// What the choice of an algorithm depends on.
using Key = std::tuple<int64_t, int64_t, int64_t, bool, bool, bool, bool, DType, DType, uint32_t,
                       uint32_t, uint32_t, uint32_t>;

Key KeyOf(const GemmArgs& args) {
  return {args.m,
          args.n,
          args.k,
          args.transpose_a,
          args.transpose_b,
          args.accumulate,
          args.bias != nullptr,
          args.in_dtype,
          args.out_dtype,
          AlignmentOf(args.a),
          AlignmentOf(args.b),
          AlignmentOf(args.c),
          AlignmentOf(args.bias)};
}

struct Plan {
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
  cublasLtMatmulAlgo_t algorithm;
  int64_t workspace_bytes = 0;
};

template <typename T>
void SetProduct(const GemmArgs& args, const Plan& plan, cublasLtMatmulDescAttributes_t attribute,
                const T& value) {
  CheckBlas(cublasLtMatmulDescSetAttribute(plan.product, attribute, &value, sizeof(value)), args,
            "cublasLtMatmulDescSetAttribute");
}

cublasLtMatrixLayout_t Layout(const GemmArgs& args, DType dtype, int64_t rows, int64_t columns) {
  cublasLtMatrixLayout_t layout = nullptr;
  CheckBlas(cublasLtMatrixLayoutCreate(&layout, TypeOf(dtype), rows, columns, rows), args,
            "cublasLtMatrixLayoutCreate");
  return layout;
}

void ChooseAlgorithm(const GemmArgs& args, Plan* plan) {
  cublasLtMatmulPreference_t preference = nullptr;
  CheckBlas(cublasLtMatmulPreferenceCreate(&preference), args, "cublasLtMatmulPreferenceCreate");
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    CheckBlas(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)),
              args, "cublasLtMatmulPreferenceSetAttribute");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kMaxWorkspaceBytes));
  // Split sums meet in f32 and in a fixed order, or not at all.
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
         static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, AlignmentOf(args.a));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, AlignmentOf(args.b));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, AlignmentOf(args.c));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, AlignmentOf(args.c));
  cublasLtMatmulHeuristicResult_t best;
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      Handle(), plan->product, plan->a, plan->b, plan->c, plan->c, preference, 1, &best, &found);
  CheckBlas(found == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : status, args,
            "cublasLtMatmulAlgoGetHeuristic");
  cublasLtMatmulPreferenceDestroy(preference);
  plan->algorithm = best.algo;
  plan->workspace_bytes = static_cast<int64_t>(best.workspaceSize);
}

Plan MakePlan(const GemmArgs& args) {
  Plan plan;
  CheckBlas(cublasLtMatmulDescCreate(&plan.product, CUBLAS_COMPUTE_32F, CUDA_R_32F), args,
            "cublasLtMatmulDescCreate");
  SetProduct(args, plan, CUBLASLT_MATMUL_DESC_TRANSA, args.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  SetProduct(args, plan, CUBLASLT_MATMUL_DESC_TRANSB, args.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (args.bias != nullptr) {
    SetProduct(args, plan, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    SetProduct(args, plan, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, TypeOf(args.out_dtype));
    SetProduct(args, plan, CUBLASLT_MATMUL_DESC_BIAS_POINTER, args.bias);
  }
  plan.a = args.transpose_a ? Layout(args, args.in_dtype, args.k, args.m)
                            : Layout(args, args.in_dtype, args.m, args.k);
  plan.b = args.transpose_b ? Layout(args, args.in_dtype, args.n, args.k)
                            : Layout(args, args.in_dtype, args.k, args.n);
  plan.c = Layout(args, args.out_dtype, args.m, args.n);
  ChooseAlgorithm(args, &plan);
  return plan;
}

}  // namespace

void Gemm(const GemmArgs& args, Stream stream) {
  static std::mutex mutex;
  static auto* const plans = new std::map<Key, Plan>();
  const std::lock_guard lock(mutex);
  const Key key = KeyOf(args);
  auto found = plans->find(key);
  if (found == plans->end()) found = plans->emplace(key, MakePlan(args)).first;
  const Plan& plan = found->second;
  if (args.bias != nullptr) {
    SetProduct(args, plan, CUBLASLT_MATMUL_DESC_BIAS_POINTER, args.bias);
  }
  const Workspace<char> workspace(plan.workspace_bytes);
  const float alpha = 1, beta = args.accumulate ? 1 : 0;
  CheckBlas(cublasLtMatmul(Handle(), plan.product, &alpha, args.a, plan.a, args.b, plan.b, &beta,
                           args.c, plan.c, args.c, plan.c, &plan.algorithm, workspace.data(),
                           static_cast<size_t>(plan.workspace_bytes), stream),
            args, "cublasLtMatmul");
}

}  // namespace tessera
