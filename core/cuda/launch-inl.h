// Launch() on a GPU.
#ifndef TESSERA_CORE_CUDA_LAUNCH_INL_H_
#define TESSERA_CORE_CUDA_LAUNCH_INL_H_

#include <utility>

namespace tessera {

namespace internal {

void LaunchKernel(const void* kernel, const char* name, const Extent& grid, const Extent& block,
                  int64_t shared_bytes, Stream stream, void** parameters);

template <auto kKernel, typename... P, size_t... kIndex>
void LaunchWith(void (*kernel)(P...), const Extent& grid, const Extent& block, int64_t shared_bytes,
                Stream stream, std::tuple<P...> parameters, std::index_sequence<kIndex...>) {
  void* addresses[] = {&std::get<kIndex>(parameters)...};
  LaunchKernel(reinterpret_cast<const void*>(kernel), KernelName<kKernel>(), grid, block,
               shared_bytes, stream, addresses);
}

}  // namespace internal

template <auto kKernel, typename... Args>
void Launch(const Extent& grid, const Extent& block, int64_t shared_bytes, Stream stream,
            Args... args) {
  internal::LaunchWith<kKernel>(kKernel, grid, block, shared_bytes, stream, {args...},
                                std::index_sequence_for<Args...>());
}

}  // namespace tessera

#endif  // TESSERA_CORE_CUDA_LAUNCH_INL_H_
