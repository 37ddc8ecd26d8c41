// Decisions for explicit random draws: sizes, boxes, arguments, and which rank gets which sample.
#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "data/sampler.h"
#include "data/transforms/geometry.h"
#include "data/transforms/rand_augment.h"
#include "tests/golden/data_cases.h"

namespace tessera::internal {
namespace {

constexpr double kExact = 1e-12;
constexpr double kMinRatio = 3.0 / 4.0;
constexpr double kMaxRatio = 4.0 / 3.0;

std::string RowName(int64_t i) { return absl::StrCat("row ", i); }

void CheckRandomResizedCrop(const Json& row, const std::string& where, WorstError* worst) {
  const int64_t height = row.at("h");
  const int64_t width = row.at("w");
  Json found = {{"attempt", nullptr}};
  int64_t attempt = 0;
  for (const Json& draw : row.at("draws")) {
    const auto size = RandomResizedCropSize(height, width, {draw.at(0), draw.at(1)});
    if (size.has_value()) {
      found = {{"attempt", attempt}, {"crop_w", size->width}, {"crop_h", size->height}};
      break;
    }
    ++attempt;
  }
  if (found.at("attempt").is_null()) {
    const Rect crop = RandomResizedCropFallback(height, width, kMinRatio, kMaxRatio);
    found = {{"attempt", nullptr},
             {"top", crop.top},
             {"left", crop.left},
             {"crop_w", crop.width},
             {"crop_h", crop.height}};
  }
  worst->AddEqual(where, found == row.at("result"));
}

void CheckEval(const Json& row, const std::string& where, WorstError* worst) {
  const EvalGeometry g =
      ComputeEvalGeometry(row.at("h"), row.at("w"), row.at("size"), row.at("crop_pct"));
  worst->AddEqual(where, g.resized_width == row.at("resized_w") &&
                             g.resized_height == row.at("resized_h") && g.top == row.at("top") &&
                             g.left == row.at("left"));
}

void CheckCutMix(const Json& row, const std::string& where, WorstError* worst) {
  const int64_t height = row.at("H");
  const int64_t width = row.at("W");
  const Rect box = CutMixBox(height, width, row.at("lam"), row.at("cy"), row.at("cx"));
  const Json edges = {box.top, box.top + box.height, box.left, box.left + box.width};
  worst->AddEqual(where, edges == row.at("yl_yh_xl_xh"));
  const double lambda = row.at("lam_corrected");
  worst->Add(where, std::abs(CutMixLambda(height, width, box) - lambda), kExact);
}

void CheckErasing(const Json& row, const std::string& where, WorstError* worst) {
  const auto size =
      ErasingSize(row.at("H"), row.at("W"), {row.at("area_frac"), row.at("aspect")}, 1);
  worst->AddEqual(where, size.has_value() == row.at("accepted").get<bool>());
  if (!size.has_value() || !row.at("accepted").get<bool>()) return;
  worst->AddEqual(where, size->height == row.at("h") && size->width == row.at("w"));
}

struct NamedOp {
  absl::string_view name;
  AugmentOp op;
};
constexpr NamedOp kOps[] = {
    {"Rotate", AugmentOp::kRotate},
    {"Posterize", AugmentOp::kPosterize},
    {"Solarize", AugmentOp::kSolarize},
    {"SolarizeAdd", AugmentOp::kSolarizeAdd},
    {"Color", AugmentOp::kColor},
    {"Contrast", AugmentOp::kContrast},
    {"Brightness", AugmentOp::kBrightness},
    {"Sharpness", AugmentOp::kSharpness},
    {"ShearX", AugmentOp::kShearX},
    {"ShearY", AugmentOp::kShearY},
    {"TranslateXRel", AugmentOp::kTranslateX},
    {"TranslateYRel", AugmentOp::kTranslateY},
};

// The arguments that both signs give must be the ones listed.
void CheckAugmentArguments(const Json& row, const std::string& where, WorstError* worst) {
  const double magnitude = row.at("magnitude");
  for (const auto& [key, values] : row.items()) {
    if (key == "magnitude") continue;
    absl::string_view name = key;
    const bool increasing = absl::ConsumeSuffix(&name, "Increasing");
    const auto* op = std::find_if(std::begin(kOps), std::end(kOps),
                                  [name](const NamedOp& o) { return o.name == name; });
    if (op == std::end(kOps)) {
      worst->AddEqual(absl::StrCat(where, ": unknown operation ", key), false);
      continue;
    }
    const auto expected = values.get<std::vector<double>>();
    const auto nearest = [](double x, const std::vector<double>& among) {
      double least = INFINITY;
      for (const double y : among) least = std::min(least, std::abs(x - y));
      return least;
    };
    const std::vector<double> found = {AugmentArgument(op->op, magnitude, false, increasing),
                                       AugmentArgument(op->op, magnitude, true, increasing)};
    const std::string place = absl::StrCat(where, " ", key);
    for (const double x : found) worst->Add(place, nearest(x, expected), kExact);
    for (const double x : expected) worst->Add(place, nearest(x, found), kExact);
  }
}

}  // namespace

std::vector<DataCaseResult> RunTableCases(const std::string& name, const Json& tables) {
  using Check = void (*)(const Json&, const std::string&, WorstError*);
  const std::pair<const char*, Check> checks[] = {{"rrc", CheckRandomResizedCrop},
                                                  {"eval", CheckEval},
                                                  {"cutmix", CheckCutMix},
                                                  {"erase_hw", CheckErasing},
                                                  {"randaug_args", CheckAugmentArguments}};
  std::vector<DataCaseResult> results;
  for (const auto& [table, check] : checks) {
    if (!tables.contains(table)) continue;
    WorstError worst;
    int64_t i = 0;
    for (const Json& row : tables.at(table)) check(row, RowName(i++), &worst);
    results.push_back(worst.Result(absl::StrCat(name, ".", table)));
  }
  return results;
}

DataCaseResult RunShardingCase(const std::string& name, const Json& sharding) {
  const auto permutation = sharding.at("permutation").get<std::vector<int32_t>>();
  const int64_t world = sharding.at("world");
  WorstError worst;
  for (const auto& [key, ranks] : sharding.items()) {
    absl::string_view suffix = key;
    int64_t repeats = 1;
    if (absl::ConsumePrefix(&suffix, "repeat")) {
      worst.AddEqual(key, absl::SimpleAtoi(suffix, &repeats));
    } else if (key != "plain_padded") {
      continue;
    }
    for (const auto& [rank_text, expected] : ranks.items()) {
      const EpochOrder order =
          EpochOrder::Training(permutation, repeats, std::stoi(rank_text), world);
      std::vector<int64_t> found;
      for (int64_t i = 0; i < order.size(); ++i) found.push_back(order.at(i).index);
      worst.AddEqual(absl::StrCat(key, " rank ", rank_text),
                     found == expected.get<std::vector<int64_t>>());
    }
  }
  return worst.Result(name);
}

}  // namespace tessera::internal
