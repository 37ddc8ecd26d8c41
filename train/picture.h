// Pictures for people, drawn with OpenCV.
#ifndef TESSERA_TRAIN_PICTURE_H_
#define TESSERA_TRAIN_PICTURE_H_

#include <opencv2/core.hpp>
#include <string>

#include "data/image.h"

namespace tessera::train {

// A copy as OpenCV wants it, blue first, resized to a square of this side.
cv::Mat ToBgrSquare(const ImageView& photo, int side);

// The bytes of a picture file: `extension` is ".png" or ".jpg".
std::string EncodePicture(const cv::Mat& bgr, const std::string& extension);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_PICTURE_H_
