#include "models/weight_names.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

const std::vector<NameRule> kRules = {{"embed.0", "stem"},
                                      {"embed.#", "stages.#.down"},
                                      {"blocks.#.#.conv", "stages.#.#.dw"},
                                      {"head.weight", "head.fc.weight"},
                                      {"text", ""}};

std::string Renamed(absl::string_view name) {
  return RenameWeight(name, kRules).value_or("left out");
}

TEST(WeightNames, FollowTheFirstRuleThatFits) {
  EXPECT_EQ(Renamed("embed.0.weight"), "stem.weight");
  EXPECT_EQ(Renamed("embed.2.proj.bias"), "stages.2.down.proj.bias");
  EXPECT_EQ(Renamed("blocks.1.x.conv"), "stages.1.x.dw");
  EXPECT_EQ(Renamed("text.layers.0"), "left out");
}

TEST(WeightNames, StayWhereNoRuleFits) {
  EXPECT_EQ(Renamed("embedding.0"), "embedding.0");
  EXPECT_EQ(Renamed("embed"), "embed");
  EXPECT_EQ(Renamed("blocks.1.conv"), "blocks.1.conv");
  EXPECT_EQ(Renamed("head.fc.weight"), "head.fc.weight");
  EXPECT_EQ(Renamed("x.text"), "x.text");
  EXPECT_EQ(Renamed(""), "");
}

}  // namespace
}  // namespace tessera
