#include "train/attention_picture.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <opencv2/imgcodecs.hpp>

namespace tessera::train {
namespace {

TEST(AttentionPicture, IsBrightWhereTheMapIsLarge) {
  Image photo(30, 40);
  std::fill_n(photo.data(), photo.bytes(), uint8_t{128});
  const Tensor map = Tensor::Zeros({1, 2, 2}, DType::kF32);
  map.data<float>()[1] = 4.0f;
  const std::vector<NamedMap> maps(7, {"stages.0.attn", map});
  const std::string png = AttentionPicture(photo, maps, ".png");
  const std::vector<uint8_t> bytes(png.begin(), png.end());
  const cv::Mat picture = cv::imdecode(bytes, cv::IMREAD_COLOR);
  // Eight tiles of 180 pixels under names of 18, six in a row.
  ASSERT_EQ(picture.size(), cv::Size(6 * 180, 2 * 198));
  const auto sum = [&](int x, int y) {
    const cv::Vec3b pixel = picture.at<cv::Vec3b>(y, x);
    return pixel[0] + pixel[1] + pixel[2];
  };
  EXPECT_EQ(sum(90, 100), 3 * 128);          // the photo
  EXPECT_GT(sum(180 + 135, 18 + 45), 450);   // top right of the first map
  EXPECT_LT(sum(180 + 45, 18 + 45), 200);    // top left
  EXPECT_LT(sum(180 + 135, 18 + 135), 200);  // bottom right
}

}  // namespace
}  // namespace tessera::train
