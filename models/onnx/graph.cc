#include "models/onnx/graph.h"

#include <onnx/onnx_pb.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "absl/strings/str_join.h"
#include "core/check.h"
#include "core/status.h"

namespace tessera {
namespace {

constexpr int64_t kOpset = 17;
constexpr int64_t kIrVersion = 8;  // the one that came with this opset
constexpr const char* kBatch = "batch";

std::string Describe(const OnnxValue& value) {
  return absl::StrCat(value.name, " [", absl::StrJoin(value.dims, ", "), "]");
}

// The sizes of numpy's broadcasting.
std::vector<int64_t> BroadcastDims(const OnnxValue& a, const OnnxValue& b) {
  const bool a_longer = a.dims.size() >= b.dims.size();
  std::vector<int64_t> dims = a_longer ? a.dims : b.dims;
  const std::vector<int64_t>& other = a_longer ? b.dims : a.dims;
  const size_t skip = dims.size() - other.size();
  for (size_t i = 0; i < other.size(); ++i) {
    int64_t& dim = dims[skip + i];
    if (dim == 1) dim = other[i];
    CHECK(other[i] == 1 || other[i] == dim) << Describe(a) << " with " << Describe(b);
  }
  return dims;
}

void SetType(onnx::ValueInfoProto* info, const OnnxValue& value) {
  info->set_name(value.name);
  onnx::TypeProto::Tensor* const type = info->mutable_type()->mutable_tensor_type();
  type->set_elem_type(onnx::TensorProto::FLOAT);
  for (const int64_t dim : value.dims) {
    onnx::TensorShapeProto::Dimension* const added = type->mutable_shape()->add_dim();
    if (dim < 0) {
      added->set_dim_param(kBatch);
    } else {
      added->set_dim_value(dim);
    }
  }
}

void SetAttribute(onnx::AttributeProto* proto, const OnnxGraph::Attribute& value) {
  if (const auto* number = std::get_if<int64_t>(&value)) {
    proto->set_type(onnx::AttributeProto::INT);
    proto->set_i(*number);
  } else if (const auto* real = std::get_if<float>(&value)) {
    proto->set_type(onnx::AttributeProto::FLOAT);
    proto->set_f(*real);
  } else if (const auto* list = std::get_if<std::vector<int64_t>>(&value)) {
    proto->set_type(onnx::AttributeProto::INTS);
    for (const int64_t item : *list) proto->add_ints(item);
  } else {
    proto->set_type(onnx::AttributeProto::STRING);
    proto->set_s(std::get<std::string>(value));
  }
}

Tensor Int64s(const std::vector<int64_t>& values) {
  return Tensor::From<int64_t>({static_cast<int64_t>(values.size())}, values);
}

// [out, in] -> [in, out].
Tensor Transposed(const Tensor& matrix) {
  const int64_t rows = matrix.dim(0), columns = matrix.numel() / std::max<int64_t>(rows, 1);
  Tensor result = Tensor::Empty({columns, rows}, DType::kF32);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      result.data<float>()[j * rows + i] = matrix.data<float>()[i * columns + j];
    }
  }
  return result;
}

}  // namespace

struct OnnxGraph::Protos {
  onnx::ModelProto model;
  onnx::GraphProto& graph() { return *model.mutable_graph(); }
};

int64_t OnnxValue::dim(int axis) const {
  const int rank = static_cast<int>(dims.size());
  const int place = axis < 0 ? axis + rank : axis;
  CHECK(place >= 0 && place < rank) << "axis " << axis << " of " << Describe(*this);
  return dims[place];
}

OnnxGraph::OnnxGraph(absl::string_view model_name, std::map<std::string, Tensor> weights)
    : protos_(std::make_unique<Protos>()), weights_(std::move(weights)) {
  onnx::ModelProto& model = protos_->model;
  model.set_ir_version(kIrVersion);
  model.set_producer_name("tessera");
  model.add_opset_import()->set_version(kOpset);
  protos_->graph().set_name(std::string(model_name));
}

OnnxGraph::~OnnxGraph() = default;

std::string OnnxGraph::NewName(absl::string_view stem) {
  return absl::StrCat(stem, "_", num_names_++);
}

OnnxValue OnnxGraph::Input(const std::string& name, std::vector<int64_t> dims) {
  OnnxValue value = {name, std::move(dims)};
  SetType(protos_->graph().add_input(), value);
  return value;
}

void OnnxGraph::Output(const OnnxValue& value, const std::string& name) {
  onnx::NodeProto* const node = protos_->graph().add_node();
  node->set_op_type("Identity");
  node->add_input(value.name);
  node->add_output(name);
  SetType(protos_->graph().add_output(), {name, value.dims});
}

absl::StatusOr<std::string> OnnxGraph::Serialize() const {
  const size_t bytes = protos_->model.ByteSizeLong();
  if (bytes > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    return ConfigError(absl::StrFormat(
        "an ONNX file of %d bytes would be needed, and the format ends at 2 GB", bytes));
  }
  return protos_->model.SerializeAsString();
}

std::vector<OnnxValue> OnnxGraph::Nodes(const std::string& op, const std::vector<OnnxValue>& inputs,
                                        const std::vector<int64_t>& dims, int64_t num_outputs,
                                        const Attributes& attributes) {
  onnx::NodeProto* const node = protos_->graph().add_node();
  node->set_name(NewName(op));
  node->set_op_type(op);
  for (const OnnxValue& input : inputs) node->add_input(input.name);
  std::vector<OnnxValue> outputs;
  for (int64_t i = 0; i < num_outputs; ++i) {
    outputs.push_back({i == 0 ? node->name() : absl::StrCat(node->name(), "_", i), dims});
    node->add_output(outputs.back().name);
  }
  for (const auto& [key, value] : attributes) {
    onnx::AttributeProto* const attribute = node->add_attribute();
    attribute->set_name(key);
    SetAttribute(attribute, value);
  }
  return outputs;
}

OnnxValue OnnxGraph::Node(const std::string& op, const std::vector<OnnxValue>& inputs,
                          std::vector<int64_t> dims, const Attributes& attributes) {
  return Nodes(op, inputs, dims, 1, attributes).front();
}

const Tensor& OnnxGraph::WeightTensor(const std::string& name) {
  const auto found = weights_.find(name);
  CHECK(found != weights_.end()) << "no weight " << name;
  used_.insert(name);
  return found->second;
}

std::vector<std::string> OnnxGraph::UnusedWeights() const {
  std::vector<std::string> unused;
  for (const auto& [name, value] : weights_) {
    if (used_.count(name) == 0) unused.push_back(name);
  }
  return unused;
}

OnnxValue OnnxGraph::Initializer(const std::string& name, const Tensor& value) {
  CHECK(value.dtype() == DType::kF32 || value.dtype() == DType::kI64) << name;
  const absl::Span<const int64_t> dims = value.shape().dims();
  const OnnxValue result = {name, {dims.begin(), dims.end()}};
  if (!initializers_.emplace(name, result).second) return initializers_.at(name);
  onnx::TensorProto* const proto = protos_->graph().add_initializer();
  proto->set_name(name);
  proto->set_data_type(value.dtype() == DType::kF32 ? onnx::TensorProto::FLOAT
                                                    : onnx::TensorProto::INT64);
  for (const int64_t dim : dims) proto->add_dims(dim);
  proto->set_raw_data(value.raw(), static_cast<size_t>(value.bytes()));
  return result;
}

OnnxValue OnnxGraph::Weight(const std::string& name) {
  return Initializer(name, WeightTensor(name));
}

OnnxValue OnnxGraph::Constant(const Tensor& value) {
  return Initializer(NewName("constant"), value);
}

OnnxValue OnnxGraph::Scalar(float value) {
  return Initializer(absl::StrCat("scalar_", absl::StrFormat("%.9g", value)),
                     Tensor::From<float>({}, {value}));
}

OnnxValue OnnxGraph::Linear(const OnnxValue& x, const std::string& name) {
  const Tensor weight = Transposed(WeightTensor(name + ".weight"));
  CHECK_EQ(x.dim(-1), weight.dim(0)) << name << " of " << Describe(x);
  const OnnxValue product = MatMul(x, Initializer(name + ".weight.transposed", weight));
  return Has(name + ".bias") ? Add(product, Weight(name + ".bias")) : product;
}

OnnxValue OnnxGraph::LayerNorm(const OnnxValue& x, const std::string& name, float eps) {
  return Node("LayerNormalization", {x, Weight(name + ".weight"), Weight(name + ".bias")}, x.dims,
              {{"axis", int64_t{-1}}, {"epsilon", eps}});
}

OnnxValue OnnxGraph::BatchNorm(const OnnxValue& x, const std::string& name, float eps) {
  return Node("BatchNormalization",
              {x, Weight(name + ".weight"), Weight(name + ".bias"), Weight(name + ".running_mean"),
               Weight(name + ".running_var")},
              x.dims, {{"epsilon", eps}});
}

OnnxValue OnnxGraph::Conv(const OnnxValue& x, const std::string& name, const OnnxConv& options) {
  const OnnxValue weight = Weight(name + ".weight");
  const int64_t groups = options.depthwise ? x.dim(1) : 1;
  CHECK_EQ(x.dim(1), weight.dim(1) * groups) << name << " of " << Describe(x);
  std::vector<OnnxValue> inputs = {x, weight};
  if (Has(name + ".bias")) inputs.push_back(Weight(name + ".bias"));
  const auto& [top, left, bottom, right] = options.pads;
  const int64_t kh = weight.dim(2), kw = weight.dim(3), s = options.stride;
  return Node("Conv", inputs,
              {x.dim(0), weight.dim(0), (x.dim(2) + top + bottom - kh) / s + 1,
               (x.dim(3) + left + right - kw) / s + 1},
              {{"kernel_shape", std::vector<int64_t>{kh, kw}},
               {"strides", std::vector<int64_t>{s, s}},
               {"pads", std::vector<int64_t>{top, left, bottom, right}},
               {"group", groups}});
}

OnnxValue OnnxGraph::Mlp(const OnnxValue& x, const std::string& name, bool tanh_gelu) {
  const OnnxValue hidden = Linear(x, name + ".fc1");
  return Linear(tanh_gelu ? GeluTanh(hidden) : Gelu(hidden), name + ".fc2");
}

OnnxValue OnnxGraph::Unary(const std::string& op, const OnnxValue& x) {
  return Node(op, {x}, x.dims);
}

OnnxValue OnnxGraph::Gelu(const OnnxValue& x) {
  const OnnxValue scaled = Binary("Div", x, Scalar(static_cast<float>(std::sqrt(2.0))));
  const OnnxValue factor = Add(Unary("Erf", scaled), Scalar(1.0f));
  return Mul(Mul(x, factor), Scalar(0.5f));
}

OnnxValue OnnxGraph::GeluTanh(const OnnxValue& x) {
  const OnnxValue cubic = Mul(Mul(Mul(x, x), x), Scalar(0.044715f));
  const OnnxValue inner = Scale(Add(x, cubic), std::sqrt(2.0 / 3.14159265358979323846));
  return Mul(Mul(x, Add(Unary("Tanh", inner), Scalar(1.0f))), Scalar(0.5f));
}

OnnxValue OnnxGraph::Silu(const OnnxValue& x) { return Mul(x, Unary("Sigmoid", x)); }

OnnxValue OnnxGraph::Softmax(const OnnxValue& x) {
  return Node("Softmax", {x}, x.dims, {{"axis", int64_t{-1}}});
}

OnnxValue OnnxGraph::Normalize(const OnnxValue& x) {
  std::vector<int64_t> dims = x.dims;
  dims.back() = 1;
  const OnnxValue norm = Node("ReduceL2", {x}, std::move(dims),
                              {{"axes", std::vector<int64_t>{-1}}, {"keepdims", int64_t{1}}});
  return Binary("Div", x, Binary("Max", norm, Scalar(1e-12f)));
}

OnnxValue OnnxGraph::SumLast(const OnnxValue& x) {
  std::vector<int64_t> dims = x.dims;
  dims.back() = 1;
  return Node("ReduceSum", {x, Constant(Int64s({-1}))}, std::move(dims),
              {{"keepdims", int64_t{1}}});
}

OnnxValue OnnxGraph::TopKIndices(const OnnxValue& x, int64_t k) {
  std::vector<int64_t> dims = x.dims;
  dims.back() = k;
  return Nodes("TopK", {x, Constant(Int64s({k}))}, dims, 2)[1];
}

OnnxValue OnnxGraph::Binary(const std::string& op, const OnnxValue& a, const OnnxValue& b) {
  return Node(op, {a, b}, BroadcastDims(a, b));
}

OnnxValue OnnxGraph::Scale(const OnnxValue& x, double factor) {
  return Mul(x, Scalar(static_cast<float>(factor)));
}

OnnxValue OnnxGraph::MatMul(const OnnxValue& a, const OnnxValue& b) {
  CHECK(a.dims.size() >= b.dims.size() && a.dim(-1) == b.dim(-2))
      << Describe(a) << " times " << Describe(b);
  std::vector<int64_t> dims = a.dims;
  dims.back() = b.dim(-1);
  return Node("MatMul", {a, b}, std::move(dims));
}

OnnxValue OnnxGraph::Attention(const OnnxValue& q, const OnnxValue& k, const OnnxValue& v,
                               double scale, const OnnxValue* bias) {
  OnnxValue logits = MatMul(Scale(q, scale), Transpose(k, {0, 1, 3, 2}));
  if (bias != nullptr) logits = Add(logits, *bias);
  return MatMul(Softmax(logits), v);
}

OnnxValue OnnxGraph::Transpose(const OnnxValue& x, const std::vector<int64_t>& perm) {
  CHECK_EQ(perm.size(), x.dims.size()) << Describe(x);
  std::vector<int64_t> dims;
  for (const int64_t axis : perm) dims.push_back(x.dim(static_cast<int>(axis)));
  return Node("Transpose", {x}, std::move(dims), {{"perm", perm}});
}

OnnxValue OnnxGraph::Reshape(const OnnxValue& x, const std::vector<int64_t>& dims) {
  CHECK_LE(std::count(dims.begin(), dims.end(), -1), 1) << Describe(x);
  return Node("Reshape", {x, Constant(Int64s(dims))}, dims);
}

OnnxValue OnnxGraph::PadMap(const OnnxValue& x, int64_t height, int64_t width) {
  const int64_t bottom = height - x.dim(1), right = width - x.dim(2);
  CHECK(bottom >= 0 && right >= 0) << Describe(x) << " to " << height << "x" << width;
  if (bottom == 0 && right == 0) return x;
  return Node("Pad", {x, Constant(Int64s({0, 0, 0, 0, 0, bottom, right, 0}))},
              {x.dim(0), height, width, x.dim(3)});
}

OnnxValue OnnxGraph::CropMap(const OnnxValue& x, int64_t height, int64_t width) {
  CHECK(height <= x.dim(1) && width <= x.dim(2)) << Describe(x);
  if (height == x.dim(1) && width == x.dim(2)) return x;
  return Node(
      "Slice",
      {x, Constant(Int64s({0, 0})), Constant(Int64s({height, width})), Constant(Int64s({1, 2}))},
      {x.dim(0), height, width, x.dim(3)});
}

OnnxValue OnnxGraph::Mean(const OnnxValue& x, const std::vector<int64_t>& axes, bool keep) {
  std::vector<int64_t> dims;
  for (size_t i = 0; i < x.dims.size(); ++i) {
    const bool goes = std::find(axes.begin(), axes.end(), static_cast<int64_t>(i)) != axes.end();
    if (!goes || keep) dims.push_back(goes ? 1 : x.dims[i]);
  }
  return Node("ReduceMean", {x}, std::move(dims), {{"axes", axes}, {"keepdims", int64_t{keep}}});
}

OnnxValue OnnxGraph::Slice(const OnnxValue& x, int64_t axis, int64_t begin, int64_t end) {
  CHECK(0 <= begin && begin <= end && end <= x.dim(static_cast<int>(axis))) << Describe(x);
  std::vector<int64_t> dims = x.dims;
  dims[axis] = end - begin;
  return Node("Slice",
              {x, Constant(Int64s({begin})), Constant(Int64s({end})), Constant(Int64s({axis}))},
              std::move(dims));
}

OnnxValue OnnxGraph::Concat(const std::vector<OnnxValue>& parts, int64_t axis) {
  std::vector<int64_t> dims = parts.at(0).dims;
  dims[axis] = 0;
  for (const OnnxValue& part : parts) dims[axis] += part.dims[axis];
  return Node("Concat", parts, std::move(dims), {{"axis", axis}});
}

std::vector<OnnxValue> OnnxGraph::Split(const OnnxValue& x, int64_t parts) {
  CHECK_EQ(x.dim(-1) % parts, 0) << Describe(x) << " in " << parts;
  std::vector<int64_t> dims = x.dims;
  dims.back() /= parts;
  return Nodes("Split", {x}, dims, parts, {{"axis", int64_t{-1}}});
}

OnnxValue OnnxGraph::SplitHeads(const OnnxValue& x, int64_t num_heads) {
  const OnnxValue heads = Reshape(x, {-1, x.dim(1), num_heads, x.dim(2) / num_heads});
  return Transpose(heads, {0, 2, 1, 3});
}

OnnxValue OnnxGraph::MergeHeads(const OnnxValue& x) {
  return Reshape(Transpose(x, {0, 2, 1, 3}), {-1, x.dim(2), x.dim(1) * x.dim(3)});
}

OnnxValue OnnxGraph::ToWindows(const OnnxValue& x, int64_t height, int64_t width) {
  const int64_t rows = x.dim(1) / height, columns = x.dim(2) / width, channels = x.dim(3);
  CHECK(rows * height == x.dim(1) && columns * width == x.dim(2))
      << Describe(x) << " in windows of " << height << "x" << width;
  const OnnxValue cut = Reshape(x, {-1, rows, height, columns, width, channels});
  return Reshape(Transpose(cut, {0, 1, 3, 2, 4, 5}), {-1, height * width, channels});
}

OnnxValue OnnxGraph::FromWindows(const OnnxValue& x, int64_t window_height, int64_t window_width,
                                 int64_t height, int64_t width) {
  const OnnxValue cut = Reshape(
      x, {-1, height / window_height, width / window_width, window_height, window_width, x.dim(2)});
  return Reshape(Transpose(cut, {0, 1, 3, 2, 4, 5}), {-1, height, width, x.dim(2)});
}

}  // namespace tessera
