// RUN/report.html: one file, with everything in it, that shows a run to people: curves, accuracy,
// pictures with their predictions, the confusion matrix, where attention looks, the configuration.
#ifndef TESSERA_TRAIN_REPORT_H_
#define TESSERA_TRAIN_REPORT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/source.h"
#include "models/image_model.h"
#include "train/config.h"
#include "train/evaluate.h"

namespace tessera::train {

// A picture of the evaluation set and what the model says of it.
struct ReportSample {
  struct Guess {
    std::string name;
    double percent;
  };
  std::string name;
  std::string label;
  std::string jpeg;
  std::vector<Guess> guesses;  // best first
  std::string attention_jpeg;  // empty without one
};

struct ReportContents {
  std::string title;
  std::string config;                      // YAML
  std::string metrics;                     // contents of metrics.jsonl
  const Evaluation* evaluation = nullptr;  // null before the first one
  std::vector<std::string> class_names;
  std::vector<ReportSample> samples;
};

std::string ReportHtml(const ReportContents& contents);

// Pictures spread evenly over a data set, those that can not be read left out. The model lives on
// `device`; attention maps are made on the CPU only.
absl::StatusOr<std::vector<ReportSample>> ReportSamples(const ImageModel& model,
                                                        DType compute_dtype, const DataConfig& data,
                                                        const ImageSource& source, Device device);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_REPORT_H_
