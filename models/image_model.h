// ImageModel: what every vision backbone with a classifier offers to training and evaluation.
#ifndef TESSERA_MODELS_IMAGE_MODEL_H_
#define TESSERA_MODELS_IMAGE_MODEL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "core/config_node.h"
#include "core/status.h"
#include "layers/forward_context.h"
#include "models/onnx/graph.h"

namespace tessera {

// A part of a model, for one image.
struct StageCost {
  std::string name;           // prefix of the names of its parameters: "stem", "stages.0", "head"
  Shape output;               // [H, W, C] or [C]
  int64_t macs = 0;           // multiply-adds of products and convolutions, forward
  int64_t saved_f32 = 0;      // elements kept in f32 for the backward pass
  int64_t saved_compute = 0;  // elements kept in the compute dtype
};

class ImageModel : public Module {
 public:
  // images f32 [B, H, W, in_chans], normalised, of a size that passes CheckImageSize -> logits f32
  // [B, num_classes].
  virtual Tensor Forward(const Tensor& images, const ForwardContext& context) const = 0;
  // ConfigError, with sizes that would do, for images that the model can not take.
  virtual absl::Status CheckImageSize(int64_t /*height*/, int64_t /*width*/) const {
    return absl::OkStatus();
  }
  // Classes of the classifier; 0 for a model without one, whose output is its pooled features.
  virtual int64_t num_classes() const = 0;
  virtual int64_t in_chans() const = 0;
  // The parts in forward order for an image of this size.
  virtual std::vector<StageCost> Costs(int64_t height, int64_t width) const = 0;
  // Adds the network to an ONNX graph: images [B, in_chans, H, W] -> logits. Unimplemented where
  // the family has no such graph.
  virtual absl::StatusOr<OnnxValue> ToOnnx(OnnxGraph& graph, const OnnxValue& images) const;
  // How deep a parameter's layer is, for a learning rate that decays with depth: parameters of
  // equal numbers form a layer, in the order of the numbers. Nothing where the family has no such
  // order.
  virtual std::optional<int64_t> LayerOf(absl::string_view parameter) const;
  // All options, defaults included, as they are written under `model:`.
  virtual ConfigNode Options() const = 0;
};

}  // namespace tessera

#endif  // TESSERA_MODELS_IMAGE_MODEL_H_
