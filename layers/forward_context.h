// What a forward pass needs to know beside its input.
#ifndef TESSERA_LAYERS_FORWARD_CONTEXT_H_
#define TESSERA_LAYERS_FORWARD_CONTEXT_H_

#include <cstdint>
#include <functional>

#include "absl/strings/string_view.h"
#include "core/communicator.h"
#include "core/dtype.h"
#include "layers/module.h"

namespace tessera {

struct ForwardContext {
  bool training = false;  // dropout and drop path act in training only
  // Operands of products and hidden maps; the residual stream, norms and the loss stay f32.
  DType compute_dtype = DType::kF32;
  // Run each block again in the backward pass instead of keeping what is inside it.
  bool checkpoint_blocks = false;

  // Random draws are a function of these, of the layer's name and of the sample's number in the
  // batch of all ranks, of which x holds every sample_stride-th from first_sample on.
  uint64_t seed = 0;
  int64_t step = 0;
  int64_t first_sample = 0;
  int64_t sample_stride = 1;

  // Ranks that train on parts of one batch and share its statistics.
  const Communicator* ranks = &Communicator::Alone();

  // Called with the full name of a module and its output, where models offer it; for tests and
  // for looking inside.
  std::function<void(absl::string_view name, const Tensor& output)> tap;
  void Tap(const Module& module, const Tensor& output) const {
    if (tap) tap(module.full_name(), output);
  }

  // Called with the full name of an attention module and how much each position of the map counts
  // there, f32 [B, H, W] of mean 1, where models offer it. Such a map costs more than the forward
  // pass itself; not while a tape records.
  std::function<void(absl::string_view name, const Tensor& map)> attention_tap;
  // `module` has `Tensor AttentionMap(const Tensor& x) const`, x as for its Forward.
  template <typename M>
  void TapAttention(const M& module, const Tensor& x) const {
    if (attention_tap) attention_tap(module.full_name(), module.AttentionMap(x));
  }
};

}  // namespace tessera

#endif  // TESSERA_LAYERS_FORWARD_CONTEXT_H_
