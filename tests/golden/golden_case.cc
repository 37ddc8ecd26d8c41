#include "tests/golden/golden_case.h"
#include "core/status.h"

#include <cmath>

#include "absl/strings/str_format.h"

namespace tessera {

void Comparison::Add(const std::string& where, double error, double tolerance) {
  double fraction = error / tolerance;
  if (error == 0) fraction = 0;
  if (std::isnan(fraction)) fraction = INFINITY;
  if (fraction > result_.worst || result_.where.empty()) {
    result_.worst = fraction;
    result_.where = where;
  }
  if (fraction > 1) result_.kind = CaseResult::Kind::kFailed;
}

void Comparison::AddTap(const std::string& where, double error, double tolerance) {
  Add(where, error, tolerance);
  if (!(error <= tolerance) && result_.message.empty()) {
    result_.message = absl::StrFormat("first tap that is off: %s (error %.3g, tolerance %.3g)",
                                      where, error, tolerance);
  }
}

absl::StatusOr<std::vector<double>> ReadDoubles(const SafetensorsFile& file,
                                                const std::string& name) {
  ASSIGN_OR_RETURN(const Tensor tensor, file.Read(name));
  std::vector<double> values(tensor.numel());
  const auto copy = [&](const auto* data) {
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(data[i]);
  };
  if (tensor.dtype() == DType::kF64) copy(tensor.data<double>());
  if (tensor.dtype() == DType::kF32) copy(tensor.data<float>());
  if (tensor.dtype() == DType::kI64) copy(tensor.data<int64_t>());
  if (tensor.dtype() == DType::kI32) copy(tensor.data<int32_t>());
  return values;
}

}  // namespace tessera
