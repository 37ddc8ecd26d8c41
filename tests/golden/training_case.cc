// Golden cases of training: steps of the optimizer on a cycle of fixed batches.
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "core/status.h"
#include "tensor/ops/softmax_cross_entropy/softmax_cross_entropy.h"
#include "tests/golden/fill.h"
#include "tests/golden/golden_case.h"
#include "tests/golden/golden_model.h"
#include "train/config.h"
#include "train/schedule.h"
#include "train/step.h"
#include "train/weights.h"

namespace tessera {
namespace {

struct GoldenBatch {
  Tensor images;
  Tensor targets;
};

std::vector<GoldenBatch> MakeBatches(const Json& meta, int64_t classes) {
  const std::vector<int64_t> shape = meta.at("x").at("shape");
  const std::string pattern = meta.at("x").at("fill_input_name");
  const std::string name = meta.at("case");
  std::vector<GoldenBatch> batches(meta.at("cycle").get<int64_t>());
  for (size_t b = 0; b < batches.size(); ++b) {
    batches[b].images =
        GoldenImages(absl::StrReplaceAll(pattern, {{"<b>", absl::StrCat(b)}}), shape);
    std::vector<int32_t> labels;
    for (int64_t i = 0; i < shape.at(0); ++i) {
      const uint64_t hash = HashString(absl::StrCat(name, ".y", b, ".", i));
      labels.push_back(static_cast<int32_t>((hash >> 7) % static_cast<uint64_t>(classes)));
    }
    batches[b].targets =
        ops::SmoothedOneHot(labels, classes, meta.at("label_smoothing").get<double>());
  }
  return batches;
}

train::OptimConfig OptimizerOf(const Json& o) {
  CHECK_EQ(o.at("name").get<std::string>(), "adamw");
  train::OptimConfig config;
  config.betas = o.at("betas").get<std::vector<double>>();
  config.eps = o.at("eps");
  config.weight_decay = o.at("weight_decay");
  config.clip_grad = o.at("clip_norm");
  return config;
}

train::Schedule ScheduleOf(const Json& s) {
  train::Schedule schedule;
  schedule.lr = s.at("lr");
  schedule.min_lr = s.at("min_lr");
  schedule.warmup_steps = s.at("warmup_steps");
  schedule.total_steps = s.at("steps");
  return schedule;
}

// The largest error of a series, against its largest value.
absl::Status CompareSeries(const GoldenCase& golden, const std::string& name,
                           const std::vector<double>& got, DType compute_dtype,
                           Comparison* comparison) {
  ASSIGN_OR_RETURN(const std::vector<double> expected, ReadDoubles(golden.file, name));
  if (got.size() != expected.size()) return absl::InternalError(name + ": other length");
  double max = 0;
  for (const double v : expected) max = std::max(max, std::abs(v));
  const double rtol = compute_dtype == DType::kBF16
                          ? (name == "out.loss" ? kBf16OutputBar : kBf16GradBar)
                          : golden.meta.at("tolerance").at(name).at("rtol_of_max").get<double>();
  for (size_t t = 0; t < got.size(); ++t) {
    comparison->Add(absl::StrCat(name, "[", t, "]"), std::abs(got[t] - expected[t]), rtol * max);
  }
  return absl::OkStatus();
}

// L2 error over all tensors of a kind together: "final" and "ema" parameters, "bn" statistics.
absl::Status CompareTensors(const GoldenCase& golden, const std::string& kind,
                            const std::vector<NamedTensor>& tensors, DType compute_dtype,
                            Comparison* comparison) {
  double error = 0, norm = 0;
  for (const auto& [name, tensor] : tensors) {
    ASSIGN_OR_RETURN(const std::vector<double> expected,
                     ReadDoubles(golden.file, absl::StrCat(kind, ".", name)));
    const float* got = tensor.data<float>();
    for (size_t i = 0; i < expected.size(); ++i) {
      error += (got[i] - expected[i]) * (got[i] - expected[i]);
      norm += expected[i] * expected[i];
    }
  }
  for (const auto& [kinds, tolerance] : golden.meta.at("tolerance").items()) {
    if (!absl::StrContains(kinds, kind)) continue;
    const double rtol =
        compute_dtype == DType::kBF16 ? kBf16GradBar : tolerance.at("global_l2_rtol").get<double>();
    comparison->Add(kind, std::sqrt(error), rtol * std::sqrt(norm));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CaseResult> RunTrainingCase(const GoldenCase& golden, DType compute_dtype) {
  const Json& meta = golden.meta;
  ASSIGN_OR_RETURN(const std::unique_ptr<ImageModel> model, MakeGoldenModel(meta));
  ParameterStore store(*model, /*seed=*/0, compute_dtype == DType::kBF16);
  FillParameters(meta, store);
  const train::OptimConfig config = OptimizerOf(meta.at("optimizer"));
  train::Optimizer optimizer(config, store, meta.at("ema_decay").get<double>());
  const std::vector<GoldenBatch> batches = MakeBatches(meta, model->num_classes());
  const train::Schedule schedule = ScheduleOf(meta.at("schedule"));
  train::StepOptions options;
  options.clip_grad = config.clip_grad;
  options.compute_dtype = compute_dtype;

  std::vector<double> losses, norms;
  for (int64_t t = 0; t < schedule.total_steps; ++t) {
    const GoldenBatch& batch = batches[t % batches.size()];
    const train::StepResult result =
        train::TrainStep(*model, store, optimizer, options, batch.images, batch.targets, t,
                         schedule.LearningRate(t));
    RETURN_IF_ERROR(train::CheckUpdated(result, t));
    losses.push_back(result.loss);
    norms.push_back(result.grad_norm);
  }
  Comparison comparison(golden.name);
  RETURN_IF_ERROR(CompareSeries(golden, "out.loss", losses, compute_dtype, &comparison));
  RETURN_IF_ERROR(CompareSeries(golden, "out.grad_norm", norms, compute_dtype, &comparison));
  const auto parameters_of = [&](const Tensor& values) {
    return train::SlicesOf(store, store.Trained(values));
  };
  std::vector<NamedTensor> statistics;
  for (const ParameterStore::BufferEntry& entry : store.buffers()) {
    const Tensor& value = entry.buffer->value();
    if (value.dtype() == DType::kF32) statistics.emplace_back(entry.name, value);
  }
  RETURN_IF_ERROR(
      CompareTensors(golden, "final", parameters_of(store.values()), compute_dtype, &comparison));
  RETURN_IF_ERROR(CompareTensors(golden, "ema", parameters_of(optimizer.averages()), compute_dtype,
                                 &comparison));
  RETURN_IF_ERROR(CompareTensors(golden, "bn", statistics, compute_dtype, &comparison));
  return comparison.result();
}

}  // namespace tessera
