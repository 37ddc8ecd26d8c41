#include "tests/golden/data_cases.h"

#include <cstdlib>
#include <filesystem>

#include "tests/op_testing.h"

namespace tessera {
namespace {

std::string SharedFolder() {
  const char* from_environment = std::getenv("TESSERA_SHARED");
  return from_environment != nullptr ? from_environment
                                     : std::string(TESSERA_SOURCE_DIR) + "/../shared";
}

void ExpectAllOk(const std::vector<DataCaseResult>& results) {
  for (const DataCaseResult& r : results) {
    EXPECT_TRUE(r.ok || r.skipped) << r.name << ": " << r.worst << " of tolerance at " << r.where;
  }
}

class DataCases : public OnEveryTarget {};

TEST_P(DataCases, TheKeptReferenceValuesAreMatched) {
  const auto results = RunDataCases(std::string(TESSERA_SOURCE_DIR) + "/tests/golden/cases", "");
  EXPECT_GE(results.size(), 9u);
  ExpectAllOk(results);
}

TEST_P(DataCases, TransformsOfRealPicturesMatch) {
  const std::string shared = SharedFolder();
  if (!std::filesystem::exists(shared + "/golden/transforms.safetensors")) {
    GTEST_SKIP() << "no reference pictures at " << shared << "; set TESSERA_SHARED";
  }
  const auto results = RunDataCases(shared + "/golden", shared + "/data");
  int transforms = 0;
  for (const DataCaseResult& r : results) {
    transforms += r.name.rfind("transforms", 0) == 0 && r.ok && !r.skipped;
  }
  EXPECT_GE(transforms, 6);
  ExpectAllOk(results);
}

TEST(DataCaseChecks, AWrongValueIsNoticed) {
  const Json tables = {{"eval",
                        {{{"w", 500},
                          {"h", 375},
                          {"size", 224},
                          {"crop_pct", 0.875},
                          {"resized_w", 341},
                          {"resized_h", 256},
                          {"top", 16},
                          {"left", 59}}}}};
  const auto results = internal::RunTableCases("t", tables);
  ASSERT_EQ(results.size(), 1u);
  EXPECT_FALSE(results[0].ok);
}

INSTANTIATE_ON_EVERY_TARGET(DataCases);

}  // namespace
}  // namespace tessera
