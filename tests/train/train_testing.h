// A model in training, small enough for tests of single steps.
#ifndef TESSERA_TESTS_TRAIN_TRAIN_TESTING_H_
#define TESSERA_TESTS_TRAIN_TRAIN_TESTING_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/check.h"
#include "core/random.h"
#include "models/registry.h"
#include "tests/data/data_testing.h"
#include "train/optimizer.h"

namespace tessera::train {

inline constexpr int64_t kTestClasses = 4;

struct InTraining {
  std::unique_ptr<ImageModel> model;
  std::unique_ptr<ParameterStore> store;
  std::unique_ptr<Optimizer> optimizer;
};

// A model of the registry with these options in YAML, AdamW and averages.
inline InTraining MakeInTraining(const std::string& name, const std::string& options,
                                 bool bf16 = false) {
  InTraining made;
  made.model = Unwrap(Unwrap(FindModel(name))->create(Unwrap(ParseYaml(options, "test"))));
  made.store = std::make_unique<ParameterStore>(*made.model, /*seed=*/3, bf16);
  made.optimizer = std::make_unique<Optimizer>(OptimConfig(), *made.store, /*ema_decay=*/0.9);
  return made;
}

// A DaViT of two stages.
inline InTraining SmallDaViT(double drop_path = 0.0, bool bf16 = false) {
  return MakeInTraining("davit",
                        absl::StrCat("{depths: [1, 1], embed_dims: [8, 16], num_heads: [1, 2], "
                                     "window_size: 3, num_classes: ",
                                     kTestClasses, ", drop_path_rate: ", drop_path, "}"),
                        bf16);
}

// A BiFormer of two stages, which has running statistics.
inline InTraining SmallBiFormer() {
  return MakeInTraining("biformer",
                        absl::StrCat("{depth: [1, 2], embed_dim: [8, 16], head_dim: 4, mlp_ratios: "
                                     "[3, 2], n_win: [3, 3], topks: [2, -2], num_classes: ",
                                     kTestClasses, "}"));
}

// f32 [batch, height, width, 3]
inline Tensor RandomImages(int64_t batch, int64_t height, int64_t width) {
  RandomStream random(1, Purpose::kTest);
  Tensor images = Tensor::Empty({batch, height, width, 3}, DType::kF32);
  for (int64_t i = 0; i < images.numel(); ++i) {
    images.data<float>()[i] = static_cast<float>(random.Normal());
  }
  return images;
}

// f32 [batch, classes], every class in turn.
inline Tensor OneHotTargets(int64_t batch, int64_t classes = kTestClasses) {
  Tensor targets = Tensor::Zeros({batch, classes}, DType::kF32);
  for (int64_t i = 0; i < batch; ++i) targets.data<float>()[i * classes + i % classes] = 1;
  return targets;
}

inline std::vector<float> Copy(const Tensor& t) {
  return {t.data<float>(), t.data<float>() + t.numel()};
}

// Everything that a step may change, besides gradients.
inline std::vector<std::vector<float>> CopyState(const InTraining& run) {
  std::vector<std::vector<float>> state = {Copy(run.store->values()),
                                           Copy(run.optimizer->averages())};
  const Tensor& counters = run.store->counters();
  state.emplace_back(counters.data<int64_t>(), counters.data<int64_t>() + counters.numel());
  for (const Optimizer::Moment& moment : run.optimizer->moments()) {
    state.push_back(Copy(moment.values));
  }
  return state;
}

}  // namespace tessera::train

#endif  // TESSERA_TESTS_TRAIN_TRAIN_TESTING_H_
