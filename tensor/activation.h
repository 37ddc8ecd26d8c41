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
  kRelu,      // max(x, 0)
  kSigmoid,   // 1 / (1 + e^-x)
  kTanh,
};

// Calls fn with the activation as a std::integral_constant, for kernels that compile each of
// kChoices. False if it is none of them.
template <Activation... kChoices, typename Fn>
bool WithActivationOf(Activation activation, const Fn& fn) {
  return ((activation == kChoices && (fn(std::integral_constant<Activation, kChoices>()), true)) ||
          ...);
}
template <typename Fn>
void WithActivation(Activation activation, const Fn& fn) {
  WithActivationOf<Activation::kNone, Activation::kGelu, Activation::kGeluTanh, Activation::kSilu,
                   Activation::kRelu, Activation::kSigmoid, Activation::kTanh>(activation, fn);
}

}  // namespace tessera

#endif  // TESSERA_TENSOR_ACTIVATION_H_
