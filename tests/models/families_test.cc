// What holds for the models of every family.
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "autograd/tape.h"
#include "tests/models/model_testing.h"
#include "tests/op_testing.h"

namespace tessera {
namespace {

constexpr char kDaVit[] =
    "{embed_dims: [8, 16], num_heads: [1, 2], window_size: 3, depths: [1, 2], num_classes: 5}";
constexpr char kMaxVit[] =
    "{embed_dim: [8, 16], depths: [1, 2], stem_width: [4, 8], head_hidden_size: 16, "
    "transformer_cfg: {dim_head: 4, window_size: [2, 3], grid_size: [2, 3]}, num_classes: 5}";
constexpr char kBiFormer[] =
    "{depth: [1, 2], embed_dim: [8, 16], head_dim: 4, mlp_ratios: [3, 2], n_win: [3, 3], topks: "
    "[2, -2], num_classes: 5}";
constexpr char kTransNext[] =
    "{embed_dims: [8, 32], num_heads: [1, 2], mlp_ratios: [2, 3], depths: [1, 2], sr_ratios: [4, "
    "1], window_size: [3, 0], img_size: 64, num_classes: 5}";

// A narrow model of two stages, for images of 32 x 48.
struct Subject {
  const char* name;
  const char* model;
  const char* options;
  const char* more = "{}";
  bool has_batch_norm = false;
};

const Subject kSubjects[] = {
    {"DaVit", "davit", kDaVit},
    {"DaVitNormFirst", "davit", kDaVit, "{head_norm_first: true}"},
    {"DaVitWithoutMlps", "davit", kDaVit, "{ffn: false}"},
    {"MaxVit", "maxvit", kMaxVit, "{}", true},
    {"MaxVitWithoutHiddenHead", "maxvit", kMaxVit, "{head_hidden_size: 0}", true},
    {"MaxVitMlpBias", "maxvit", kMaxVit, "{transformer_cfg: {rel_pos_type: mlp, rel_pos_dim: 8}}",
     true},
    {"BiFormer", "biformer", kBiFormer, "{}", true},
    {"BiFormerMaps", "biformer", kBiFormer, "{extra_norms: true, num_classes: 0}", true},
    {"BiFormerStl", "biformer", kBiFormer, "{layout: stl}", true},
    {"BiFormerStlNchw", "biformer", kBiFormer, "{layout: stl_nchw}", true},
    {"TransNext", "transnext", kTransNext},
    {"TransNextResizing", "transnext", kTransNext, "{is_extrapolation: false}"},
};

class Families : public testing::TestWithParam<Subject> {
 protected:
  static std::unique_ptr<ImageModel> Make(double drop_path_rate = 0) {
    const Subject& subject = GetParam();
    auto model = MakeModel(subject.model, subject.options, subject.more);
    ConfigNode options = model->Options();
    MergeNode(*ParseYaml(absl::StrCat("{drop_path_rate: ", drop_path_rate, "}"), "test"), &options);
    // What Options() gives makes the same model again.
    return MakeModel(subject.model, DumpYaml(options));
  }
};

TEST_P(Families, CostsNameEveryParameterOnce) {
  const auto model = Make();
  std::set<std::string> stages;
  for (const StageCost& cost : model->Costs(32, 48)) {
    EXPECT_TRUE(stages.insert(cost.name).second) << cost.name;
    EXPECT_GE(cost.saved_f32 + cost.saved_compute, 0);
  }
  model->VisitParameters([&](const std::string& name, Parameter&) {
    int64_t owners = 0;
    for (const std::string& stage : stages) owners += absl::StartsWith(name, stage + ".");
    EXPECT_EQ(owners, 1) << name;
  });
}

// What batch norms do in training is the exception.
TEST_P(Families, TreatsImagesOfABatchAlone) {
  const auto model = Make(0.4);
  const ParameterStore store(*model, 1, false);
  const Tensor images = RandomTensor({5, 32, 48, 3}, DType::kF32, 4);
  for (const bool training : {false, true}) {
    if (training && GetParam().has_batch_norm) continue;
    ForwardContext context = {.training = training, .seed = 3, .step = 2};
    const Tensor whole = model->Forward(images, context);
    const int64_t width = whole.dim(1);
    for (int64_t i = 0; i < 5; ++i) {
      context.first_sample = i;
      const Tensor alone = model->Forward(images.Slice(i, i + 1), context);
      for (int64_t j = 0; j < width; ++j) EXPECT_NEAR(At(alone, j), At(whole, width * i + j), 1e-4);
    }
  }
}

// Without a tap the first stages take a part of these images at a time.
TEST_P(Families, EvaluatesManyImagesAsItDoesFew) {
  const auto model = Make();
  const ParameterStore store(*model, 1, false);
  const Tensor images = RandomTensor({200, 32, 48, 3}, DType::kF32, 4);
  ForwardContext observed;
  observed.tap = [](absl::string_view, const Tensor&) {};
  const Tensor whole = model->Forward(images, observed), pieces = model->Forward(images, {});
  ASSERT_EQ(whole.shape(), pieces.shape());
  for (int64_t i = 0; i < whole.numel(); ++i) EXPECT_NEAR(At(pieces, i), At(whole, i), 1e-5) << i;
}

// Modules keep tables from one forward pass to the next; those of another size do not stay.
TEST_P(Families, TakesSizesInTurn) {
  const Tensor small = RandomTensor({2, 32, 48, 3}, DType::kF32, 4);
  const Tensor large = RandomTensor({2, 64, 48, 3}, DType::kF32, 5);
  const auto model = Make(), other = Make();
  const ParameterStore store(*model, 1, false), other_store(*other, 1, false);
  const Tensor first = model->Forward(small, {});
  EXPECT_TRUE(SameBits(model->Forward(large, {}), other->Forward(large, {})));
  EXPECT_TRUE(SameBits(model->Forward(small, {}), first));
}

// Logits, gradients, running statistics and their counters after the forward and the backward pass
// of a training step; nodes: how many the tape held between the two.
std::vector<Tensor> Train(ImageModel& model, const ForwardContext& context, int64_t* nodes) {
  ParameterStore store(model, 1, context.compute_dtype == DType::kBF16);
  Tape tape;
  store.Watch(tape, false);
  const Tensor y = model.Forward(RandomTensor({4, 32, 48, 3}, DType::kF32, 2), context);
  Tensor loss = Tensor::Zeros({}, DType::kF32);
  Record("loss", {&y}, {&loss},
         [shape = y.shape()](GradContext& g) { g.Add(0, RandomTensor(shape, DType::kF32, 3)); });
  *nodes = tape.num_nodes();
  tape.Backward(loss);
  return {y.Clone(), store.grads().Clone(), store.values().Clone(), store.counters().Clone()};
}

TEST_P(Families, CheckpointedBlocksGiveTheSameBitsAndMoveStatisticsOnce) {
  const auto model = Make(0.4);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    SCOPED_TRACE(Name(dtype));
    ForwardContext context = {.training = true, .compute_dtype = dtype, .seed = 3};
    int64_t nodes = 0, fewer_nodes = 0;
    const std::vector<Tensor> plain = Train(*model, context, &nodes);
    context.checkpoint_blocks = true;
    const std::vector<Tensor> checkpointed = Train(*model, context, &fewer_nodes);
    EXPECT_LT(fewer_nodes, nodes / 2);
    for (size_t i = 0; i < plain.size(); ++i) {
      EXPECT_TRUE(SameBits(plain[i], checkpointed[i])) << "result " << i;
    }
  }
}

TEST_P(Families, DoesNotDependOnTheNumberOfThreads) {
  const auto model = Make(0.4);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    ExpectSameBitsForAnyThreads([&] {
      int64_t nodes = 0;
      return Train(*model, {.training = true, .compute_dtype = dtype, .seed = 3}, &nodes);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(All, Families, testing::ValuesIn(kSubjects),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace tessera
