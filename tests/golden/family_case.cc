// Golden cases of the layout that describes itself by `mode`: single mechanisms (op), toy models,
// backbones, and full-size models in evaluation (logits) and training (train).
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "autograd/ops/softmax_cross_entropy.h"
#include "core/status.h"
#include "tensor/ops/cast/cast.h"
#include "tensor/ops/softmax_cross_entropy/softmax_cross_entropy.h"
#include "tests/golden/fill.h"
#include "tests/golden/golden_case.h"
#include "tests/golden/golden_family.h"
#include "tests/golden/golden_model.h"
#include "train/weights.h"

namespace tessera {
namespace {

using Values = std::vector<double>;

double MaxAbs(const Values& values) {
  double max = 0;
  for (const double v : values) max = std::max(max, std::abs(v));
  return max;
}

double Norm(const Values& values) {
  double sum = 0;
  for (const double v : values) sum += v * v;
  return std::sqrt(sum);
}

// The largest |got - expected|; infinite where sizes differ or something is NaN.
double Error(const Values& got, const Values& expected) {
  if (got.size() != expected.size()) return INFINITY;
  double error = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double difference = std::abs(got[i] - expected[i]);
    if (!(difference <= error)) error = std::isnan(difference) ? INFINITY : difference;
  }
  return error;
}

// [mean, population standard deviation, largest magnitude, samples] as the cases store them.
Values Statistics(const std::string& name, const Values& values, size_t samples) {
  const auto n = static_cast<double>(values.size());
  double mean = 0, variance = 0;
  for (const double v : values) mean += v / n;
  for (const double v : values) variance += (v - mean) * (v - mean) / n;
  Values result = {mean, std::sqrt(variance), MaxAbs(values)};
  for (size_t j = 0; j < samples; ++j) {
    result.push_back(
        values[SampleIndex(name, static_cast<int64_t>(j), static_cast<int64_t>(values.size()))]);
  }
  return result;
}

// The values of a tensor; those of a map [B, H, W, C] in the order [B, C, H, W] on request.
Values ValuesOf(const Tensor& tensor, bool nchw) {
  const Tensor t = tensor.dtype() == DType::kBF16 ? ops::Cast(tensor, DType::kF32) : tensor;
  Values values(t.numel());
  const int64_t channels = nchw && t.rank() == 4 ? t.dim(3) : 1;
  const int64_t pixels = nchw && t.rank() == 4 ? t.dim(1) * t.dim(2) : 1;
  for (int64_t i = 0; i < t.numel(); ++i) {
    const int64_t c = i % channels, p = i / channels % pixels, b = i / (channels * pixels);
    values[(b * channels + c) * pixels + p] =
        t.dtype() == DType::kI32 ? t.data<int32_t>()[i] : t.data<float>()[i];
  }
  return values;
}

class FamilyCase {
 public:
  FamilyCase(const GoldenCase& golden, DType compute_dtype)
      : golden_(golden),
        family_(FindGoldenFamily(golden.meta.at("family"))),
        mode_(golden.meta.at("mode").get<std::string>()),
        bf16_(compute_dtype == DType::kBF16),
        nchw_(golden.meta.at("x").at("layout") == "NCHW"),
        comparison_(golden.name) {
    context_.compute_dtype = compute_dtype;
    const Json& groups = golden.meta.at("tolerance");
    const bool full_size = mode_ == "logits" || mode_ == "train";
    tolerance_ = groups.at(full_size ? "logits, train (full size)" : "op, toy, backbone");
  }

  absl::StatusOr<CaseResult> Run();

 private:
  absl::Status RunModule();
  absl::Status RunModel();
  void Start(Module& module);
  Tensor Input() const;
  Tensor Cotangent(const std::string& output, const Tensor& like) const;

  bool Has(const std::string& name) const { return golden_.file.Find(name) != nullptr; }
  absl::StatusOr<Values> Read(const std::string& name) const {
    return ReadDoubles(golden_.file, name);
  }
  double Number(const Json& value) const;
  double Bound(const std::string& kind, double largest) const;
  double Bf16GradientBound(bool zero, double norm) const;

  absl::Status CompareNames() const;
  absl::Status FindScaleOfGradients();
  absl::Status CompareOutput(const std::string& name, const Tensor& output);
  absl::Status CompareTap(const std::string& name, const Tensor& output);
  absl::Status CompareRoutes(const std::string& name, const Tensor& routes);
  absl::Status CompareGradient(const std::string& name, const Values& gradient);
  absl::Status CompareGradients(const Tensor& x_gradient);
  absl::Status CompareBuffers();

  const GoldenCase& golden_;
  const GoldenFamily& family_;
  std::string mode_;
  bool bf16_;
  bool nchw_;
  Json tolerance_;
  double largest_gradient_ = 0;  // G of the tolerances
  double total_gradient_ = 0;    // L2 norm over all
  ForwardContext context_;
  absl::Status tap_status_;
  std::unique_ptr<ParameterStore> store_;
  Comparison comparison_;
};

// A number, or a multiple of the largest gradient: "5e-6*G".
double FamilyCase::Number(const Json& value) const {
  if (value.is_number()) return value.get<double>();
  const std::string text = value.get<std::string>();
  double factor = 0;
  CHECK(absl::EndsWith(text, "*G") && absl::SimpleAtod(text.substr(0, text.size() - 2), &factor))
      << golden_.name << ": tolerance " << text;
  return factor * largest_gradient_;
}

double FamilyCase::Bound(const std::string& kind, double largest) const {
  if (bf16_) return kBf16OutputBar * largest;
  const Json& t = tolerance_.at(kind);
  return Number(t.at("atol")) + t.at("rtol").get<double>() * largest;
}

// Of the gradient's norm, or of a thousandth of the whole gradient's where terms nearly cancel.
double FamilyCase::Bf16GradientBound(bool zero, double norm) const {
  return kBf16GradBar * (zero ? total_gradient_ : std::max(norm, 1e-3 * total_gradient_));
}

// Names and shapes of all parameters and buffers are the reference's.
absl::Status FamilyCase::CompareNames() const {
  std::map<std::string, Json> found, expected;
  for (const auto& [name, tensor] : train::StateOf(*store_, store_->values())) {
    const auto dims = tensor.shape().dims();
    found[name] = std::vector<int64_t>(dims.begin(), dims.end());
  }
  for (const char* list : {"params", "buffers"}) {
    for (const Json& entry : golden_.meta.at(list)) {
      // Integers are counters, which the store has, or tables that are computed.
      const bool table = entry.size() > 2 && found.count(entry[0].get<std::string>()) == 0;
      if (!table) expected[entry[0].get<std::string>()] = entry[1];
    }
  }
  for (const auto& [name, shape] : expected) {
    const auto it = found.find(name);
    if (it == found.end() || it->second != shape) {
      return absl::InternalError(name + " is missing or of another shape");
    }
    found.erase(it);
  }
  if (found.empty()) return absl::OkStatus();
  return absl::InternalError(found.begin()->first + " is not in the reference");
}

absl::Status FamilyCase::FindScaleOfGradients() {
  for (const SafetensorsFile::Entry& entry : golden_.file.entries()) {
    const std::string& name = entry.name;
    const bool whole = absl::StartsWith(name, "grad.");
    if (!whole && !absl::StartsWith(name, "gstat.")) continue;
    ASSIGN_OR_RETURN(const Values values, Read(name));
    if (whole) largest_gradient_ = std::max(largest_gradient_, MaxAbs(values));
    total_gradient_ = std::hypot(total_gradient_, whole ? Norm(values) : values.at(0));
  }
  return absl::OkStatus();
}

void FamilyCase::Start(Module& module) {
  store_ = std::make_unique<ParameterStore>(module, /*seed=*/0, bf16_);
  FillParameters(golden_.meta, *store_);
  context_.tap = [this](absl::string_view name, const Tensor& output) {
    tap_status_.Update(output.dtype() == DType::kI32 ? CompareRoutes(std::string(name), output)
                                                     : CompareTap(std::string(name), output));
  };
}

Tensor FamilyCase::Input() const {
  const Json& x = golden_.meta.at("x");
  const std::vector<int64_t> shape = x.at("shape");
  if (nchw_) return GoldenImages(x.at("fill_input_name"), shape);
  const Tensor input = Tensor::Empty(Shape(shape), DType::kF32);
  FillInput(x.at("fill_input_name").get<std::string>(), input.numel(), input.data<float>());
  return input;
}

// The factors of an output in the loss, in the output's own layout.
Tensor FamilyCase::Cotangent(const std::string& output, const Tensor& like) const {
  const std::string name = output == "y" ? "cotangent" : "cotangent" + output.substr(1);
  if (nchw_ && like.rank() == 4) {
    return GoldenImages(name, {like.dim(0), like.dim(3), like.dim(1), like.dim(2)});
  }
  const Tensor cotangent = Tensor::Empty(like.shape(), DType::kF32);
  FillInput(name, cotangent.numel(), cotangent.data<float>());
  return cotangent;
}

absl::Status FamilyCase::CompareOutput(const std::string& name, const Tensor& output) {
  if (!Has(name)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Values expected, Read(name));
  comparison_.Add(name, Error(ValuesOf(output, nchw_), expected), Bound("out", MaxAbs(expected)));
  return absl::OkStatus();
}

absl::Status FamilyCase::CompareTap(const std::string& name, const Tensor& output) {
  if (context_.training || !Has("stat." + name)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Values expected, Read("stat." + name));
  const Values got = Statistics(name, ValuesOf(output, !family_.token_taps), expected.size() - 3);
  comparison_.AddTap("stat." + name, Error(got, expected), Bound("stat", expected.at(2)));
  return absl::OkStatus();
}

// The regions that each region attends to are the reference's, in any order. The rounding of bf16 is
// larger than the gaps between scores: there the reference's choice takes the place of ours.
absl::Status FamilyCase::CompareRoutes(const std::string& name, const Tensor& routes) {
  std::string key = "route." + name;
  if (mode_ == "toy") key = (context_.training ? "route_train." : "route_eval.") + name;
  if (!Has(key)) return absl::OkStatus();
  ASSIGN_OR_RETURN(Values expected, Read(key));
  Values got = ValuesOf(routes, false);
  if (got.size() != expected.size()) return absl::InternalError(key + ": other shape");
  if (bf16_) {
    std::copy(expected.begin(), expected.end(), routes.data<int32_t>());
    return absl::OkStatus();
  }
  const auto topk = static_cast<std::ptrdiff_t>(routes.dim(-1));
  for (auto row = std::ptrdiff_t{0}; row < std::ssize(got); row += topk) {
    std::sort(got.begin() + row, got.begin() + row + topk);
    std::sort(expected.begin() + row, expected.begin() + row + topk);
  }
  comparison_.AddTap(key, Error(got, expected), 0.5);
  return absl::OkStatus();
}

absl::Status FamilyCase::CompareGradient(const std::string& name, const Values& gradient) {
  const Json zeros = golden_.meta.value("zero_gradient_params", Json::array());
  const bool zero = std::find(zeros.begin(), zeros.end(), Json(name)) != zeros.end();
  if (Has("grad." + name)) {
    ASSIGN_OR_RETURN(const Values expected, Read("grad." + name));
    const double error = Error(gradient, expected);
    if (!bf16_) {
      comparison_.Add("grad." + name, error, Bound("grad", zero ? 0 : MaxAbs(expected)));
      return absl::OkStatus();
    }
    Values difference(gradient.size());
    for (size_t i = 0; i < gradient.size(); ++i) difference[i] = gradient[i] - expected[i];
    comparison_.Add("grad." + name, std::isinf(error) ? error : Norm(difference),
                    Bf16GradientBound(zero, Norm(expected)));
    return absl::OkStatus();
  }
  if (!Has("gstat." + name)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Values expected, Read("gstat." + name));
  const Values all = Statistics(name, gradient, expected.size() - 2);
  Values got = {all[0]}, samples(expected.begin() + 1, expected.end());
  got.insert(got.end(), all.begin() + 3, all.end());
  const double norm_error = std::abs(Norm(gradient) - expected[0]);
  const double error = Error(got, samples);
  if (bf16_) {
    comparison_.Add("gstat." + name, std::max(norm_error, error),
                    Bf16GradientBound(zero, expected[0]));
    return absl::OkStatus();
  }
  const Json& norm = tolerance_.at("gstat").at("l2_norm");
  const Json& rest = tolerance_.at("gstat").at("mean and samples");
  comparison_.Add(
      "gstat." + name + ", norm", norm_error,
      norm.at("atol").get<double>() + (zero ? 0 : norm.at("rtol").get<double>() * expected[0]));
  comparison_.Add(
      "gstat." + name, error,
      rest.at("atol").get<double>() +
          (zero ? 0 : rest.at("rtol_of_largest_sample").get<double>() * MaxAbs(samples)));
  return absl::OkStatus();
}

absl::Status FamilyCase::CompareGradients(const Tensor& x_gradient) {
  for (const ParameterStore::Entry& entry : store_->entries()) {
    RETURN_IF_ERROR(CompareGradient(entry.name, ValuesOf(entry.parameter->grad(), false)));
  }
  return CompareGradient("x", ValuesOf(x_gradient, nchw_));
}

// Running statistics after exactly one forward pass in training.
absl::Status FamilyCase::CompareBuffers() {
  for (const ParameterStore::BufferEntry& entry : store_->buffers()) {
    if (entry.buffer->dtype() != DType::kF32) continue;
    const Values got = ValuesOf(entry.buffer->value(), false);
    if (Has("bn." + entry.name)) {
      ASSIGN_OR_RETURN(const Values expected, Read("bn." + entry.name));
      comparison_.Add("bn." + entry.name, Error(got, expected), Bound("bn", MaxAbs(expected)));
    }
    const std::string name = "stat.bn." + entry.name;
    if (!Has(name)) continue;
    ASSIGN_OR_RETURN(const Values expected, Read(name));
    comparison_.Add(name, Error(Statistics(entry.name, got, expected.size() - 3), expected),
                    Bound("stat", expected.at(2)));
  }
  return absl::OkStatus();
}

// A mechanism or a backbone: the loss is the sum of outputs times cotangents.
absl::Status FamilyCase::RunModule() {
  const std::string kind = golden_.meta.at("kind");
  const auto make = family_.modules.find(kind);
  if (make == family_.modules.end()) {
    return absl::NotFoundError("no module '" + kind + "' in the golden family");
  }
  ASSIGN_OR_RETURN(const GoldenModule module, make->second(golden_.meta));
  Start(*module.module);
  RETURN_IF_ERROR(CompareNames());
  context_.training = true;
  Tensor x = Input();
  const Tensor x_gradient = Tensor::Zeros(x.shape(), DType::kF32);
  Tape tape;
  store_->Watch(tape, /*accumulate=*/false);
  tape.Watch(x, x_gradient, /*accumulate=*/false);
  const GoldenModule::Outputs outputs = module.forward(x, context_);
  RETURN_IF_ERROR(tap_status_);
  Tensor loss = Tensor::Zeros({}, DType::kF32);
  for (const auto& [name, output] : outputs) {
    RETURN_IF_ERROR(CompareOutput("out." + name, output));
    const bool differentiated = name == "y" || (name.size() == 2 && name[0] == 'f');
    if (!differentiated) continue;
    Tensor sum = Tensor::Zeros({}, DType::kF32);
    Record("cotangent", {&loss, &output}, {&sum},
           [cotangent = Cotangent(name, output), dtype = output.dtype()](GradContext& g) {
             g.Add(0, g.out());
             g.Add(1, ops::Cast(cotangent, dtype));
           });
    loss = sum;
  }
  tape.Backward(loss);
  RETURN_IF_ERROR(CompareGradients(x_gradient));
  return CompareBuffers();
}

absl::Status FamilyCase::RunModel() {
  ASSIGN_OR_RETURN(const std::unique_ptr<ImageModel> model, MakeGoldenModel(golden_.meta));
  Start(*model);
  RETURN_IF_ERROR(CompareNames());
  Tensor images = Input();
  if (mode_ != "train") {
    const Tensor logits = model->Forward(images, context_);
    RETURN_IF_ERROR(tap_status_);
    RETURN_IF_ERROR(CompareOutput("out.logits_eval", logits));
    RETURN_IF_ERROR(CompareOutput("out.logits", logits));
  }
  if (mode_ == "logits") return absl::OkStatus();
  context_.training = true;
  const Tensor x_gradient = Tensor::Zeros(images.shape(), DType::kF32);
  Tape tape;
  store_->Watch(tape, /*accumulate=*/false);
  tape.Watch(images, x_gradient, /*accumulate=*/false);
  const Tensor logits = model->Forward(images, context_);
  RETURN_IF_ERROR(tap_status_);
  RETURN_IF_ERROR(CompareOutput("out.logits_train", logits));
  RETURN_IF_ERROR(CompareOutput("out.logits", logits));
  ASSIGN_OR_RETURN(const Values labels, Read("in.labels"));
  const std::vector<int32_t> classes(labels.begin(), labels.end());
  const Tensor loss = SoftmaxCrossEntropy(logits, ops::SmoothedOneHot(classes, logits.dim(1), 0.0));
  RETURN_IF_ERROR(CompareOutput("out.loss", loss));
  tape.Backward(loss);
  RETURN_IF_ERROR(CompareGradients(x_gradient));
  return CompareBuffers();
}

absl::StatusOr<CaseResult> FamilyCase::Run() {
  RETURN_IF_ERROR(FindScaleOfGradients());
  RETURN_IF_ERROR(mode_ == "op" || mode_ == "backbone" ? RunModule() : RunModel());
  return comparison_.result();
}

}  // namespace

absl::StatusOr<CaseResult> RunFamilyCase(const GoldenCase& golden, DType compute_dtype) {
  return FamilyCase(golden, compute_dtype).Run();
}

}  // namespace tessera
