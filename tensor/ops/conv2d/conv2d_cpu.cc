// oneDNN convolution and its input gradient, channels last, weights reordered to the layout that it
// prefers at each call: they change with every optimizer step and are small beside the images.
#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "tensor/onednn.h"
#include "tensor/ops/cast/cast.h"
#include "tensor/ops/conv2d/conv2d.h"

namespace tessera {
namespace {

using dnnl::memory;
using dnnl::prop_kind;
constexpr dnnl::algorithm kDirect = dnnl::algorithm::convolution_direct;

enum class Pass { kForward, kInput };

struct Key {
  std::array<int64_t, 13> numbers;
  Pass pass;
  DType in_dtype, out_dtype;

  friend bool operator==(const Key&, const Key&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const Key& key) {
    return H::combine(std::move(h), key.numbers, key.pass, key.in_dtype, key.out_dtype);
  }
};

Key KeyOf(const Conv2dArgs& a, Pass pass) {
  const Conv2dGeometry& g = a.geometry;
  return {{a.batch, a.in_height, a.in_width, a.in_channels, a.out_channels, a.kernel_height,
           a.kernel_width, g.stride, g.pad_top, g.pad_left, g.pad_bottom, g.pad_right,
           a.bias != nullptr},
          pass,
          a.in_dtype,
          a.out_dtype};
}

// One pass of one shape. Data pointers are set at each call.
class Convolution {
 public:
  Convolution(const Conv2dArgs& args, Pass pass);
  void Run(const Conv2dArgs& args);

 private:
  dnnl::primitive primitive_;
  dnnl::reorder reorder_;  // of weights to the primitive's layout
  Pass pass_;
  memory source_, weight_, plain_weight_, bias_, destination_, scratch_;
  std::vector<dnnl_exec_arg_t> arguments_, reorder_arguments_;
};

Convolution::Convolution(const Conv2dArgs& a, Pass pass) : pass_(pass) {
  const dnnl::engine& engine = OneDnnEngine();
  const auto any = memory::format_tag::any;
  const auto nhwc = memory::format_tag::nhwc;
  const memory::desc source({a.batch, a.in_channels, a.in_height, a.in_width},
                            OneDnnType(a.in_dtype), nhwc);
  const memory::desc destination({a.batch, a.out_channels, a.out_height, a.out_width},
                                 OneDnnType(a.out_dtype), nhwc);
  const memory::dims weight_dims = {a.out_channels, a.in_channels, a.kernel_height, a.kernel_width};
  // Products take operands of one type.
  const DType weight_dtype = pass == Pass::kInput ? a.out_dtype : a.in_dtype;
  const memory::desc weight(weight_dims, OneDnnType(weight_dtype), any);
  const memory::desc plain(weight_dims, memory::data_type::f32, memory::format_tag::oihw);
  const memory::desc bias({a.out_channels}, memory::data_type::f32, memory::format_tag::x);
  const memory::dims strides = {a.geometry.stride, a.geometry.stride};
  const memory::dims begin = {a.geometry.pad_top, a.geometry.pad_left};
  const memory::dims end = {a.geometry.pad_bottom, a.geometry.pad_right};
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);

  const dnnl::convolution_forward::desc forward_desc =
      a.bias != nullptr
          ? dnnl::convolution_forward::desc(prop_kind::forward_training, kDirect, source, weight,
                                            bias, destination, strides, begin, end)
          : dnnl::convolution_forward::desc(prop_kind::forward_training, kDirect, source, weight,
                                            destination, strides, begin, end);
  // The gradient's descriptor wants a forward one as a hint, all in the type of its operands.
  const auto hint = [&] {
    const auto operand = OneDnnType(a.out_dtype);
    return dnnl::convolution_forward::primitive_desc(
        {prop_kind::forward_training, kDirect, memory::desc(source.dims(), operand, nhwc),
         memory::desc(weight_dims, operand, any), memory::desc(destination.dims(), operand, nhwc),
         strides, begin, end},
        engine);
  };
  memory::desc blocked;
  memory::desc scratch;
  if (pass == Pass::kForward) {
    const dnnl::convolution_forward::primitive_desc desc(forward_desc, attributes, engine);
    primitive_ = dnnl::convolution_forward(desc);
    blocked = desc.weights_desc();
    scratch = desc.scratchpad_desc();
  } else {
    const dnnl::convolution_backward_data::primitive_desc desc(
        {kDirect, source, weight, destination, strides, begin, end}, attributes, engine, hint());
    primitive_ = dnnl::convolution_backward_data(desc);
    blocked = desc.weights_desc();
    scratch = desc.scratchpad_desc();
  }
  source_ = memory(source, engine, nullptr);
  weight_ = memory(blocked, engine, nullptr);
  plain_weight_ = memory(plain, engine, nullptr);
  bias_ = memory(bias, engine, nullptr);
  destination_ = memory(destination, engine, nullptr);
  scratch_ = memory(scratch, engine, nullptr);
  const bool backward = pass == Pass::kInput;
  arguments_ = {{backward ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, source_.get()},
                {DNNL_ARG_WEIGHTS, weight_.get()},
                {backward ? DNNL_ARG_DIFF_DST : DNNL_ARG_DST, destination_.get()},
                {DNNL_ARG_SCRATCHPAD, scratch_.get()}};
  if (a.bias != nullptr) arguments_.push_back({DNNL_ARG_BIAS, bias_.get()});
  reorder_arguments_ = {{DNNL_ARG_FROM, plain_weight_.get()}, {DNNL_ARG_TO, weight_.get()}};
  reorder_ = dnnl::reorder({engine, plain, engine, blocked});
}

void Convolution::Run(const Conv2dArgs& a) {
  const Tensor weight = OneDnnScratch(weight_.get_desc());
  const Tensor scratch = OneDnnScratch(scratch_.get_desc());
  weight_.set_data_handle(weight.raw());
  scratch_.set_data_handle(scratch.raw());
  source_.set_data_handle(pass_ == Pass::kInput ? a.dx : const_cast<void*>(a.x));
  destination_.set_data_handle(pass_ == Pass::kForward ? a.y : const_cast<void*>(a.dy));
  plain_weight_.set_data_handle(const_cast<float*>(a.weight));
  if (a.bias != nullptr) bias_.set_data_handle(const_cast<float*>(a.bias));
  OneDnnExecute(reorder_, reorder_arguments_);
  OneDnnExecute(primitive_, arguments_);
  OneDnnStream().wait();
}

void RunCached(const Conv2dArgs& args, Pass pass) {
  thread_local absl::flat_hash_map<Key, std::unique_ptr<Convolution>> convolutions;
  std::unique_ptr<Convolution>& convolution = convolutions[KeyOf(args, pass)];
  if (convolution == nullptr) convolution = std::make_unique<Convolution>(args, pass);
  convolution->Run(args);
}

// Without bf16 instructions the same pass runs in f32 on converted copies.
template <Pass pass>
void Conv2dCpu(const Conv2dArgs& args) {
  const bool bf16 = args.in_dtype == DType::kBF16 || args.out_dtype == DType::kBF16;
  if (!bf16 || OneDnnHasBf16()) return RunCached(args, pass);
  const int64_t in = args.batch * args.in_height * args.in_width * args.in_channels;
  const int64_t out = args.batch * args.out_height * args.out_width * args.out_channels;
  const Tensor source = Tensor::Empty({in}, DType::kF32);
  const Tensor destination = Tensor::Empty({out}, DType::kF32);
  const auto copy = [](const void* from, DType from_dtype, void* to, DType to_dtype, int64_t n) {
    if (from_dtype != to_dtype) {
      cast(Device::kCpu, CastArgs{from, to, n, from_dtype, to_dtype});
    } else {
      std::memcpy(to, from, n * SizeOf(from_dtype));
    }
  };
  Conv2dArgs f32 = args;
  f32.in_dtype = f32.out_dtype = DType::kF32;
  if (args.x != nullptr) copy(args.x, args.in_dtype, source.raw(), DType::kF32, in);
  if (args.dy != nullptr) copy(args.dy, args.out_dtype, destination.raw(), DType::kF32, out);
  f32.x = f32.dx = source.raw();
  f32.y = destination.raw();
  f32.dy = destination.raw();
  RunCached(f32, pass);
  if (pass == Pass::kForward) copy(f32.y, DType::kF32, args.y, args.out_dtype, out);
  if (pass == Pass::kInput) copy(f32.dx, DType::kF32, args.dx, args.in_dtype, in);
}

constexpr auto kForward = Conv2dCpu<Pass::kForward>;
constexpr auto kInput = Conv2dCpu<Pass::kInput>;
REGISTER_KERNEL(conv2d_forward, Device::kCpu, kForward);
REGISTER_KERNEL(conv2d_backward_input, Device::kCpu, kInput);

}  // namespace
}  // namespace tessera
