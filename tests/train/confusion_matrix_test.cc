#include "train/confusion_matrix.h"

#include <gtest/gtest.h>

#include <opencv2/imgcodecs.hpp>

namespace tessera::train {
namespace {

Evaluation WithClasses(int classes) {
  Evaluation evaluation;
  evaluation.classes.resize(classes);
  return evaluation;
}

void Add(int label, int predicted, Evaluation* evaluation) {
  evaluation->predictions.push_back({label, predicted, 1.0f});
  ++evaluation->classes[label].samples;
}

cv::Mat Drawn(const Evaluation& evaluation, const std::vector<std::string>& names) {
  const std::string png = ConfusionMatrixPng(evaluation, names);
  const std::vector<uint8_t> bytes(png.begin(), png.end());
  return cv::imdecode(bytes, cv::IMREAD_COLOR);
}

// Viridis ends in yellow: bright where the share is large.
int Brightness(const cv::Mat& picture, int x, int y) {
  const cv::Vec3b pixel = picture.at<cv::Vec3b>(y, x);
  return pixel[1] + pixel[2];
}

TEST(ConfusionMatrix, RowsAreLabelsAndColumnsPredictions) {
  Evaluation evaluation = WithClasses(30);
  for (int c = 0; c < 30; ++c) Add(c, c == 3 ? 20 : c, &evaluation);
  const cv::Mat picture = Drawn(evaluation, {});
  ASSERT_EQ(picture.size(), cv::Size(900, 900));
  const auto at = [&](int row, int column) {
    return Brightness(picture, column * 30 + 15, row * 30 + 15);
  };
  EXPECT_GT(at(0, 0), 400);
  EXPECT_GT(at(3, 20), 400);
  EXPECT_LT(at(3, 3), 150);
  EXPECT_LT(at(20, 3), 150);
}

TEST(ConfusionMatrix, FewClassesAreNamed) {
  Evaluation evaluation = WithClasses(3);
  Add(0, 0, &evaluation);
  Add(1, 2, &evaluation);
  const cv::Mat picture = Drawn(evaluation, {"ant", "bee with a very long name", "cat"});
  EXPECT_EQ(picture.size(), cv::Size(1050, 1050));
  // There is ink in the margins at the left and at the top.
  double least = 255;
  cv::minMaxLoc(picture(cv::Rect(0, 150, 150, 900)).reshape(1), &least);
  EXPECT_LT(least, 100);
  cv::minMaxLoc(picture(cv::Rect(150, 0, 900, 150)).reshape(1), &least);
  EXPECT_LT(least, 100);
}

TEST(ConfusionMatrix, ManyClassesFitThePicture) {
  for (const int classes : {1, 899, 901, 2000}) {
    Evaluation evaluation = WithClasses(classes);
    Add(classes - 1, 0, &evaluation);
    const cv::Mat picture = Drawn(evaluation, {});
    EXPECT_LE(picture.rows, 1050) << classes;
    EXPECT_GE(picture.rows, 450) << classes;
  }
}

}  // namespace
}  // namespace tessera::train
