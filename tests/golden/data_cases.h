// Checks of decoding, resampling, transforms, mixing and sharding against reference values.
//
// A directory may hold, each with any TAG in its name:
//   transformsTAG.{safetensors,json}   evaluation crops and resizes of real pictures
//   resampleTAG.safetensors            synthetic pictures, resized and augmented
//   mixTAG.safetensors                 mixup and cutmix of a batch
//   data_casesTAG.json                 sizes, sources and arguments of the two above; sharding
//   data_tablesTAG.json                decisions for explicit random draws
#ifndef TESSERA_TESTS_GOLDEN_DATA_CASES_H_
#define TESSERA_TESTS_GOLDEN_DATA_CASES_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "core/json.h"

namespace tessera {

struct DataCaseResult {
  std::string name;
  bool ok = true;
  bool skipped = false;  // what it needs is not there; `where` says what
  double worst = 0;      // largest error as a fraction of its tolerance
  std::string where;     // what had it, or why the case could not run
};

// Runs all cases of a directory, in the order of their names. `data_dir` has the pictures that
// transforms*.json names; a picture that is not there skips its case.
std::vector<DataCaseResult> RunDataCases(const std::string& golden_dir,
                                         const std::string& data_dir);

namespace internal {

// Keeps the largest error.
class WorstError {
 public:
  // A tolerance of 0 asks for equality.
  void Add(const std::string& where, double error, double tolerance);
  void AddEqual(const std::string& where, bool equal) { Add(where, equal ? 0 : 1, 0); }
  DataCaseResult Result(const std::string& name) const;

 private:
  double worst_ = 0;
  std::string where_;
};

std::vector<DataCaseResult> RunTableCases(const std::string& name, const Json& tables);
DataCaseResult RunShardingCase(const std::string& name, const Json& sharding);

}  // namespace internal

}  // namespace tessera

#endif  // TESSERA_TESTS_GOLDEN_DATA_CASES_H_
