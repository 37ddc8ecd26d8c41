#include "attention/channel/channel.h"

#include "attention/channel/channel_ref.h"
#include "tests/op_testing.h"

namespace tessera {
namespace {

constexpr ChannelAttentionVersion kVersions[] = {ChannelAttentionVersion::kKeysTimesValues,
                                                 ChannelAttentionVersion::kQueriesTimesKeys};

class ChannelAttentionOp : public OnEveryTarget {};

// Over a whole map of correlated channels the logits have a standard deviation of 80, and the
// softmax is nearly one-hot: what is lost in the sums decides which channel wins.
TEST_P(ChannelAttentionOp, LargeLogitsKeepTheirPrecision) {
  for (const ChannelAttentionVersion version : kVersions) {
    const ChannelAttentionShape shape = {
        .batch = 1, .tokens = 3136, .num_heads = 1, .head_dim = 32, .version = version};
    const double scale = version == ChannelAttentionVersion::kKeysTimesValues ? 4.9 : 15.5;
    const Tensor qkv = RandomTensor({1, shape.tokens, 96}, DType::kBF16, 5, -scale, scale);
    const Tensor qkv_f32 = Tensor::Empty(qkv.shape(), DType::kF32);
    for (int64_t i = 0; i < qkv.numel(); ++i) Set(qkv_f32, i, At(qkv, i));
    std::vector<double> expected(shape.tokens * 32);
    ChannelAttentionRef(shape, ToDouble(qkv).data(), expected.data());
    ExpectClose(ChannelAttention(qkv_f32, 1, version, DType::kF32), expected, 3e-4);
    // Probabilities may be rounded to bf16, logits may not.
    ExpectClose(ChannelAttention(qkv, 1, version, DType::kBF16), expected, 0x1p-9 * scale);
  }
}

INSTANTIATE_ON_EVERY_TARGET(ChannelAttentionOp);

TEST(ChannelAttentionModule, NamesItsParametersAndTakesMapsAsTokens) {
  attention::ChannelAttention module(6, 2, true, kVersions[0]);
  const ParameterStore store(module, 1, true);
  std::vector<std::string> names;
  for (const auto& entry : store.entries()) names.push_back(entry.name);
  EXPECT_EQ(names,
            (std::vector<std::string>{"qkv.weight", "qkv.bias", "proj.weight", "proj.bias"}));
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Tensor x = RandomTensor({2, 3, 5, 6}, dtype, 3);
    const Tensor map = module.Forward(x, DType::kF32);
    const Tensor tokens = module.Forward(x.Reshape({2, 15, 6}), DType::kF32);
    EXPECT_EQ(map.shape(), x.shape());
    EXPECT_EQ(tokens.shape(), Shape({2, 15, 6}));
    EXPECT_EQ(map.dtype(), DType::kF32);
    EXPECT_EQ(std::memcmp(map.raw(), tokens.raw(), map.bytes()), 0);
  }
}

}  // namespace
}  // namespace tessera
