#include "train/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tessera::train {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

Evaluation TwoClasses() {
  Evaluation e;
  e.classes = {{.samples = 2, .top1 = 1, .top5 = 2, .predicted = 1},
               {.samples = 1, .predicted = 2}};
  e.predictions = {{0, 0, 0.9f}, {0, 1, 0.6f}, {1, 0, 0.7f}};
  e.samples = 3;
  return e;
}

TEST(Report, ShowsEverythingInOneFile) {
  const Evaluation evaluation = TwoClasses();
  ReportContents contents;
  contents.title = "m on <data>";
  contents.config = "model: {name: \"m\"}";
  contents.metrics =
      "{\"step\":1,\"train/loss\":2.5,\"train/lr\":0.1}\n{\"step\":2,\"train/loss\":null}\n"
      "{\"step\":3,\"train/loss\":1.5,\"val/top1\":50}\nhalf a li";
  contents.evaluation = &evaluation;
  contents.class_names = {"ant & bee", "cat"};
  contents.samples = {
      {"a.jpg", "cat", "jpeg bytes", {{"cat", 80}, {"ant & bee", 20}}, "map bytes"}};
  const std::string html = ReportHtml(contents);
  EXPECT_THAT(html, AllOf(HasSubstr("<title>m on &lt;data&gt;</title>"), HasSubstr("33.33 %"),
                          HasSubstr("ant &amp; bee"), HasSubstr("80.0 % cat"),
                          HasSubstr("model: {name: &quot;m&quot;}"),
                          HasSubstr("data:image/jpeg;base64,anBlZyBieXRlcw=="),
                          HasSubstr("data:image/png;base64,"), HasSubstr("Where attention looks")));
  // The worst class is the first.
  EXPECT_LT(html.find("<td>cat</td>"), html.find("<td>ant &amp; bee</td>"));
  // Nothing is fetched from elsewhere.
  EXPECT_THAT(html, Not(HasSubstr("http")));
  EXPECT_THAT(html, Not(HasSubstr("<script")));
}

TEST(Report, IsThereBeforeTheFirstEvaluation) {
  const std::string html = ReportHtml({.title = "t", .config = "c"});
  EXPECT_THAT(html, AllOf(HasSubstr("no values yet"), HasSubstr("<pre>c</pre>"),
                          Not(HasSubstr("Confusion")), Not(HasSubstr("<img"))));
}

}  // namespace
}  // namespace tessera::train
