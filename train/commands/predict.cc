#include "absl/strings/str_format.h"
#include "core/file_system.h"
#include "data/decode.h"
#include "data/transforms/sample_transform.h"
#include "tensor/ops/softmax/softmax.h"
#include "tensor/ops/top_k/top_k.h"
#include "train/commands/commands.h"
#include "train/model_setup.h"

namespace tessera::train {
namespace {

constexpr int64_t kMaxImageBytes = int64_t{1} << 30;

struct Options {
  std::string weights;
  std::vector<std::string> images;
  std::string config;
  int64_t top = 5;
};

// The image file as the model's input [1, S, S, 3].
absl::StatusOr<Tensor> ReadInput(const std::string& path, const DataConfig& data,
                                 const SampleTransform& transform) {
  ASSIGN_OR_RETURN(const std::string bytes, PosixFileSystem().ReadFile(path, kMaxImageBytes));
  const absl::Span<const uint8_t> span(reinterpret_cast<const uint8_t*>(bytes.data()),
                                       bytes.size());
  absl::StatusOr<DecodedImage> decoded =
      DecodeImage(span, {.exif_rotate = data.exif_rotate, .max_pixels = data.max_pixels});
  if (!decoded.ok()) return DataError(absl::StrCat(path, ": ", decoded.status().message()));
  const int64_t size = transform.image_size();
  Tensor input = Tensor::Empty({1, size, size, 3}, DType::kF32);
  RandomStream unused(0, Purpose::kAugment);
  transform.Finish(transform.Apply(decoded->pixels.view(), unused), unused, input.data<float>());
  return input;
}

absl::Status RunPredict(const Options& options) {
  ASSIGN_OR_RETURN(const LoadedModel loaded, LoadModel(options.weights, options.config, {}));
  ASSIGN_OR_RETURN(const SampleTransform transform,
                   SampleTransform::Create(loaded.config.data, /*training=*/false));
  ForwardContext context;
  context.compute_dtype = loaded.compute_dtype;
  int64_t bad = 0;
  for (const std::string& path : options.images) {
    absl::StatusOr<Tensor> input = ReadInput(path, loaded.config.data, transform);
    if (!input.ok()) {
      absl::FPrintF(stderr, "tessera: %s\n", input.status().message());
      ++bad;
      continue;
    }
    const Tensor probabilities = ops::Softmax(loaded.model->Forward(*input, context));
    const ops::TopKResult top =
        ops::TopK(probabilities, std::min(options.top, probabilities.dim(1)));
    absl::PrintF("%s\n", path);
    for (int64_t i = 0; i < top.values.numel(); ++i) {
      const int32_t c = top.indices.data<int32_t>()[i];
      const bool named = static_cast<size_t>(c) < loaded.class_names.size();
      absl::PrintF("  %6.2f %%  %s\n", 100 * top.values.data<float>()[i],
                   named ? loaded.class_names[c] : absl::StrCat("class ", c));
    }
  }
  if (bad == 0) return absl::OkStatus();
  return DataError(absl::StrFormat("%d of %d pictures could not be read", bad,
                                   static_cast<int64_t>(options.images.size())));
}

}  // namespace

void AddPredictCommand(CLI::App& app, absl::Status* result) {
  CLI::App* command = app.add_subcommand("predict", "Names what is on pictures");
  auto options = std::make_shared<Options>();
  command->add_option("weights", options->weights, "checkpoint of a run, safetensors or .pth file")
      ->required();
  command->add_option("images", options->images, "picture files")->required();
  command->add_option("--config", options->config,
                      "configuration or model, needed for files of weights alone");
  command->add_option("--top", options->top, "classes to print")->check(CLI::Range(1, 1000));
  command->callback([options, result] { *result = RunPredict(*options); });
}

}  // namespace tessera::train
