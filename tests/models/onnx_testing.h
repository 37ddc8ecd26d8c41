// Small models of every family that can be written as ONNX, for tests of their graphs.
#ifndef TESSERA_TESTS_MODELS_ONNX_TESTING_H_
#define TESSERA_TESTS_MODELS_ONNX_TESTING_H_

#include <memory>
#include <string>
#include <vector>

#include "core/check.h"
#include "models/onnx/export.h"
#include "models/registry.h"

namespace tessera {

struct OnnxCase {
  std::string name;     // of a registered model
  std::string options;  // YAML
  int64_t height;
  int64_t width;
};

inline const std::vector<OnnxCase>& OnnxCases() {
  static const auto* const cases = [] {
    const std::string davit = "embed_dims: [8, 16], num_heads: [2, 2], depths: [1, 2]";
    const std::string biformer =
        "depth: [1, 1, 1, 1], embed_dim: [16, 16, 32, 32], head_dim: 8, n_win: [3, 2, 2, 2], "
        "topks: [2, 3, 4, -2], num_classes: 5";
    const std::string maxvit =
        "embed_dim: [16, 32], depths: [1, 2], stem_width: [8, 16], num_classes: 5, ";
    const std::string rw =
        "stem_bias: false, head_hidden_size: 0, conv_cfg: {expand_output: false, output_bias: "
        "false, act_layer: silu, padding: '', norm_eps: 1e-5}, transformer_cfg: {dim_head: 8, "
        "window_size: [2, 3], grid_size: [4, 2], head_first: true, act_layer: gelu, rel_pos_type: ";
    const std::string transnext =
        "embed_dims: [16, 32], depths: [1, 1], num_heads: [2, 4], mlp_ratios: [2, 3], sr_ratios: "
        "[2, 1], window_size: [3, 0], img_size: 64, num_classes: 5";
    return new std::vector<OnnxCase>{
        {"davit", "{" + davit + ", window_size: 3, num_classes: 7}", 37, 45},
        {"davit",
         "{" + davit +
             ", cpe_act: true, down_kernel_size: 3, channel_attn_v2: true, "
             "named_blocks: true, head_norm_first: true, window_size: 4, qkv_bias: false}",
         32, 64},
        {"davit", "{" + davit + ", ffn: false, num_classes: 0, in_chans: 2}", 30, 30},
        {"biformer", "{" + biformer + "}", 70, 64},
        {"biformer", "{" + biformer + ", layout: stl}", 64, 96},
        {"biformer", "{" + biformer + ", layout: stl_nchw}", 68, 64},
        {"maxvit",
         "{" + maxvit +
             "head_hidden_size: 24, transformer_cfg: {dim_head: 8, "
             "window_size: [2, 3], grid_size: [4, 3]}}",
         64, 48},
        {"maxvit", "{" + maxvit + rw + "bias}}", 64, 48},
        {"maxvit", "{" + maxvit + rw + "mlp, init_values: 0.5}}", 64, 48},
        {"transnext", "{" + transnext + "}", 64, 64},
        {"transnext", "{" + transnext + ", fixed_pool_size: 3}", 64, 64}};
  }();
  return *cases;
}

// The model of a case with weights.
struct OnnxSubject {
  explicit OnnxSubject(const OnnxCase& c)
      : model(Create(c)), store(*model, /*seed=*/1, /*bf16_copies=*/false) {
    // Far from their starting values, which hide biases and norms.
    float* values = store.values().data<float>();
    for (int64_t i = 0; i < store.grads().numel(); ++i) {
      values[i] += 0.2f * static_cast<float>((i * 7919) % 101 - 50) / 50;
    }
  }
  static std::unique_ptr<ImageModel> Create(const OnnxCase& c) {
    auto model = (*FindModel(c.name))->create(*ParseYaml(c.options, "test"));
    CHECK(model.ok()) << model.status();
    return *std::move(model);
  }
  std::string Onnx(const OnnxCase& c) const {
    const auto bytes = ExportOnnx(*model, c.name, store, c.height, c.width);
    CHECK(bytes.ok()) << bytes.status();
    return *bytes;
  }

  std::unique_ptr<ImageModel> model;
  ParameterStore store;
};

}  // namespace tessera

#endif  // TESSERA_TESTS_MODELS_ONNX_TESTING_H_
