// Where the windows of a convolution lie on a map, dense or depthwise.
#ifndef TESSERA_TENSOR_OPS_CONV2D_CONV2D_GEOMETRY_H_
#define TESSERA_TENSOR_OPS_CONV2D_CONV2D_GEOMETRY_H_

#include <cstdint>

namespace tessera {

// Zero padding may differ between the two ends of an axis: an image whose size is not a multiple of
// the stride is padded at the right and bottom without a copy.
struct Conv2dGeometry {
  int64_t stride = 1;
  int64_t pad_top = 0;
  int64_t pad_left = 0;
  int64_t pad_bottom = 0;
  int64_t pad_right = 0;

  // Padding by half of an odd kernel on every side: with stride 1 the map keeps its size.
  static constexpr Conv2dGeometry Centred(int64_t kernel_size, int64_t stride = 1) {
    const int64_t pad = kernel_size / 2;
    return {stride, pad, pad, pad, pad};
  }

  // TensorFlow's padding: the map becomes ceil(size / stride), and of an odd padding the larger
  // half is at the bottom and right.
  static constexpr Conv2dGeometry Same(int64_t height, int64_t width, int64_t kernel_size,
                                       int64_t stride) {
    const auto total = [&](int64_t size) {
      const int64_t needed = ((size + stride - 1) / stride - 1) * stride + kernel_size;
      return needed > size ? needed - size : 0;
    };
    const int64_t down = total(height), across = total(width);
    return {stride, down / 2, across / 2, down - down / 2, across - across / 2};
  }

  int64_t OutHeight(int64_t height, int64_t kernel_height) const {
    return (height + pad_top + pad_bottom - kernel_height) / stride + 1;
  }
  int64_t OutWidth(int64_t width, int64_t kernel_width) const {
    return (width + pad_left + pad_right - kernel_width) / stride + 1;
  }

  friend bool operator==(const Conv2dGeometry&, const Conv2dGeometry&) = default;
};

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_CONV2D_CONV2D_GEOMETRY_H_
