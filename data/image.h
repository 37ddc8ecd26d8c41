// 8-bit RGB pictures in memory: Image owns its pixels, ImageView looks at a rectangle of someone
// else's.
//
// Pixels are height x width x 3 bytes, red first, rows without gaps in an Image. Every Image has
// kImagePadding readable and writable bytes after its last row, and a view must lie within such
// memory, so that SIMD loops may load and store a whole vector at the end of a row.
#ifndef TESSERA_DATA_IMAGE_H_
#define TESSERA_DATA_IMAGE_H_

#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

#include "core/check.h"

namespace tessera {

inline constexpr int64_t kImagePadding = 64;  // bytes

// A rectangle of pixels: rows [top, top + height), columns [left, left + width).
struct Rect {
  int64_t top = 0;
  int64_t left = 0;
  int64_t height = 0;
  int64_t width = 0;

  friend bool operator==(const Rect&, const Rect&) = default;
};

struct ImageView {
  const uint8_t* data = nullptr;
  int64_t height = 0;
  int64_t width = 0;
  int64_t stride = 0;  // bytes from one row to the next

  const uint8_t* row(int64_t y) const { return data + y * stride; }
  ImageView Crop(const Rect& r) const {
    CHECK(r.top >= 0 && r.left >= 0 && r.top + r.height <= height && r.left + r.width <= width)
        << "crop of " << r.height << "x" << r.width << " at (" << r.top << ", " << r.left
        << ") in an image of " << height << "x" << width;
    return {data + r.top * stride + r.left * 3, r.height, r.width, stride};
  }
};

class Image {
 public:
  Image() = default;  // 0 x 0
  // Uninitialised pixels; the padding is zero.
  Image(int64_t height, int64_t width) : height_(height), width_(width) {
    CHECK(height >= 0 && width >= 0) << "image of " << height << "x" << width;
    pixels_.reset(new uint8_t[bytes() + kImagePadding]);
    std::memset(pixels_.get() + bytes(), 0, kImagePadding);
  }
  static Image Copy(const ImageView& view) {
    Image image(view.height, view.width);
    for (int64_t y = 0; y < view.height; ++y) {
      std::memcpy(image.row(y), view.row(y), view.width * 3);
    }
    return image;
  }
  Image(Image&& other) noexcept { *this = std::move(other); }
  Image& operator=(Image&& other) noexcept {
    height_ = std::exchange(other.height_, 0);
    width_ = std::exchange(other.width_, 0);
    pixels_ = std::move(other.pixels_);
    return *this;
  }

  int64_t height() const { return height_; }
  int64_t width() const { return width_; }
  int64_t bytes() const { return height_ * width_ * 3; }  // without the padding
  bool empty() const { return bytes() == 0; }
  uint8_t* data() { return pixels_.get(); }
  const uint8_t* data() const { return pixels_.get(); }
  uint8_t* row(int64_t y) { return pixels_.get() + y * width_ * 3; }
  const uint8_t* row(int64_t y) const { return pixels_.get() + y * width_ * 3; }
  ImageView view() const { return {pixels_.get(), height_, width_, width_ * 3}; }
  operator ImageView() const { return view(); }  // NOLINT: an Image serves wherever a view does

 private:
  std::unique_ptr<uint8_t[]> pixels_;
  int64_t height_ = 0;
  int64_t width_ = 0;
};

}  // namespace tessera

#endif  // TESSERA_DATA_IMAGE_H_
