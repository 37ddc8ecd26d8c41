#include "core/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace tessera {
namespace {

using ::testing::HasSubstr;

std::string ErrorOf(absl::string_view text, const JsonLimits& limits = {}) {
  return std::string(ParseJson(text, "a.json", limits).status().message());
}

TEST(ParseJson, ReadsEveryKindOfValue) {
  const auto value = ParseJson(R"({"a": [1, -2, 2.5, "x", true, null, {}], "b": {"c": []}})", "x");
  ASSERT_TRUE(value.ok()) << value.status();
  EXPECT_EQ(value->dump(), R"({"a":[1,-2,2.5,"x",true,null,{}],"b":{"c":[]}})");
  EXPECT_EQ(ParseJson(" 7 ", "x")->get<int64_t>(), 7);
  EXPECT_EQ(ParseJson("18446744073709551615", "x")->get<uint64_t>(), ~uint64_t{0});
}

TEST(ParseJson, ErrorsNameLineAndColumn) {
  EXPECT_EQ(ErrorOf("{\"a\": 1,\n \"a\": 2}"), "a.json:2:4: key 'a' is given twice");
  EXPECT_THAT(ErrorOf("{\"a\":\n  tru}"), HasSubstr("a.json:2:6: not valid JSON near"));
  EXPECT_THAT(ErrorOf("[1, 2"), HasSubstr("a.json:1:5"));
  EXPECT_THAT(ErrorOf("[1] x"), HasSubstr("a.json:1:5: not valid JSON"));
  EXPECT_THAT(ErrorOf(""), HasSubstr("a.json:1:0"));
}

TEST(ParseJson, KeysRepeatedOnDifferentLevelsAreFine) {
  EXPECT_TRUE(ParseJson(R"({"a": {"a": [{"a": 1}, {"a": 2}]}})", "x").ok());
}

TEST(ParseJson, HostileTextEndsInAnErrorAndNotInACrash) {
  EXPECT_THAT(ErrorOf(std::string(1000000, '[')), HasSubstr("a.json:1:65: nested more than 64"));
  EXPECT_THAT(ErrorOf("[[1]]", {.max_depth = 1}), HasSubstr("nested more than 1 level"));
  EXPECT_THAT(ErrorOf("[1, 2, 3]", {.max_bytes = 8}), HasSubstr("9 bytes of JSON, at most 8"));
  for (const char* text : {"\"\xff\"", "1e999", "\"\\ud800\"", "{1: 2}", "[1,]", "nan", "\x01",
                           "/* a */ 1", "{\"a\"", "-", "\"a"}) {
    EXPECT_FALSE(ParseJson(text, "a.json").ok()) << text;
  }
  EXPECT_FALSE(ParseJson(absl::string_view("1\0", 2), "a.json").ok());
}

}  // namespace
}  // namespace tessera
