// Puts both versions of channel attention under the conformance tests.
#include "attention/channel/channel.h"
#include "attention/channel/channel_ref.h"
#include "attention/registry.h"

namespace tessera {
namespace {

template <ChannelAttentionVersion kVersion>
AttentionProblem ChannelProblem(const AttentionSize& size) {
  const ChannelAttentionShape shape = {.batch = size.batch,
                                       .tokens = size.height * size.width,
                                       .num_heads = size.num_heads,
                                       .head_dim = size.head_dim,
                                       .version = kVersion};
  return {
      .inputs = {{"qkv", {shape.batch, shape.tokens, 3 * shape.channels()}}},
      .multiply_adds =
          2.0 * static_cast<double>(shape.batch * shape.tokens * shape.channels() * shape.head_dim),
      .forward =
          [shape](const std::vector<Tensor>& in) {
            return ChannelAttention(in[0], shape.num_heads, kVersion, in[0].dtype());
          },
      .reference = [shape](const std::vector<const double*>& in,
                           double* out) { ChannelAttentionRef(shape, in[0], out); },
  };
}

REGISTER_ATTENTION(channel_v1, ChannelProblem<ChannelAttentionVersion::kKeysTimesValues>);
REGISTER_ATTENTION(channel_v2, ChannelProblem<ChannelAttentionVersion::kQueriesTimesKeys>);

}  // namespace
}  // namespace tessera
