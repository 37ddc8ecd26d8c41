// Golden cases of whole vision models.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "autograd/ops/softmax_cross_entropy.h"
#include "core/status.h"
#include "models/registry.h"
#include "tensor/ops/cast/cast.h"
#include "tensor/ops/softmax_cross_entropy/softmax_cross_entropy.h"
#include "tests/golden/fill.h"
#include "tests/golden/golden_case.h"
#include "tests/golden/golden_family.h"
#include "tests/golden/golden_model.h"
#include "train/weights.h"

namespace tessera {
namespace {

struct Tolerances {
  double logits, feat, loss, grad, zero_grad, bn;
};

Tolerances TolerancesOf(const Json& meta, DType compute_dtype) {
  const Json& t = meta.at("tolerance");
  const auto get = [&](const char* key) { return t.value(key, 0.0); };
  Tolerances tolerances = {get("logits_rtol"),  get("feat_rtol"),      get("loss_atol"),
                           get("grad_l2_rtol"), get("zero_grad_atol"), get("bn_rtol")};
  if (compute_dtype == DType::kBF16) {
    tolerances = {kBf16OutputBar,
                  kBf16OutputBar,
                  kBf16OutputBar * std::abs(meta.value("loss", 1.0)),
                  kBf16GradBar,
                  kBf16GradBar * meta.value("grad_norm_total", 1.0),
                  kBf16OutputBar};
  }
  return tolerances;
}

double MaxAbs(absl::Span<const double> values) {
  double max = 0;
  for (const double v : values) max = std::max(max, std::abs(v));
  return max;
}

double Norm(absl::Span<const double> values) {
  double sum = 0;
  for (const double v : values) sum += v * v;
  return std::sqrt(sum);
}

double Mean(absl::Span<const double> values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

// Our values in the order of the reference; kPadding where the reference has positions that are not
// computed here (padding of windows).
using Values = std::vector<double>;
constexpr double kPadding = std::numeric_limits<double>::lowest();

// A channels-last tensor [B, H, W, C] as [B, C, H, W].
Values ToNchw(const Tensor& t, int64_t batch, int64_t channels) {
  const int64_t pixels = t.numel() / (batch * channels);
  const float* data = t.data<float>();
  Values values(t.numel());
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t p = 0; p < pixels; ++p)
      for (int64_t c = 0; c < channels; ++c)
        values[(b * channels + c) * pixels + p] = data[(b * pixels + p) * channels + c];
  return values;
}

// A map [B, H, W, C] as windows [B * windows, tokens, C], cut from the map padded at the right and
// bottom.
Values ToWindows(const Tensor& t, int64_t tokens) {
  const int64_t s = std::llround(std::sqrt(static_cast<double>(tokens)));
  const int64_t B = t.dim(0), H = t.dim(1), W = t.dim(2), C = t.dim(3);
  const int64_t rows = (H + s - 1) / s, columns = (W + s - 1) / s;
  Values values(B * rows * columns * tokens * C, kPadding);
  const float* data = t.data<float>();
  for (int64_t b = 0; b < B; ++b)
    for (int64_t h = 0; h < H; ++h)
      for (int64_t w = 0; w < W; ++w) {
        const int64_t window = (b * rows + h / s) * columns + w / s;
        const int64_t to = (window * tokens + h % s * s + w % s) * C;
        const int64_t from = ((b * H + h) * W + w) * C;
        for (int64_t c = 0; c < C; ++c) values[to + c] = data[from + c];
      }
  return values;
}

// A tap in the layout of the reference, whose shape tells which one it is.
Values ToReferenceLayout(const Tensor& tap, const std::vector<int64_t>& shape) {
  if (shape.size() == 4) return ToNchw(tap, shape[0], shape[1]);
  if (shape.size() == 3 && tap.rank() == 4 && shape[1] != tap.dim(1) * tap.dim(2)) {
    return ToWindows(tap, shape[1]);
  }
  return Values(tap.data<float>(), tap.data<float>() + tap.numel());
}

class ModelCase {
 public:
  ModelCase(const GoldenCase& golden, DType compute_dtype)
      : golden_(golden),
        tolerances_(TolerancesOf(golden.meta, compute_dtype)),
        compute_dtype_(compute_dtype),
        comparison_(golden.name) {}

  absl::StatusOr<CaseResult> Run();

 private:
  absl::Status CompareNames(const ParameterStore& store);
  absl::Status CompareLogits(const std::string& name, const Tensor& logits);
  // Taps are those of `pass`: "" or "_train".
  absl::Status CompareTap(const std::string& pass, const std::string& name, const Tensor& tap);
  absl::Status CompareRunningStatistics(const ParameterStore& store);
  absl::Status CompareGrad(const std::string& name, const Values& grad);

  const GoldenCase& golden_;
  Tolerances tolerances_;
  DType compute_dtype_;
  Comparison comparison_;
};

// Names and shapes of all parameters and buffers are the reference's.
absl::Status ModelCase::CompareNames(const ParameterStore& store) {
  const Json& expected = golden_.meta.at("state_dict");
  std::map<std::string, std::vector<int64_t>> found;
  for (const auto& [name, tensor] : train::StateOf(store, store.values())) {
    const auto dims = tensor.shape().dims();
    found[name] = {dims.begin(), dims.end()};
  }
  if (Json(found) == expected) return absl::OkStatus();
  for (const auto& [name, shape] : expected.items()) {
    if (found.count(name) == 0 || Json(found[name]) != shape) {
      return absl::InternalError(name + " is missing or of another shape");
    }
  }
  return absl::InternalError("the model has tensors that the reference has not");
}

absl::Status ModelCase::CompareLogits(const std::string& name, const Tensor& logits) {
  ASSIGN_OR_RETURN(const Values expected, ReadDoubles(golden_.file, name));
  if (static_cast<int64_t>(expected.size()) != logits.numel()) {
    return absl::InternalError(name + ": other shape");
  }
  double error = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::abs(logits.data<float>()[i] - expected[i]);
    error = difference <= error ? error : difference;
  }
  comparison_.Add(name, error, tolerances_.logits * MaxAbs(expected));
  return absl::OkStatus();
}

absl::Status ModelCase::CompareTap(const std::string& pass, const std::string& name,
                                   const Tensor& tap) {
  const std::string feat = "feat" + pass + "." + name, stat = "stat" + pass + "." + name;
  const bool whole = golden_.file.Find(feat) != nullptr;
  if (!whole && golden_.file.Find(stat) == nullptr) return absl::OkStatus();
  const std::vector<int64_t> shape = golden_.meta.at("taps").at(name);
  const Tensor f32 = ops::Cast(tap, DType::kF32);
  const std::vector<std::string>& channels_last =
      FindGoldenFamily(golden_.meta.at("family")).channels_last_taps;
  const bool as_it_is =
      std::any_of(channels_last.begin(), channels_last.end(),
                  [&](const std::string& end) { return absl::EndsWith(name, end); });
  const Values got = as_it_is ? Values(f32.data<float>(), f32.data<float>() + f32.numel())
                              : ToReferenceLayout(f32, shape);
  double error = 0;
  const auto compare = [&](double value, double expected) {
    if (value == kPadding) return;
    const double difference = std::abs(value - expected);
    error = difference <= error ? error : difference;
  };
  ASSIGN_OR_RETURN(const Values expected, ReadDoubles(golden_.file, whole ? feat : stat));
  const int64_t numel = static_cast<int64_t>(got.size());
  if (whole) {
    if (expected.size() != got.size()) return absl::InternalError(name + ": other shape");
    for (int64_t i = 0; i < numel; ++i) compare(got[i], expected[i]);
    comparison_.AddTap(feat, error, tolerances_.feat * MaxAbs(expected));
    return absl::OkStatus();
  }
  for (size_t j = 3; j < expected.size(); ++j) {
    compare(got[SampleIndex(name, static_cast<int64_t>(j) - 3, numel)], expected[j]);
  }
  if (std::find(got.begin(), got.end(), kPadding) == got.end()) {
    const double mean = Mean(got);
    double variance = 0;
    for (const double v : got) variance += (v - mean) * (v - mean) / static_cast<double>(numel);
    compare(mean, expected[0]);
    compare(std::sqrt(variance), expected[1]);
    compare(MaxAbs(got), expected[2]);
  }
  comparison_.AddTap(stat, error, tolerances_.feat * expected[2]);
  return absl::OkStatus();
}

// Running statistics after one forward pass in training.
absl::Status ModelCase::CompareRunningStatistics(const ParameterStore& store) {
  for (const ParameterStore::BufferEntry& entry : store.buffers()) {
    const std::string& name = entry.name;
    const Tensor& value = entry.buffer->value();
    if (value.dtype() != DType::kF32) continue;
    const bool whole = golden_.file.Find("bn." + name) != nullptr;
    ASSIGN_OR_RETURN(const Values expected,
                     ReadDoubles(golden_.file, (whole ? "bn." : "stat.bn.") + name));
    // [mean, standard deviation, largest, samples]
    const size_t first = whole ? 0 : 3;
    const double largest = whole ? MaxAbs(expected) : expected.at(2);
    double error = 0;
    for (size_t j = first; j < expected.size(); ++j) {
      const auto k = static_cast<int64_t>(j - first);
      const int64_t at = whole ? k : SampleIndex(name, k, value.numel());
      const double difference = std::abs(value.data<float>()[at] - expected[j]);
      error = difference <= error ? error : difference;
    }
    comparison_.Add("bn." + name, error, tolerances_.bn * largest);
  }
  return absl::OkStatus();
}

absl::Status ModelCase::CompareGrad(const std::string& name, const Values& grad) {
  const Json zero_grads = golden_.meta.value("zero_grads", Json::array());
  if (std::find(zero_grads.begin(), zero_grads.end(), Json(name)) != zero_grads.end()) {
    comparison_.Add("grad." + name, Norm(grad), tolerances_.zero_grad);
    return absl::OkStatus();
  }
  if (golden_.file.Find("grad." + name) != nullptr) {
    ASSIGN_OR_RETURN(const Values expected, ReadDoubles(golden_.file, "grad." + name));
    if (expected.size() != grad.size()) return absl::InternalError(name + ": other shape");
    Values difference(grad.size());
    for (size_t i = 0; i < grad.size(); ++i) difference[i] = grad[i] - expected[i];
    comparison_.Add("grad." + name, Norm(difference), tolerances_.grad * Norm(expected));
    return absl::OkStatus();
  }
  // [L2 norm, mean, samples]
  ASSIGN_OR_RETURN(const Values expected, ReadDoubles(golden_.file, "gstat." + name));
  double error = std::max(std::abs(Norm(grad) - expected[0]), std::abs(Mean(grad) - expected[1]));
  for (size_t j = 2; j < expected.size(); ++j) {
    const int64_t at =
        SampleIndex(name, static_cast<int64_t>(j) - 2, static_cast<int64_t>(grad.size()));
    error = std::max(error, std::abs(grad[at] - expected[j]));
  }
  if (std::isnan(Norm(grad))) error = INFINITY;
  comparison_.Add("gstat." + name, error, tolerances_.grad * expected[0]);
  return absl::OkStatus();
}

absl::StatusOr<CaseResult> ModelCase::Run() {
  ASSIGN_OR_RETURN(const std::unique_ptr<ImageModel> model, MakeGoldenModel(golden_.meta));
  ParameterStore store(*model, /*seed=*/0, compute_dtype_ == DType::kBF16);
  RETURN_IF_ERROR(CompareNames(store));
  FillParameters(golden_.meta, store);
  const Json& x = golden_.meta.at("x");
  Tensor images = GoldenImages(x.at("fill_input_name"), x.at("shape"));
  const Tensor images_grad = Tensor::Zeros(images.shape(), DType::kF32);

  ForwardContext context;
  context.compute_dtype = compute_dtype_;
  absl::Status tap_status;
  context.tap = [&](absl::string_view name, const Tensor& output) {
    tap_status.Update(CompareTap(context.training ? "_train" : "", std::string(name), output));
  };
  RETURN_IF_ERROR(CompareLogits("out.logits_eval", model->Forward(images, context)));
  RETURN_IF_ERROR(tap_status);
  if (!golden_.meta.contains("loss")) return comparison_.result();  // a case of evaluation alone

  context.training = true;
  Tape tape;
  store.Watch(tape, /*accumulate=*/false);
  tape.Watch(images, images_grad, /*accumulate=*/false);
  const Tensor logits = model->Forward(images, context);
  const std::vector<int32_t> labels = golden_.meta.at("labels");
  const Tensor loss = SoftmaxCrossEntropy(logits, ops::SmoothedOneHot(labels, logits.dim(1), 0.0));
  RETURN_IF_ERROR(tap_status);
  RETURN_IF_ERROR(CompareLogits("out.logits_train", logits));
  RETURN_IF_ERROR(CompareRunningStatistics(store));
  ASSIGN_OR_RETURN(const Values expected_loss, ReadDoubles(golden_.file, "out.loss"));
  comparison_.Add("out.loss", std::abs(*loss.data<float>() - expected_loss.at(0)),
                  tolerances_.loss);
  tape.Backward(loss);
  for (const ParameterStore::Entry& entry : store.entries()) {
    const Tensor& grad = entry.parameter->grad();
    RETURN_IF_ERROR(
        CompareGrad(entry.name, Values(grad.data<float>(), grad.data<float>() + grad.numel())));
  }
  RETURN_IF_ERROR(CompareGrad("x", ToNchw(images_grad, images.dim(0), images.dim(3))));
  return comparison_.result();
}

}  // namespace

absl::StatusOr<CaseResult> RunModelCase(const GoldenCase& golden, DType compute_dtype) {
  return ModelCase(golden, compute_dtype).Run();
}

}  // namespace tessera
