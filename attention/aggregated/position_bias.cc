#include "attention/aggregated/position_bias.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "attention/aggregated/log_cpb_kernel.h"
#include "autograd/ops/linear.h"
#include "autograd/tape.h"
#include "tensor/ops/describe.h"
#include "tensor/ops/matmul/matmul.h"

namespace tessera {

constinit KernelSlot<void(const LogCpbArgs&)> log_cpb_forward("log_cpb_forward");
constinit KernelSlot<void(const LogCpbGradArgs&)> log_cpb_backward("log_cpb_backward");

RelativeAxis MakeRelativeAxis(const PooledAxis& axis, int64_t reference) {
  CHECK(axis.size > 0 && axis.cells > 0 && reference > 1)
      << "position bias: " << axis.cells << " cells on " << axis.size << " positions, trained on "
      << reference;
  // Twice the centre of a cell is a whole number. Cells with an even one and with an odd one have a
  // run of coordinates each, in which a step of one position is a step of one place.
  const auto doubled_centre = [&](int64_t j) { return axis.Begin(j) + axis.End(j) - 1; };
  RelativeAxis result;
  result.first.resize(axis.cells);
  for (const int64_t parity : {0, 1}) {
    int64_t least = -1, most = -1;
    for (int64_t j = 0; j < axis.cells; ++j) {
      if (doubled_centre(j) % 2 != parity) continue;
      if (least < 0) least = doubled_centre(j);
      most = doubled_centre(j);
    }
    if (most < 0) continue;
    const int64_t run = static_cast<int64_t>(result.coordinates.size());
    for (int64_t j = 0; j < axis.cells; ++j) {
      if (doubled_centre(j) % 2 == parity) result.first[j] = run + (most - doubled_centre(j)) / 2;
    }
    for (int64_t i = 0; i < axis.size + (most - least) / 2; ++i) {
      const double distance = static_cast<double>(i) - 0.5 * static_cast<double>(most);
      const double scaled = 8.0 * distance / static_cast<double>(reference - 1);
      result.coordinates.push_back(
          static_cast<float>(std::copysign(std::log2(std::abs(scaled) + 1.0) / 3.0, scaled)));
    }
  }
  return result;
}

namespace {

LogCpbArgs ArgsOf(const Tensor& y, const Tensor& x, const LogCpbWeights& w) {
  CHECK(y.rank() == 1 && x.rank() == 1 && w.fc1.rank() == 2 && w.fc1.dim(1) == 2 &&
        w.fc1_bias.numel() == w.fc1.dim(0) && w.fc2.rank() == 2 && w.fc2.dim(1) == w.fc1.dim(0) &&
        w.fc2_bias.numel() == w.fc2.dim(0))
      << "log_cpb: y " << Describe(y) << ", x " << Describe(x) << ", fc1 " << Describe(w.fc1)
      << " and " << Describe(w.fc1_bias) << ", fc2 " << Describe(w.fc2) << " and "
      << Describe(w.fc2_bias);
  return {.y = y.data<float>(),
          .x = x.data<float>(),
          .fc1 = w.fc1.data<float>(),
          .fc1_bias = w.fc1_bias.data<float>(),
          .fc2 = w.fc2.data<float>(),
          .fc2_bias = w.fc2_bias.data<float>(),
          .m = y.numel(),
          .n = x.numel(),
          .hidden = w.fc1.dim(0),
          .num_heads = w.fc2.dim(0)};
}

void Backward(const LogCpbArgs& args, const GradContext& g) {
  const Tensor d_out = g.out();
  const std::array<Shape, 4> shapes = {Shape{args.hidden, 2}, Shape{args.hidden},
                                       Shape{args.num_heads, args.hidden}, Shape{args.num_heads}};
  std::array<Tensor, 4> grads;
  for (size_t i = 0; i < grads.size(); ++i) {
    grads[i] = Tensor::Empty(shapes[i], DType::kF32, d_out.device());
  }
  log_cpb_backward(d_out.device(), LogCpbGradArgs{.forward = args,
                                                  .d_out = d_out.data<float>(),
                                                  .d_fc1 = grads[0].data<float>(),
                                                  .d_fc1_bias = grads[1].data<float>(),
                                                  .d_fc2 = grads[2].data<float>(),
                                                  .d_fc2_bias = grads[3].data<float>()});
  for (int i = 0; i < 4; ++i) g.Add(i, grads[i]);
}

}  // namespace

Tensor LogCpb(const Tensor& y, const Tensor& x, const LogCpbWeights& weights) {
  LogCpbArgs args = ArgsOf(y, x, weights);
  Tensor out = Tensor::Empty({args.num_heads, args.m, args.n}, DType::kF32, y.device());
  args.out = out.data<float>();
  log_cpb_forward(y.device(), args);
  Record("log_cpb", {&weights.fc1, &weights.fc1_bias, &weights.fc2, &weights.fc2_bias}, {&out},
         [y, x, fc1 = weights.fc1.Detach(), fc1_bias = weights.fc1_bias.Detach(),
          fc2 = weights.fc2.Detach(), fc2_bias = weights.fc2_bias.Detach()](GradContext& g) {
           Backward(ArgsOf(y, x, {fc1, fc1_bias, fc2, fc2_bias}), g);
         });
  return out;
}

namespace {

Tensor CoordinatesOf(const RelativeAxis& axis, Device device) {
  const auto count = static_cast<int64_t>(axis.coordinates.size());
  return Tensor::From<float>({count}, axis.coordinates).To(device);
}

// Offsets of all cells of a grid, row by row, from those of its rows and columns.
Tensor KeyOffsets(const std::vector<int64_t>& rows, const std::vector<int64_t>& columns,
                  Device device) {
  const Tensor offsets =
      Tensor::Empty({static_cast<int64_t>(rows.size() * columns.size())}, DType::kI64);
  int64_t* to = offsets.data<int64_t>();
  for (const int64_t row : rows) {
    for (const int64_t column : columns) *to++ = row + column;
  }
  return offsets.To(device);
}

// Two pixels and their weights in the linear interpolation of `to` pixels from `from`, between
// their centres (torch.nn.functional.interpolate with align_corners=False).
struct Interpolation {
  Interpolation(int64_t i, int64_t from, int64_t to) {
    const double scale = static_cast<double>(from) / static_cast<double>(to);
    const double at = std::max(0.0, (static_cast<double>(i) + 0.5) * scale - 0.5);
    const int64_t low = std::min(static_cast<int64_t>(at), from - 1);
    pixels = {low, std::min(low + 1, from - 1)};
    weights = {1.0 - (at - static_cast<double>(low)), at - static_cast<double>(low)};
  }
  std::array<int64_t, 2> pixels;
  std::array<double, 2> weights;
};

// One axis of a resized bias as a matrix [cells * positions, coordinates]: row (j, y) holds the
// weights with which coordinates enter the bias of position y and cell j.
Tensor ResizeMatrix(const RelativeAxis& axis, const PooledAxis& from, const PooledAxis& to) {
  const int64_t columns = static_cast<int64_t>(axis.coordinates.size());
  Tensor matrix = Tensor::Zeros({to.cells * to.size, columns}, DType::kF32);
  for (int64_t j = 0; j < to.cells; ++j) {
    const Interpolation cell(j, from.cells, to.cells);
    for (int64_t y = 0; y < to.size; ++y) {
      const Interpolation position(y, from.size, to.size);
      float* row = matrix.data<float>() + (j * to.size + y) * columns;
      for (const int a : {0, 1}) {
        for (const int b : {0, 1}) {
          row[axis.first[cell.pixels[a]] + position.pixels[b]] +=
              static_cast<float>(cell.weights[a] * position.weights[b]);
        }
      }
    }
  }
  return matrix;
}

void Multiply(const Tensor& left, bool transposed, const Tensor& x, const Tensor& y) {
  const int64_t n = x.dim(2);
  for (int64_t head = 0; head < x.dim(0); ++head) {
    matmul(x.device(), MatMulArgs{.a = left.raw(),
                                  .b = x.data<float>() + head * x.dim(1) * n,
                                  .bias = nullptr,
                                  .c = y.data<float>() + head * y.dim(1) * n,
                                  .m = y.dim(1),
                                  .n = n,
                                  .k = x.dim(1),
                                  .transpose_a = transposed,
                                  .transpose_b = false,
                                  .accumulate = false,
                                  .in_dtype = DType::kF32,
                                  .out_dtype = DType::kF32});
  }
}

// left x of every head: left [m, k] constant, x [num_heads, k, n] -> [num_heads, m, n].
Tensor LeftProduct(const Tensor& left, const Tensor& x) {
  Tensor y = Tensor::Empty({x.dim(0), left.dim(0), x.dim(2)}, DType::kF32, x.device());
  Multiply(left, /*transposed=*/false, x, y);
  Record("left_product", {&x}, {&y}, [left, shape = x.shape()](GradContext& g) {
    const Tensor dy = g.out();
    const Tensor dx = Tensor::Empty(shape, DType::kF32, dy.device());
    Multiply(left, /*transposed=*/true, dy, dx);
    g.Add(0, dx);
  });
  return y;
}

}  // namespace

PositionBiasTables MakePositionBiasTables(const GridSize& map, const GridSize& pooled,
                                          const GridSize& reference, Device device) {
  const RelativeAxis y = MakeRelativeAxis({map.height, pooled.height}, reference.height);
  const RelativeAxis x = MakeRelativeAxis({map.width, pooled.width}, reference.width);
  const auto row_stride = static_cast<int64_t>(x.coordinates.size());
  std::vector<int64_t> rows = y.first;
  for (int64_t& row : rows) row *= row_stride;
  return {.y = CoordinatesOf(y, device),
          .x = CoordinatesOf(x, device),
          .key_offsets = KeyOffsets(rows, x.first, device),
          .row_stride = row_stride};
}

PositionBiasTables MakeResizedPositionBiasTables(const GridSize& from_map,
                                                 const GridSize& from_pooled, const GridSize& map,
                                                 const GridSize& pooled, const GridSize& reference,
                                                 Device device) {
  const PooledAxis from_rows = {from_map.height, from_pooled.height};
  const PooledAxis from_columns = {from_map.width, from_pooled.width};
  const RelativeAxis y = MakeRelativeAxis(from_rows, reference.height);
  const RelativeAxis x = MakeRelativeAxis(from_columns, reference.width);
  const Tensor resize_rows = ResizeMatrix(y, from_rows, {map.height, pooled.height});
  const Tensor resize_columns = ResizeMatrix(x, from_columns, {map.width, pooled.width});
  const int64_t row_stride = resize_columns.dim(0);
  std::vector<int64_t> rows(pooled.height), columns(pooled.width);
  for (int64_t i = 0; i < pooled.height; ++i) rows[i] = i * map.height * row_stride;
  for (int64_t j = 0; j < pooled.width; ++j) columns[j] = j * map.width;
  return {.y = CoordinatesOf(y, device),
          .x = CoordinatesOf(x, device),
          .resize_rows = resize_rows.To(device),
          .resize_columns = resize_columns.To(device),
          .key_offsets = KeyOffsets(rows, columns, device),
          .row_stride = row_stride};
}

PositionBias MakePositionBias(const PositionBiasTables& tables, const LogCpbWeights& weights) {
  Tensor values = LogCpb(tables.y, tables.x, weights);
  if (tables.resize_rows.defined()) {
    // The interpolation is a product with a matrix per axis: [(row cell, y), (column cell, x)].
    values = LeftProduct(tables.resize_rows,
                         Linear(values, tables.resize_columns, Tensor(), DType::kF32));
  }
  return {.values = values, .key_offsets = tables.key_offsets, .row_stride = tables.row_stride};
}

}  // namespace tessera
