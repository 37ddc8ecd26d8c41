// The list of attention mechanisms, for what treats all of them alike: the conformance tests
// (tests/attention/conformance_test.cc) and the benchmark. A mechanism describes a problem of any
// size once and registers it in its own folder:
//   AttentionProblem WindowProblem(const AttentionSize& size) {...}
//   REGISTER_ATTENTION(window, WindowProblem);
#ifndef TESSERA_ATTENTION_REGISTRY_H_
#define TESSERA_ATTENTION_REGISTRY_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "tensor/tensor.h"

namespace tessera {

// A batch of maps [B, H, W, C], C = num_heads * head_dim. Mechanisms on sequences take H * W
// tokens.
struct AttentionSize {
  int64_t batch;
  int64_t height;
  int64_t width;
  int64_t num_heads;
  int64_t head_dim;
};

// One mechanism at one size.
struct AttentionProblem {
  struct Input {
    std::string name;
    Shape shape;
    bool parameter = false;  // f32 whatever the dtype of the others
    double scale = 1.0;      // tests draw its values uniformly from [-scale, scale)
  };
  std::vector<Input> inputs;
  double multiply_adds;  // of the forward pass

  // The differentiable function; gradients are wanted of every input.
  std::function<Tensor(const std::vector<Tensor>& inputs)> forward;
  // The same in double precision, straight from the definition.
  std::function<void(const std::vector<const double*>& inputs, double* out)> reference;
};

struct AttentionMechanism {
  std::string name;
  AttentionProblem (*problem)(const AttentionSize& size);
};

// Every registered mechanism, by name.
const std::vector<AttentionMechanism>& AllAttentionMechanisms();
bool RegisterAttention(absl::string_view name,
                       AttentionProblem (*problem)(const AttentionSize& size));

#define REGISTER_ATTENTION(name, problem) \
  [[maybe_unused]] static const bool name##_registered = RegisterAttention(#name, problem)

}  // namespace tessera

#endif  // TESSERA_ATTENTION_REGISTRY_H_
