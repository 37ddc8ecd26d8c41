// The configuration of a run: what a YAML file under configs/ holds.
#ifndef TESSERA_TRAIN_CONFIG_H_
#define TESSERA_TRAIN_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "core/config.h"
#include "data/config.h"

namespace tessera::train {

struct OptimConfig {
  std::string name = "adamw";
  double lr = 1e-3;
  double min_lr = 1e-5;
  double warmup_lr = 0.0;
  double warmup_epochs = 0.0;
  double cooldown_epochs = 0.0;
  double weight_decay = 0.05;
  std::vector<std::string> no_weight_decay;
  std::vector<double> betas = {0.9, 0.999};
  double eps = 1e-8;
  double momentum = 0.9;
  bool nesterov = true;
  double clip_grad = 0.0;
  double layer_decay = 1.0;

  template <class V>
  void VisitFields(V& v) {
    v("name", name, "update rule", OneOf({"adamw", "sgd"}));
    v("lr", lr, "peak learning rate, for this run's batch size", Between(0, 1e6));
    v("min_lr", min_lr, "learning rate at the end of the cosine", Between(0, 1e6));
    v("warmup_lr", warmup_lr, "learning rate before the first step", Between(0, 1e6));
    v("warmup_epochs", warmup_epochs, "epochs of linear warm-up", Between(0, 1e6));
    v("cooldown_epochs", cooldown_epochs, "last epochs, at min_lr", Between(0, 1e6));
    v("weight_decay", weight_decay, "of matrices and kernels, not of biases and norms",
      Between(0, 1e6));
    v("no_weight_decay", no_weight_decay,
      "parts of the names of more parameters without weight decay");
    v("betas", betas, "decay of AdamW's two moments", HalfOpen(0, 1));
    v("eps", eps, "added to the root of AdamW's second moment", Between(0, 1e6));
    v("momentum", momentum, "of SGD", HalfOpen(0, 1));
    v("nesterov", nesterov, "Nesterov's form of SGD's momentum");
    v("clip_grad", clip_grad, "largest global L2 norm of the gradient; 0: no limit", AtLeast(0));
    v("layer_decay", layer_decay,
      "factor on the learning rate for each layer further from the head, for fine-tuning",
      {.min = 0, .max = 1, .excludes_min = true});
  }
};

struct TrainConfig {
  int64_t epochs = 300;
  int64_t batch_size = 128;
  int64_t accumulate = 1;
  std::string precision = "bf16";
  std::string device = "cpu";
  bool checkpoint_blocks = false;
  double ema_decay = 0.0;
  double skip_loss_above = 0.0;
  std::string init_weights;
  bool finetune = false;
  int64_t seed = 42;
  double eval_every_epochs = 1.0;
  double save_every_minutes = 10.0;
  int64_t keep_checkpoints = 2;
  int64_t log_every_steps = 10;

  template <class V>
  void VisitFields(V& v) {
    v("epochs", epochs, "passes over the training set", Between(1, 1e6));
    v("batch_size", batch_size, "images per optimizer step, of all ranks together", Between(1, 1e6));
    v("accumulate", accumulate, "parts that a batch is cut into, to save memory", Between(1, 4096));
    v("precision", precision, "of products and hidden maps", OneOf({"bf16", "fp32"}));
    v("device", device, "that the model lives on", OneOf({"cpu", "cuda"}));
    v("checkpoint_blocks", checkpoint_blocks, "run blocks again in backward, to save memory");
    v("ema_decay", ema_decay, "of the averaged weights that are evaluated; 0: none",
      HalfOpen(0, 1));
    v("skip_loss_above", skip_loss_above,
      "leave out steps whose loss exceeds its running average this many times; 0: none",
      AtLeast(0));
    v("init_weights", init_weights, "checkpoint, safetensors or .pth file to start from");
    v("finetune", finetune, "init_weights may have another classifier");
    v("seed", seed, "of every random draw", AtLeast(0));
    v("eval_every_epochs", eval_every_epochs, "between evaluations",
      {.min = 0, .max = 1e6, .excludes_min = true});
    v("save_every_minutes", save_every_minutes, "between checkpoints", MoreThan(0));
    v("keep_checkpoints", keep_checkpoints, "latest checkpoints to keep, beside the best",
      Between(1, 1000));
    v("log_every_steps", log_every_steps, "between entries of metrics.jsonl and TensorBoard",
      Between(1, 1e9));
  }
};

struct RunConfig {
  std::string output = "runs/default";
  ConfigNode model;
  DataConfig data;
  OptimConfig optim;
  TrainConfig train;

  template <class V>
  void VisitFields(V& v) {
    v("output", output, "folder of the run: checkpoints and logs");
    v("model", model, "name, and the options of that model");
    v("data", data, "");
    v("optim", optim, "");
    v("train", train, "");
  }
};

// ConfigError for settings that are each in range but do not go together.
absl::Status CheckConfig(const RunConfig& config);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_CONFIG_H_
