#include "models/davit.h"

namespace tessera {

// The authors' checkpoints, and the image tower within those of Florence-2, of whose other parts
// nothing is used.
std::vector<NameRule> DaVitWeightNames() {
  return {
      {"patch_embeds.0.proj", "stem.conv"},
      {"patch_embeds.0.norm", "stem.norm"},
      {"patch_embeds.#.proj", "stages.#.downsample.conv"},
      {"patch_embeds.#.norm", "stages.#.downsample.norm"},
      {"main_blocks.#.#.#.cpe.0", "stages.#.blocks.#.#.cpe1"},
      {"main_blocks.#.#.#.cpe.1", "stages.#.blocks.#.#.cpe2"},
      {"main_blocks.#.#.#", "stages.#.blocks.#.#"},
      {"norms", "head.norm"},
      {"head.weight", "head.fc.weight"},
      {"head.bias", "head.fc.bias"},
      {"vision_tower.convs.0.proj", "stem.conv"},
      {"vision_tower.convs.0.norm", "stem.norm"},
      {"vision_tower.convs.#.proj", "stages.#.downsample.conv"},
      {"vision_tower.convs.#.norm", "stages.#.downsample.norm"},
      {"vision_tower.blocks.#.#.#.conv1.fn.dw", "stages.#.blocks.#.#.cpe1.proj"},
      {"vision_tower.blocks.#.#.#.conv2.fn.dw", "stages.#.blocks.#.#.cpe2.proj"},
      {"vision_tower.blocks.#.#.#.window_attn.norm", "stages.#.blocks.#.#.norm1"},
      {"vision_tower.blocks.#.#.#.window_attn.fn", "stages.#.blocks.#.#.attn"},
      {"vision_tower.blocks.#.#.#.channel_attn.norm", "stages.#.blocks.#.#.norm1"},
      {"vision_tower.blocks.#.#.#.channel_attn.fn", "stages.#.blocks.#.#.attn"},
      {"vision_tower.blocks.#.#.#.ffn.norm", "stages.#.blocks.#.#.norm2"},
      {"vision_tower.blocks.#.#.#.ffn.fn.net", "stages.#.blocks.#.#.mlp"},
      {"language_model", ""},
      {"image_projection", ""},
      {"image_proj_norm", ""},
      {"image_pos_embed", ""},
      {"visual_temporal_embed", ""},
  };
}

}  // namespace tessera
