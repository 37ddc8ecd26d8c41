// Builds a model as an ONNX graph (opset 17, https://onnx.ai): values flow through nodes, and
// weights are looked up by the names that they have in checkpoints. A family writes its network
// once more with these functions, in models/NAME_onnx.cc:
//   OnnxValue x = graph.Conv(images, "stem.conv", {.stride = 4, ...});
//   x = graph.LayerNorm(graph.ToChannelsLast(x), "stem.norm");
// Convolutions take maps as ONNX lays them out, [B, C, H, W]; everything else works on the last
// axis.
#ifndef TESSERA_MODELS_ONNX_GRAPH_H_
#define TESSERA_MODELS_ONNX_GRAPH_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tensor/tensor.h"

namespace tessera {

// A tensor of the graph. Sizes are known but for the first one of what depends on the input: -1,
// the batch or a multiple of it.
struct OnnxValue {
  std::string name;
  std::vector<int64_t> dims;

  int64_t dim(int axis) const;  // negative axes count from the end
};

struct OnnxConv {
  int64_t stride = 1;
  std::array<int64_t, 4> pads = {0, 0, 0, 0};  // zeros at the top, left, bottom, right
  bool depthwise = false;                      // one filter per channel
};

class OnnxGraph {
 public:
  using Attribute = std::variant<int64_t, float, std::vector<int64_t>, std::string>;
  using Attributes = std::vector<std::pair<std::string, Attribute>>;

  // `weights` are all parameters and buffers of the model by name, f32.
  OnnxGraph(absl::string_view model_name, std::map<std::string, Tensor> weights);
  ~OnnxGraph();

  // The graph's input and output; f32.
  OnnxValue Input(const std::string& name, std::vector<int64_t> dims);
  void Output(const OnnxValue& value, const std::string& name);

  // The whole file. ConfigError if it would be larger than the format allows, 2 GB.
  absl::StatusOr<std::string> Serialize() const;

  // --- Weights and constants ---
  bool Has(absl::string_view name) const { return weights_.count(std::string(name)) > 0; }
  const Tensor& WeightTensor(const std::string& name);  // CHECKs that it is there
  // Those that were not asked for.
  std::vector<std::string> UnusedWeights() const;
  OnnxValue Weight(const std::string& name);
  OnnxValue Constant(const Tensor& value);  // f32, i64
  OnnxValue Scalar(float value);

  // --- Layers, by the name of the module ---
  OnnxValue Linear(const OnnxValue& x, const std::string& name);  // NAME.weight, NAME.bias if any
  OnnxValue LayerNorm(const OnnxValue& x, const std::string& name, float eps = 1e-5f);
  OnnxValue BatchNorm(const OnnxValue& x, const std::string& name, float eps);  // x [B, C, H, W]
  OnnxValue Conv(const OnnxValue& x, const std::string& name, const OnnxConv& options);
  // fc2(GELU(fc1(x))).
  OnnxValue Mlp(const OnnxValue& x, const std::string& name, bool tanh_gelu = false);

  // --- Functions ---
  OnnxValue Gelu(const OnnxValue& x);      // exact, by erf
  OnnxValue GeluTanh(const OnnxValue& x);  // Hendrycks and Gimpel, arXiv 1606.08415
  OnnxValue Silu(const OnnxValue& x);
  OnnxValue Unary(const std::string& op, const OnnxValue& x);  // "Relu", "Sigmoid", "Tanh", ...
  OnnxValue Softmax(const OnnxValue& x);
  // x / max(|x|, 1e-12) over the last axis.
  OnnxValue Normalize(const OnnxValue& x);
  OnnxValue SumLast(const OnnxValue& x);  // over the last axis, which stays as 1
  // i64 places of the largest values of the last axis, descending, the lower one first where equal.
  OnnxValue TopKIndices(const OnnxValue& x, int64_t k);
  // Elementwise with broadcasting as in numpy: "Add", "Mul", "Sub", "Div".
  OnnxValue Binary(const std::string& op, const OnnxValue& a, const OnnxValue& b);
  OnnxValue Add(const OnnxValue& a, const OnnxValue& b) { return Binary("Add", a, b); }
  OnnxValue Mul(const OnnxValue& a, const OnnxValue& b) { return Binary("Mul", a, b); }
  OnnxValue Scale(const OnnxValue& x, double factor);
  OnnxValue MatMul(const OnnxValue& a, const OnnxValue& b);  // of the last two axes
  // softmax(scale q k^T + bias) v of the last two axes; q, k, v [B, heads, N, d]. `bias` is added
  // to the logits where it is not null.
  OnnxValue Attention(const OnnxValue& q, const OnnxValue& k, const OnnxValue& v, double scale,
                      const OnnxValue* bias = nullptr);

  // --- Shapes ---
  OnnxValue Transpose(const OnnxValue& x, const std::vector<int64_t>& perm);
  OnnxValue Reshape(const OnnxValue& x, const std::vector<int64_t>& dims);
  OnnxValue ToChannelsLast(const OnnxValue& x) { return Transpose(x, {0, 2, 3, 1}); }
  OnnxValue ToChannelsFirst(const OnnxValue& x) { return Transpose(x, {0, 3, 1, 2}); }
  // Zeros behind axes 1 and 2 of x [B, H, W, C] up to these sizes, and the inverse.
  OnnxValue PadMap(const OnnxValue& x, int64_t height, int64_t width);
  OnnxValue CropMap(const OnnxValue& x, int64_t height, int64_t width);
  // Mean over `axes`, which go unless `keep`.
  OnnxValue Mean(const OnnxValue& x, const std::vector<int64_t>& axes, bool keep = false);
  // Elements [begin, end) of an axis.
  OnnxValue Slice(const OnnxValue& x, int64_t axis, int64_t begin, int64_t end);
  OnnxValue Concat(const std::vector<OnnxValue>& parts, int64_t axis);
  // Equal parts of the last axis.
  std::vector<OnnxValue> Split(const OnnxValue& x, int64_t parts);
  // [B, N, heads * d] -> [B, heads, N, d], and back.
  OnnxValue SplitHeads(const OnnxValue& x, int64_t num_heads);
  OnnxValue MergeHeads(const OnnxValue& x);
  // x [B, H, W, C] cut into windows of these sizes, which divide H and W -> [B', h * w, C], and
  // back.
  OnnxValue ToWindows(const OnnxValue& x, int64_t height, int64_t width);
  OnnxValue FromWindows(const OnnxValue& x, int64_t window_height, int64_t window_width,
                        int64_t height, int64_t width);

  // Any other node with one output, whose sizes the caller knows.
  OnnxValue Node(const std::string& op, const std::vector<OnnxValue>& inputs,
                 std::vector<int64_t> dims, const Attributes& attributes = {});
  // And with several, of the same sizes.
  std::vector<OnnxValue> Nodes(const std::string& op, const std::vector<OnnxValue>& inputs,
                               const std::vector<int64_t>& dims, int64_t num_outputs,
                               const Attributes& attributes = {});

 private:
  struct Protos;
  std::string NewName(absl::string_view stem);
  OnnxValue Initializer(const std::string& name, const Tensor& value);

  std::unique_ptr<Protos> protos_;
  std::map<std::string, Tensor> weights_;
  std::set<std::string> used_;  // of the weights
  std::map<std::string, OnnxValue> initializers_;
  int64_t num_names_ = 0;
};

}  // namespace tessera

#endif  // TESSERA_MODELS_ONNX_GRAPH_H_
