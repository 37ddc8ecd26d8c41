#include "train/picture.h"

#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <vector>

#include "core/check.h"

namespace tessera::train {

cv::Mat ToBgrSquare(const ImageView& photo, int side) {
  const cv::Mat rgb(static_cast<int>(photo.height), static_cast<int>(photo.width), CV_8UC3,
                    const_cast<uint8_t*>(photo.data), static_cast<size_t>(photo.stride));
  cv::Mat bgr;
  cv::cvtColor(rgb, bgr, cv::COLOR_RGB2BGR);
  cv::resize(bgr, bgr, {side, side}, 0, 0, photo.width < side ? cv::INTER_CUBIC : cv::INTER_AREA);
  return bgr;
}

std::string EncodePicture(const cv::Mat& bgr, const std::string& extension) {
  std::vector<uint8_t> bytes;
  CHECK(cv::imencode(extension, bgr, bytes)) << extension;
  return std::string(bytes.begin(), bytes.end());
}

}  // namespace tessera::train
