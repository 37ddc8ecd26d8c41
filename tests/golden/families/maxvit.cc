// MaxViT in golden cases: the options of timm's MaxxVitCfg, and tables of relative positions.
#include <algorithm>
#include <cmath>

#include "attention/grid/relative_position.h"
#include "tests/golden/golden_case.h"
#include "tests/golden/golden_family.h"

namespace tessera {
namespace {

// Keeps what our configuration has. What it lacks has one supported value, and null is its "none",
// which is 0 here.
Json Options(const Json& meta) {
  Json config = meta.value("config", Json::object());
  const auto drop = [](Json& section, std::initializer_list<std::pair<const char*, Json>> fixed) {
    for (const auto& [key, only] : fixed) {
      if (!section.contains(key)) continue;
      if (section[key] != only) continue;  // left in, and refused as an unknown option
      section.erase(key);
    }
  };
  if (config.contains("stem_width") && config["stem_width"].is_number()) {
    config["stem_width"] = {config["stem_width"], config["stem_width"]};
  }
  if (config.contains("head_hidden_size") && config["head_hidden_size"].is_null()) {
    config["head_hidden_size"] = 0;
  }
  if (config.contains("embed_dim")) {
    drop(config, {{"block_type", Json(std::vector<std::string>(config["embed_dim"].size(), "M"))},
                  {"weight_init", "vit_eff"}});
  }
  if (config.contains("conv_cfg")) {
    drop(config["conv_cfg"], {{"block_type", "mbconv"},
                              {"kernel_size", 3},
                              {"group_size", 1},
                              {"pre_norm_act", false},
                              {"stride_mode", "dw"},
                              {"pool_type", "avg2"},
                              {"downsample_pool_type", "avg2"},
                              {"attn_early", false},
                              {"attn_layer", "se"},
                              {"attn_act_layer", "silu"},
                              {"init_values", 1e-6},  // of ConvNeXt blocks
                              {"norm_layer", "batchnorm2d"},
                              {"norm_layer_cl", ""}});
  }
  if (config.contains("transformer_cfg")) {
    Json& transformer = config["transformer_cfg"];
    transformer.erase("expand_first");  // of strided attention, which no MaxViT has
    drop(transformer, {{"shortcut_bias", true},
                       {"attn_bias", true},
                       {"attn_drop", 0.0},
                       {"proj_drop", 0.0},
                       {"pool_type", "avg2"},
                       {"partition_ratio", 32},
                       {"no_block_attn", false},
                       {"use_nchw_attn", false},
                       {"init_values", nullptr},
                       {"norm_layer", "layernorm2d"},
                       {"norm_layer_cl", "layernorm"}});
  }
  return config;
}

REGISTER_GOLDEN_FAMILY(maxvit,
                       {.options = Options, .channels_last_taps = {".attn_block", ".attn_grid"}});

// |got - expected| against the largest value of the reference.
absl::Status Compare(const GoldenCase& golden, const std::string& name, const Tensor& got,
                     Comparison* comparison) {
  ASSIGN_OR_RETURN(const std::vector<double> expected, ReadDoubles(golden.file, name));
  if (static_cast<int64_t>(expected.size()) != got.numel()) {
    return absl::InternalError(name + ": other shape");
  }
  double error = 0, largest = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::abs(got.data<float>()[i] - expected[i]);
    error = difference <= error ? error : difference;
    largest = std::max(largest, std::abs(expected[i]));
  }
  comparison->Add(name, error, 1e-5 * largest);
  return absl::OkStatus();
}

// Tables to biases, and tables of a 7x7 window to larger ones in both ways.
absl::StatusOr<CaseResult> RunRelativePositions(const GoldenCase& golden) {
  Comparison comparison(golden.name);
  for (const auto& [table_name, bias_name, rows, columns] :
       {std::tuple("table7", "bias7", 7, 7), std::tuple("table3x2", "bias3x2", 3, 2)}) {
    ASSIGN_OR_RETURN(const Tensor table, golden.file.Read(table_name));
    const RelativePositionShape shape = {table.dim(0), rows, columns,
                                         RelativeTable::kKeyMinusQuery};
    RETURN_IF_ERROR(Compare(golden, bias_name, RelativePositionBias(table, shape), &comparison));
  }
  ASSIGN_OR_RETURN(const Tensor table, golden.file.Read("table7"));
  for (const int64_t window : {12, 16}) {
    const Shape to = {table.dim(0), 2 * window - 1, 2 * window - 1};
    for (const auto& [prefix, method] :
         {std::pair("timm", TableResize::kUneven), std::pair("bilinear", TableResize::kBilinear)}) {
      const std::string name = absl::StrCat(prefix, "_resized_", window);
      RETURN_IF_ERROR(Compare(golden, name, *ResizeRelativeTable(table, to, method), &comparison));
    }
  }
  return comparison.result();
}

REGISTER_GOLDEN_FILE(maxvit_relpos, RunRelativePositions);

}  // namespace
}  // namespace tessera
