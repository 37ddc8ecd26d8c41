#include "models/onnx/export.h"

#include "core/check.h"
#include "core/status.h"
#include "models/onnx/graph.h"

namespace tessera {

absl::StatusOr<std::string> ExportOnnx(const ImageModel& model, absl::string_view name,
                                       const ParameterStore& store, int64_t height, int64_t width) {
  std::map<std::string, Tensor> weights;
  for (const ParameterStore::Entry& entry : store.entries()) {
    weights.emplace(entry.name, entry.parameter->value());
  }
  for (const ParameterStore::BufferEntry& entry : store.buffers()) {
    if (entry.buffer->dtype() == DType::kF32) weights.emplace(entry.name, entry.buffer->value());
  }
  OnnxGraph graph(name, std::move(weights));
  const OnnxValue images = graph.Input("images", {-1, model.in_chans(), height, width});
  ASSIGN_OR_RETURN(const OnnxValue logits, model.ToOnnx(graph, images));
  graph.Output(logits, "logits");
  const std::vector<std::string> unused = graph.UnusedWeights();
  CHECK(unused.empty()) << name << ": " << unused.front() << " is not in its ONNX graph";
  return graph.Serialize();
}

}  // namespace tessera
