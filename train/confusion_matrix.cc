#include "train/confusion_matrix.h"

#include <algorithm>
#include <cmath>
#include <opencv2/imgproc.hpp>

#include "absl/strings/str_cat.h"
#include "core/check.h"
#include "train/picture.h"

namespace tessera::train {
namespace {

constexpr int kMaxPixels = 900;  // of the matrix, without names
constexpr int kMaxNamed = 25;    // classes
constexpr int kNameMargin = 150;
constexpr size_t kMaxNameLength = 18;
constexpr int kFont = cv::FONT_HERSHEY_SIMPLEX;
constexpr double kFontScale = 0.42;

// Shares of the rows; rows without samples are 0.
cv::Mat RowShares(const Evaluation& evaluation) {
  const int classes = static_cast<int>(evaluation.classes.size());
  cv::Mat shares = cv::Mat::zeros(classes, classes, CV_32F);
  for (const Prediction& p : evaluation.predictions) shares.at<float>(p.label, p.predicted) += 1;
  for (int c = 0; c < classes; ++c) {
    const auto samples = static_cast<double>(evaluation.classes[c].samples);
    if (samples > 0) shares.row(c) *= 1 / samples;
  }
  return shares;
}

// Square roots make few confusions visible.
cv::Mat Coloured(const cv::Mat& shares) {
  cv::Mat root, bytes, coloured;
  cv::sqrt(shares, root);
  root.convertTo(bytes, CV_8U, 255);
  cv::applyColorMap(bytes, coloured, cv::COLORMAP_VIRIDIS);
  return coloured;
}

void PutCentred(const std::string& text, cv::Point centre, const cv::Scalar& colour, cv::Mat* out) {
  int baseline = 0;
  const cv::Size size = cv::getTextSize(text, kFont, kFontScale, 1, &baseline);
  cv::putText(*out, text, centre + cv::Point(-size.width / 2, size.height / 2), kFont, kFontScale,
              colour, 1, cv::LINE_AA);
}

// Percentages in the cells, names of rows at the left and of columns, turned, at the top.
cv::Mat WithText(const cv::Mat& matrix, const cv::Mat& shares,
                 const std::vector<std::string>& class_names) {
  const int classes = shares.rows, cell = matrix.rows / classes;
  cv::Mat result(matrix.rows + kNameMargin, matrix.cols + kNameMargin, CV_8UC3,
                 cv::Scalar::all(255));
  cv::Mat columns(matrix.cols, kNameMargin, CV_8UC3, cv::Scalar::all(255));
  matrix.copyTo(result(cv::Rect(kNameMargin, kNameMargin, matrix.cols, matrix.rows)));
  const cv::Scalar black = cv::Scalar::all(0);
  for (int c = 0; c < classes; ++c) {
    const std::string name = static_cast<size_t>(c) < class_names.size()
                                 ? class_names[c].substr(0, kMaxNameLength)
                                 : absl::StrCat(c);
    const int middle = c * cell + cell / 2 + 4;
    cv::putText(result, name, {4, kNameMargin + middle}, kFont, kFontScale, black, 1, cv::LINE_AA);
    cv::putText(columns, name, {4, middle}, kFont, kFontScale, black, 1, cv::LINE_AA);
    for (int p = 0; p < classes; ++p) {
      const float share = shares.at<float>(c, p);
      const int percent = static_cast<int>(std::lround(100 * share));
      if (percent == 0) continue;
      PutCentred(absl::StrCat(percent),
                 {kNameMargin + p * cell + cell / 2, kNameMargin + c * cell + cell / 2},
                 cv::Scalar::all(share < 0.5f ? 255 : 0), &result);
    }
  }
  cv::rotate(columns, columns, cv::ROTATE_90_COUNTERCLOCKWISE);
  columns.copyTo(result(cv::Rect(kNameMargin, 0, columns.cols, columns.rows)));
  return result;
}

}  // namespace

std::string ConfusionMatrixPng(const Evaluation& evaluation,
                               const std::vector<std::string>& class_names) {
  CHECK(!evaluation.classes.empty());
  const cv::Mat shares = RowShares(evaluation);
  const int classes = shares.rows;
  cv::Mat matrix = Coloured(shares);
  if (classes <= kMaxPixels) {
    const int cell = kMaxPixels / classes;
    cv::resize(matrix, matrix, {}, cell, cell, cv::INTER_NEAREST);
  } else {
    cv::resize(matrix, matrix, {kMaxPixels, kMaxPixels}, 0, 0, cv::INTER_AREA);
  }
  if (classes <= kMaxNamed) matrix = WithText(matrix, shares, class_names);
  return EncodePicture(matrix, ".png");
}

}  // namespace tessera::train
