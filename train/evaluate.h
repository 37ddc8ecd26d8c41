// Accuracy of a classifier over a data set.
#ifndef TESSERA_TRAIN_EVALUATE_H_
#define TESSERA_TRAIN_EVALUATE_H_

#include <functional>
#include <string>
#include <vector>

#include "core/communicator.h"
#include "data/loader.h"
#include "models/image_model.h"

namespace tessera::train {

struct ClassAccuracy {
  int64_t samples = 0;
  int64_t top1 = 0;  // of them right
  int64_t top5 = 0;
  int64_t predicted = 0;  // samples of any class that were taken for this one
};

// What a model said of one sample.
struct Prediction {
  int32_t label = 0;
  int32_t predicted = 0;
  float confidence = 0.0f;  // probability of the predicted class
};

struct Evaluation {
  int64_t samples = 0;
  int64_t skipped = 0;  // bad files that were left out
  double loss = 0.0;    // mean cross entropy against the labels
  std::vector<ClassAccuracy> classes;
  std::vector<Prediction> predictions;  // of every sample, in the loader's order

  double top1() const;  // percent
  double top5() const;
  // Expected calibration error over 15 equal bins of confidence (Guo et al., arXiv 1706.04599), in
  // percent: how far confidence and accuracy lie apart, weighted by the samples of a bin.
  double calibration_error() const;
};

// Runs the model, which lives on `device`, over all batches of an evaluation loader. Stops early,
// with an incomplete result, when `stop` (may be null) returns true before a batch; it is asked as
// often on every rank. `progress` (may be null) is told the number of samples done and their mean
// loss.
absl::StatusOr<Evaluation> Evaluate(const ImageModel& model, DType compute_dtype, Device device,
                                    Loader& loader, const std::function<bool()>& stop,
                                    const std::function<void(int64_t, double)>& progress);

// The evaluation of all samples from those that each rank has of its share, on every rank.
Evaluation MergeRanks(const Communicator& ranks, const Evaluation& own);

// A table with one row per class: samples, top-1 and top-5 accuracy, precision.
std::string ClassTable(const Evaluation& evaluation, const std::vector<std::string>& class_names);

// The same as CSV (RFC 4180) with a heading; accuracies and precision in percent.
std::string ClassCsv(const Evaluation& evaluation, const std::vector<std::string>& class_names);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_EVALUATE_H_
