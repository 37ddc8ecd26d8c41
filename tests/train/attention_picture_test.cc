#include "train/attention_picture.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <opencv2/imgcodecs.hpp>
#include <set>

#include "tests/models/onnx_testing.h"
#include "tests/tensor_testing.h"

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

// Models of every family.
TEST(AttentionMaps, ShowEveryAttentionOfAModel) {
  for (const OnnxCase& c : OnnxCases()) {
    SCOPED_TRACE(c.name + c.options);
    const OnnxSubject subject(c);
    std::set<std::string> expected, found;
    subject.model->VisitParameters([&](const std::string& name, Parameter&) {
      const size_t at = name.find(".attn.");
      if (at != std::string::npos) expected.insert(name.substr(0, at + 5));
    });
    const Tensor image =
        RandomTensor({1, c.height, c.width, subject.model->in_chans()}, DType::kF32, 3);
    for (const auto& [name, map] : AttentionMaps(*subject.model, image, DType::kF32)) {
      EXPECT_TRUE(found.insert(name).second) << name;
      ASSERT_TRUE(map.rank() == 3 && map.dim(0) == 1) << name << " of " << map.shape();
      const auto [least, most] =
          std::minmax_element(map.data<float>(), map.data<float>() + map.numel());
      EXPECT_GE(*least, 0.0f) << name;
      EXPECT_GT(*most, *least) << name;
      const std::vector<double> values = ToDouble(map);
      EXPECT_NEAR(std::accumulate(values.begin(), values.end(), 0.0) / map.numel(), 1, 1e-4);
    }
    EXPECT_EQ(found, expected);
  }
}

}  // namespace
}  // namespace tessera::train
