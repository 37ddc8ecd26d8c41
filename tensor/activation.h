// Activation functions that ops apply to what they compute.
#ifndef TESSERA_TENSOR_ACTIVATION_H_
#define TESSERA_TENSOR_ACTIVATION_H_

#include <cstdint>
#include <type_traits>

namespace tessera {

enum class Activation : uint8_t {
  kNone,      // x
  kGelu,      // x Phi(x) with the normal distribution function (Hendrycks and Gimpel, arXiv
              // 1606.08415)
  kGeluTanh,  // x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), an approximation of it
  kSilu,      // x sigmoid(x)
};

// Calls fn with the activation as a std::integral_constant, for kernels that compile each.
template <typename Fn>
void WithActivation(Activation activation, const Fn& fn) {
  switch (activation) {
    case Activation::kNone:
      return fn(std::integral_constant<Activation, Activation::kNone>());
    case Activation::kGelu:
      return fn(std::integral_constant<Activation, Activation::kGelu>());
    case Activation::kGeluTanh:
      return fn(std::integral_constant<Activation, Activation::kGeluTanh>());
    case Activation::kSilu:
      return fn(std::integral_constant<Activation, Activation::kSilu>());
  }
}

}  // namespace tessera

#endif  // TESSERA_TENSOR_ACTIVATION_H_
