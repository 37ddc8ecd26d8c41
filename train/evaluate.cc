#include "train/evaluate.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "tensor/ops/softmax/softmax.h"
#include "tensor/ops/top_k/top_k.h"

namespace tessera::train {
namespace {

constexpr int64_t kTopK = 5;
constexpr int kCalibrationBins = 15;

void CountRow(const int32_t* best, int64_t k, int64_t label, Evaluation* evaluation) {
  ClassAccuracy& of_label = evaluation->classes[label];
  ++evaluation->samples;
  ++of_label.samples;
  of_label.top1 += best[0] == label;
  of_label.top5 += std::find(best, best + k, label) != best + k;
  ++evaluation->classes[best[0]].predicted;
}

double Percent(int64_t part, int64_t whole) {
  return whole == 0 ? 0.0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

double Evaluation::top1() const {
  int64_t right = 0;
  for (const ClassAccuracy& c : classes) right += c.top1;
  return Percent(right, samples);
}

double Evaluation::top5() const {
  int64_t right = 0;
  for (const ClassAccuracy& c : classes) right += c.top5;
  return Percent(right, samples);
}

double Evaluation::calibration_error() const {
  // Of each bin the right ones minus the confidences.
  std::array<double, kCalibrationBins> gaps = {};
  for (const Prediction& p : predictions) {
    const int bin =
        std::min(static_cast<int>(p.confidence * kCalibrationBins), kCalibrationBins - 1);
    gaps[bin] += (p.predicted == p.label ? 1.0 : 0.0) - p.confidence;
  }
  double sum = 0;
  for (const double gap : gaps) sum += std::abs(gap);
  return predictions.empty() ? 0.0 : 100.0 * sum / static_cast<double>(predictions.size());
}

absl::StatusOr<Evaluation> Evaluate(const ImageModel& model, DType compute_dtype, Device device,
                                    Loader& loader, const std::function<bool()>& stop,
                                    const std::function<void(int64_t, double)>& progress) {
  ForwardContext context;
  context.compute_dtype = compute_dtype;
  Evaluation result;
  result.classes.resize(model.num_classes());
  double loss_sum = 0;
  while (!stop || !stop()) {
    ASSIGN_OR_RETURN(const std::optional<Batch> batch, loader.Next());
    if (!batch) break;
    const Tensor logits = model.Forward(batch->images.To(device), context).To(Device::kCpu);
    const Tensor probabilities = ops::Softmax(logits);
    const int64_t classes = logits.dim(1), k = std::min(kTopK, classes);
    const ops::TopKResult best = ops::TopK(logits, k);
    for (int64_t i = 0; i < batch->num_valid; ++i) {
      const int64_t label = batch->labels.data<int64_t>()[i];
      CHECK(label >= 0 && label < classes) << "label " << label << " of " << classes;
      CountRow(best.indices.data<int32_t>() + i * k, k, label, &result);
      // The smallest normal f32 stands for a probability that underflowed.
      const float* of_sample = probabilities.data<float>() + i * classes;
      const int32_t predicted = best.indices.data<int32_t>()[i * k];
      result.predictions.push_back({static_cast<int32_t>(label), predicted, of_sample[predicted]});
      const double p = of_sample[label];
      loss_sum -= std::log(std::max(p, 1.2e-38));
    }
    result.loss = result.samples == 0 ? 0.0 : loss_sum / static_cast<double>(result.samples);
    if (progress) progress(result.samples, result.loss);
  }
  result.skipped = loader.stats().num_bad();
  return result;
}

Evaluation MergeRanks(const Communicator& ranks, const Evaluation& own) {
  if (ranks.size() == 1) return own;
  Evaluation merged = own;
  // Whole numbers of up to 2^53 are exact.
  std::vector<double> sums = {static_cast<double>(own.samples), static_cast<double>(own.skipped),
                              own.loss * static_cast<double>(own.samples)};
  const auto visit_counts = [&merged](const auto& visit) {
    for (ClassAccuracy& c : merged.classes) {
      for (int64_t* count : {&c.samples, &c.top1, &c.top5, &c.predicted}) visit(*count);
    }
  };
  visit_counts([&](int64_t count) { sums.push_back(static_cast<double>(count)); });
  ranks.AllReduceSum(absl::MakeSpan(sums));
  merged.samples = static_cast<int64_t>(sums[0]);
  merged.skipped = static_cast<int64_t>(sums[1]);
  merged.loss = merged.samples == 0 ? 0.0 : sums[2] / sums[0];
  auto sum = sums.begin() + 3;
  visit_counts([&](int64_t& count) { count = static_cast<int64_t>(*sum++); });

  const std::vector<std::string> of_ranks =
      ranks.AllGather({reinterpret_cast<const char*>(own.predictions.data()),
                       own.predictions.size() * sizeof(Prediction)});
  // In the order of the samples, which the ranks take in turn.
  merged.predictions.clear();
  for (size_t i = 0; i * sizeof(Prediction) < of_ranks[0].size(); ++i) {
    for (const std::string& of_rank : of_ranks) {
      if ((i + 1) * sizeof(Prediction) > of_rank.size()) continue;
      std::memcpy(&merged.predictions.emplace_back(), of_rank.data() + i * sizeof(Prediction),
                  sizeof(Prediction));
    }
  }
  return merged;
}

namespace {

std::string NameOf(size_t c, const std::vector<std::string>& class_names) {
  return c < class_names.size() ? class_names[c] : absl::StrCat(c);
}

// In quotes where the text has a comma, a quote or a line break.
std::string CsvField(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  return absl::StrCat("\"", absl::StrReplaceAll(text, {{"\"", "\"\""}}), "\"");
}

}  // namespace

std::string ClassTable(const Evaluation& evaluation, const std::vector<std::string>& class_names) {
  size_t width = 5;
  for (const std::string& name : class_names) width = std::max(width, name.size());
  std::string table = absl::StrFormat("%-*s  %8s  %7s  %7s  %9s\n", width, "class", "samples",
                                      "top-1 %", "top-5 %", "precision");
  for (size_t c = 0; c < evaluation.classes.size(); ++c) {
    const ClassAccuracy& a = evaluation.classes[c];
    absl::StrAppendFormat(&table, "%-*s  %8d  %7.2f  %7.2f  %9.2f\n", width, NameOf(c, class_names),
                          a.samples, Percent(a.top1, a.samples), Percent(a.top5, a.samples),
                          Percent(a.top1, a.predicted));
  }
  return table;
}

std::string ClassCsv(const Evaluation& evaluation, const std::vector<std::string>& class_names) {
  std::string csv = "class,samples,top1,top5,precision\r\n";
  for (size_t c = 0; c < evaluation.classes.size(); ++c) {
    const ClassAccuracy& a = evaluation.classes[c];
    absl::StrAppendFormat(&csv, "%s,%d,%.4f,%.4f,%.4f\r\n", CsvField(NameOf(c, class_names)),
                          a.samples, Percent(a.top1, a.samples), Percent(a.top5, a.samples),
                          Percent(a.top1, a.predicted));
  }
  return csv;
}

}  // namespace tessera::train
