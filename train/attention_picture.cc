#include "train/attention_picture.h"

#include <algorithm>
#include <cmath>
#include <opencv2/imgproc.hpp>

#include "train/picture.h"

namespace tessera::train {
namespace {

constexpr int kTile = 180;  // pixels
constexpr int kLabel = 18;  // height of a tile's name
constexpr int kColumns = 6;
constexpr float kBrightest = 4.0f;  // times the mean

// The photo's brightness under the map's colours. The square root shows differences below the mean.
cv::Mat Overlay(const cv::Mat& photo, const Tensor& map) {
  const cv::Mat values(static_cast<int>(map.dim(1)), static_cast<int>(map.dim(2)), CV_32F,
                       map.data<float>());
  cv::Mat level, colours, result;
  cv::sqrt(cv::min(values / kBrightest, 1.0), level);
  level.convertTo(level, CV_8U, 255);
  cv::resize(level, level, photo.size(), 0, 0, cv::INTER_NEAREST);
  cv::applyColorMap(level, colours, cv::COLORMAP_INFERNO);
  cv::addWeighted(photo, 0.4, colours, 0.6, 0, result);
  return result;
}

}  // namespace

std::vector<NamedMap> AttentionMaps(const ImageModel& model, const Tensor& image,
                                    DType compute_dtype) {
  std::vector<NamedMap> maps;
  ForwardContext context;
  context.compute_dtype = compute_dtype;
  context.attention_tap = [&](absl::string_view name, const Tensor& map) {
    maps.emplace_back(std::string(name), map);
  };
  model.Forward(image, context);
  return maps;
}

std::string AttentionPicture(const ImageView& photo, const std::vector<NamedMap>& maps,
                             const std::string& extension) {
  const cv::Mat bgr = ToBgrSquare(photo, kTile);
  const int tiles = static_cast<int>(maps.size()) + 1;
  const int columns = std::min(tiles, kColumns), rows = (tiles + columns - 1) / columns;
  cv::Mat sheet(rows * (kTile + kLabel), columns * kTile, CV_8UC3, cv::Scalar::all(255));
  for (int i = 0; i < tiles; ++i) {
    const cv::Point corner(i % columns * kTile, i / columns * (kTile + kLabel));
    const std::string name = i == 0 ? "photo" : maps[i - 1].first;
    (i == 0 ? bgr : Overlay(bgr, maps[i - 1].second))
        .copyTo(sheet(cv::Rect(corner.x, corner.y + kLabel, kTile, kTile)));
    cv::putText(sheet, name, corner + cv::Point(2, kLabel - 6), cv::FONT_HERSHEY_SIMPLEX, 0.32,
                cv::Scalar::all(0), 1, cv::LINE_AA);
  }
  return EncodePicture(sheet, extension);
}

}  // namespace tessera::train
