// A golden case: reference numbers (`NAME.safetensors`) with their description (`NAME.json`), and
// what came of checking one.
#ifndef TESSERA_TESTS_GOLDEN_GOLDEN_CASE_H_
#define TESSERA_TESTS_GOLDEN_GOLDEN_CASE_H_

#include <functional>
#include <string>
#include <vector>

#include "core/json.h"
#include "tensor/safetensors.h"

namespace tessera {

// Bars for bf16 compute, where a case's own tolerances are for f32: of a tensor's largest value for
// outputs, of its L2 norm for gradients.
inline constexpr double kBf16OutputBar = 3e-2;
inline constexpr double kBf16GradBar = 1e-1;

struct CaseResult {
  enum class Kind { kOk, kFailed, kUnsupported };
  std::string name;
  Kind kind = Kind::kOk;
  double worst = 0.0;   // largest error as a fraction of its tolerance
  std::string where;    // what had it
  std::string message;  // first tap that is off, or why the case could not run
};

struct GoldenCase {
  std::string name;
  Json meta;
  SafetensorsFile file;
};

// Collects errors as fractions of their tolerances.
class Comparison {
 public:
  explicit Comparison(std::string name) { result_.name = std::move(name); }

  void Add(const std::string& where, double error, double tolerance);
  // Like Add; the first of these that exceeds its tolerance is reported as the place to look at.
  void AddTap(const std::string& where, double error, double tolerance);
  const CaseResult& result() const { return result_; }

 private:
  CaseResult result_;
};

// The values of a tensor in double; NaN-free comparisons are the caller's business.
absl::StatusOr<std::vector<double>> ReadDoubles(const SafetensorsFile& file,
                                                const std::string& name);

// Runs a vision model of the layout without `mode`: logits, loss, taps and every gradient.
absl::StatusOr<CaseResult> RunModelCase(const GoldenCase& golden, DType compute_dtype);
// Runs a case of the layout with `mode`: a mechanism, a backbone or a model.
absl::StatusOr<CaseResult> RunFamilyCase(const GoldenCase& golden, DType compute_dtype);
// Runs optimizer steps: loss and gradient norm of each, final and averaged parameters.
absl::StatusOr<CaseResult> RunTrainingCase(const GoldenCase& golden, DType compute_dtype);

}  // namespace tessera

#endif  // TESSERA_TESTS_GOLDEN_GOLDEN_CASE_H_
