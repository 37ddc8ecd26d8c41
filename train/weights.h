// Weights in and out of a model's ParameterStore, under the names and shapes that timm and the
// official repositories use.
#ifndef TESSERA_TRAIN_WEIGHTS_H_
#define TESSERA_TRAIN_WEIGHTS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/file_system.h"
#include "layers/module.h"
#include "models/registry.h"
#include "tensor/safetensors.h"

namespace tessera::train {

struct LoadOptions {
  // Tensors of the model that the file lacks and tensors that the model lacks are errors; else the
  // first keep their values and the second are left out.
  bool strict = true;
  // The classifier (names that begin with "head.") keeps its values where the file's has another
  // shape or is not there, as for another set of classes.
  bool finetune = false;
  bool ema = false;  // of a checkpoint: its averaged weights instead of the last ones
  // Whose names and resizing of weights to follow; null: only our own names and shapes.
  const ModelVariant* variant = nullptr;
};

// Names of the model's and of the file's tensors, by what became of them.
struct LoadReport {
  int64_t num_loaded = 0;               // resized ones included
  std::vector<std::string> resized;     // for another resolution, both shapes included
  std::vector<std::string> fresh;       // of the classifier, for fine-tuning
  std::vector<std::string> missing;     // not in the file
  std::vector<std::string> unexpected;  // not in the model
  std::vector<std::string> mismatched;  // of another shape, both shapes included

  std::string ToString() const;  // one line: "150 tensors loaded, 2 left fresh (head.fc.bias, ...)"
};

// Fills `store`, buffers included, from a safetensors file, a file of torch.save or a checkpoint
// directory, rounding to f32, and brings the bf16 copies up to date. Counters that the file lacks
// keep their values, and tensors of integers that the model does not know (index tables of other
// programs) are passed over, as PyTorch does it. When the file does not fit, the DataError lists
// the first names with suggestions and `store` is unchanged.
absl::StatusOr<LoadReport> LoadWeights(FileSystem& fs, const std::string& path,
                                       ParameterStore& store, const LoadOptions& options = {});

// Slices of `flat`, which is laid out like the store's gradients, under the parameters' names and
// in their shapes: for checkpoints of moments.
std::vector<NamedTensor> SlicesOf(const ParameterStore& store, const Tensor& flat,
                                  absl::string_view name_prefix = "");
// All tensors of the model's state: parameters and f32 buffers as slices of `values`, which is laid
// out like the store's values (those, or averages of them), and the store's counters.
std::vector<NamedTensor> StateOf(const ParameterStore& store, const Tensor& values);

// Writes the state as a safetensors file.
absl::Status ExportSafetensors(FileSystem& fs, const std::string& path, const ParameterStore& store,
                               std::map<std::string, std::string> metadata = {});

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_WEIGHTS_H_
