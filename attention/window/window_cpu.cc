// Window attention on the CPU: one task per window and head; windows are found by addressing, never
// copied together.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention/window/window_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "attention/tile-inl.h"
#include "attention/window/window_kernel.h"
#include "core/parallel.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/partial_sums.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

// Windows are numbered (image, row, column), the order in which tasks visit them.
struct Window {
  Window(const WindowAttentionShape& shape, int64_t index)
      : image(index / (shape.window_columns() * shape.window_rows())),
        row(index / shape.window_columns() % shape.window_rows()),
        column(index % shape.window_columns()),
        height(std::min(shape.window, shape.height - row * shape.window)),
        width(std::min(shape.window, shape.width - column * shape.window)),
        first_token((image * shape.height + row * shape.window) * shape.width +
                    column * shape.window) {}
  int64_t image, row, column;
  int64_t height, width;  // of the part inside the map
  int64_t first_token;    // top left
};

// Distances of a window's tokens from its first one, row by row, so that a window cut off at the
// bottom has a prefix of the list: one list for whole windows, one for those cut off at the right.
class TokenOffsets {
 public:
  explicit TokenOffsets(const WindowAttentionShape& shape)
      : shape_(shape), offsets_(Tensor::Empty({2, shape.window * shape.window}, DType::kI64)) {
    const int64_t cut_width = shape.width - (shape.window_columns() - 1) * shape.window;
    Fill(shape.window, offsets_.data<int64_t>());
    Fill(cut_width, offsets_.data<int64_t>() + shape.window * shape.window);
  }
  const int64_t* Of(const Window& window) const {
    const bool cut = window.width < shape_.window;
    return offsets_.data<int64_t>() + (cut ? shape_.window * shape_.window : 0);
  }

 private:
  void Fill(int64_t width, int64_t* offsets) const {
    for (int64_t y = 0; y < shape_.window; ++y) {
      for (int64_t x = 0; x < width; ++x) *offsets++ = y * shape_.width + x;
    }
  }
  const WindowAttentionShape& shape_;
  Tensor offsets_;
};

template <typename T>
TileInput<T> Tile(const WindowAttentionShape& shape, const TokenOffsets& offsets,
                  const Window& window, int64_t head, const void* qkv, const float* qkv_bias) {
  const int64_t channels = shape.channels();
  const int64_t channel = head * shape.head_dim;
  const T* q = static_cast<const T*>(qkv) + window.first_token * 3 * channels + channel;
  const int64_t num_tokens = window.height * window.width;
  return {.tokens = offsets.Of(window),
          .num_tokens = num_tokens,
          .head_dim = shape.head_dim,
          .q = q,
          .k = q + channels,
          .v = q + 2 * channels,
          .stride = 3 * channels,
          .out_offset = window.first_token * channels + channel,
          .out_stride = channels,
          .scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim)),
          .constant_count = shape.window * shape.window - num_tokens,
          .constant_k = qkv_bias == nullptr ? nullptr : qkv_bias + channels + channel,
          .constant_v = qkv_bias == nullptr ? nullptr : qkv_bias + 2 * channels + channel};
}

// Calls fn(window, head, tile) for all windows and heads. Heads of a window follow each other, as
// in memory.
template <typename T, typename Fn>
void ForEachTile(const WindowAttentionShape& shape, const void* qkv, const float* qkv_bias,
                 const Fn& fn) {
  const int64_t num_heads = shape.num_heads;
  const int64_t tiles = shape.batch * shape.window_rows() * shape.window_columns() * num_heads;
  const int64_t grain = std::clamp<int64_t>(tiles / 64, 1, 64);
  const TokenOffsets offsets(shape);
  ParallelFor(tiles, grain, [&](int64_t begin, int64_t end) HWY_ATTR {
    const auto tile_at = [&](int64_t i) {
      return Tile<T>(shape, offsets, Window(shape, i / num_heads), i % num_heads, qkv, qkv_bias);
    };
    TileInput<T> tile = tile_at(begin);
    for (int64_t i = begin; i < end; ++i) {
      const TileInput<T> next = tile_at(std::min(i + 1, end - 1));
      tile.next = &next;
      fn(Window(shape, i / num_heads), i % num_heads, tile);
      tile = next;
    }
  });
}

template <typename T>
void Forward(const WindowAttentionArgs& args) {
  ForEachTile<T>(args.shape, args.qkv, args.qkv_bias,
                 [&](const Window&, int64_t, const TileInput<T>& tile)
                     HWY_ATTR { TileForward(tile, static_cast<T*>(args.out)); });
}

// Gradients of the padded keys and values: one row [2C] for every window that is cut off, which lie
// in the last column or row of windows. Added up in the order of the windows.
class PaddingGradients {
 public:
  explicit PaddingGradients(const WindowAttentionShape& shape)
      : shape_(shape),
        right_(shape.width % shape.window != 0),
        bottom_(shape.height % shape.window != 0),
        per_image_((right_ ? shape.window_rows() : 0) + (bottom_ ? shape.window_columns() : 0)),
        sums_(shape.batch * per_image_, 2 * shape.channels()) {}

  // The row of a window, k then v; null if it lies inside the map.
  float* Row(const Window& window) const {
    if (right_ && window.column == shape_.window_columns() - 1) {
      return sums_.chunk(window.image * per_image_ + window.row);
    }
    if (bottom_ && window.row == shape_.window_rows() - 1) {
      const int64_t first = right_ ? shape_.window_rows() : 0;
      return sums_.chunk(window.image * per_image_ + first + window.column);
    }
    return nullptr;
  }

  // d_bias [3C]; queries of padded positions have no part in any output.
  void AddUpTo(float* d_bias) const {
    const int64_t channels = shape_.channels();
    std::fill_n(d_bias, channels, 0.0f);
    sums_.AddUp(0, 2 * channels, d_bias + channels, /*accumulate=*/false);
  }

 private:
  const WindowAttentionShape& shape_;
  bool right_, bottom_;
  int64_t per_image_;
  PartialSums sums_;
};

template <typename T>
void Backward(const WindowAttentionGradArgs& args) {
  const WindowAttentionShape& shape = args.shape;
  const int64_t channels = shape.channels();
  const PaddingGradients padding(shape);
  ForEachTile<T>(shape, args.qkv, args.qkv_bias,
                 [&](const Window& window, int64_t head, const TileInput<T>& tile) HWY_ATTR {
                   T* dq = static_cast<T*>(args.d_qkv) + (tile.q - static_cast<const T*>(args.qkv));
                   TileGradient<T> grad = {.d_out = static_cast<const T*>(args.d_out),
                                           .dq = dq,
                                           .dk = dq + channels,
                                           .dv = dq + 2 * channels};
                   if (float* row = padding.Row(window); row != nullptr) {
                     grad.d_constant_k = row + head * shape.head_dim;
                     grad.d_constant_v = row + channels + head * shape.head_dim;
                   }
                   TileBackward(tile, grad);
                 });
  if (args.d_padding_bias != nullptr) padding.AddUpTo(args.d_padding_bias);
}

}  // namespace

void WindowForward(const WindowAttentionArgs& args) {
  WithFloatType(args.dtype, [&](auto t) { Forward<decltype(t)>(args); });
}

void WindowBackward(const WindowAttentionGradArgs& args) {
  WithFloatType(args.dtype, [&](auto t) { Backward<decltype(t)>(args); });
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(WindowForward);
HWY_EXPORT(WindowBackward);

void WindowForwardCpu(const WindowAttentionArgs& args) {
  HWY_DYNAMIC_DISPATCH(WindowForward)(args);
}
void WindowBackwardCpu(const WindowAttentionGradArgs& args) {
  HWY_DYNAMIC_DISPATCH(WindowBackward)(args);
}

REGISTER_KERNEL(window_attention_forward, Device::kCpu, WindowForwardCpu);
REGISTER_KERNEL(window_attention_backward, Device::kCpu, WindowBackwardCpu);

}  // namespace
}  // namespace tessera
#endif  // HWY_ONCE
