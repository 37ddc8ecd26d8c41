#include "absl/strings/str_format.h"
#include "core/file_system.h"
#include "data/decode.h"
#include "data/transforms/sample_transform.h"
#include "tensor/ops/softmax/softmax.h"
#include "tensor/ops/top_k/top_k.h"
#include "train/attention_picture.h"
#include "train/commands/commands.h"
#include "train/model_setup.h"

namespace tessera::train {
namespace {

constexpr int64_t kMaxImageBytes = int64_t{1} << 30;

struct Options {
  std::string weights;
  std::vector<std::string> images;
  std::string config;
  std::string attention;
  int64_t top = 5;
};

// What the model sees of a file: the square of pixels, and its input [1, S, S, 3].
struct Input {
  Image photo;
  Tensor image;
};

absl::StatusOr<Input> ReadInput(const std::string& path, const DataConfig& data,
                                const SampleTransform& transform) {
  ASSIGN_OR_RETURN(const std::string bytes, PosixFileSystem().ReadFile(path, kMaxImageBytes));
  const absl::Span<const uint8_t> span(reinterpret_cast<const uint8_t*>(bytes.data()),
                                       bytes.size());
  absl::StatusOr<DecodedImage> decoded =
      DecodeImage(span, {.exif_rotate = data.exif_rotate, .max_pixels = data.max_pixels});
  if (!decoded.ok()) return DataError(absl::StrCat(path, ": ", decoded.status().message()));
  const int64_t size = transform.image_size();
  RandomStream unused(0, Purpose::kAugment);
  Input input = {transform.Apply(decoded->pixels.view(), unused),
                 Tensor::Empty({1, size, size, 3}, DType::kF32)};
  transform.Finish(input.photo, unused, input.image.data<float>());
  return input;
}

// FOLDER/cat.attention.png for cat.jpg.
absl::Status WriteAttention(const LoadedModel& loaded, const Input& input, const std::string& path,
                            const std::string& folder) {
  const std::vector<NamedMap> maps =
      AttentionMaps(*loaded.model, input.image, loaded.compute_dtype);
  if (maps.empty()) return absl::UnimplementedError("this model shows no attention maps yet");
  const std::string name = BaseName(path);
  const std::string out = JoinPath(folder, name.substr(0, name.rfind('.')) + ".attention.png");
  FileSystem& fs = PosixFileSystem();
  RETURN_IF_ERROR(fs.CreateDirectories(folder));
  RETURN_IF_ERROR(WriteFileAtomically(fs, out, AttentionPicture(input.photo, maps, ".png")));
  absl::PrintF("  attention: %s\n", out);
  return absl::OkStatus();
}

void PrintTop(const LoadedModel& loaded, const Tensor& logits, int64_t count) {
  const Tensor probabilities = ops::Softmax(logits);
  const ops::TopKResult top = ops::TopK(probabilities, std::min(count, probabilities.dim(1)));
  for (int64_t i = 0; i < top.values.numel(); ++i) {
    const int32_t c = top.indices.data<int32_t>()[i];
    const bool named = static_cast<size_t>(c) < loaded.class_names.size();
    absl::PrintF("  %6.2f %%  %s\n", 100 * top.values.data<float>()[i],
                 named ? loaded.class_names[c] : absl::StrCat("class ", c));
  }
}

absl::Status RunPredict(const Options& options) {
  ASSIGN_OR_RETURN(const LoadedModel loaded,
                   LoadModel(options.weights, options.config, {"train.device=cpu"}));
  ASSIGN_OR_RETURN(const SampleTransform transform,
                   SampleTransform::Create(loaded.config.data, /*training=*/false));
  ForwardContext context;
  context.compute_dtype = loaded.compute_dtype;
  int64_t bad = 0;
  for (const std::string& path : options.images) {
    const absl::StatusOr<Input> input = ReadInput(path, loaded.config.data, transform);
    if (!input.ok()) {
      absl::FPrintF(stderr, "tessera: %s\n", input.status().message());
      ++bad;
      continue;
    }
    absl::PrintF("%s\n", path);
    PrintTop(loaded, loaded.model->Forward(input->image, context), options.top);
    if (!options.attention.empty()) {
      RETURN_IF_ERROR(WriteAttention(loaded, *input, path, options.attention));
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
  command->add_option("--attention", options->attention,
                      "folder for pictures of where each attention looks");
  command->add_option("--top", options->top, "classes to print")->check(CLI::Range(1, 1000));
  command->callback([options, result] { *result = RunPredict(*options); });
}

}  // namespace tessera::train
