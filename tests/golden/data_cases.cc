#include "tests/golden/data_cases.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/file_system.h"
#include "core/random.h"
#include "core/status.h"
#include "data/decode.h"
#include "data/resample.h"
#include "data/transforms/mix.h"
#include "data/transforms/pixel_ops.h"
#include "data/transforms/sample_transform.h"
#include "tensor/safetensors.h"
#include "tests/golden/sha256.h"

namespace tessera {
namespace {

using internal::WorstError;

constexpr Rgb kFill = {124, 116, 104};
constexpr double kMixTolerance = 1e-6;
constexpr double kNormalizedTolerance = 1e-5;
// Where the decoder, not the resampler, is off.
constexpr double kOtherDecoderMax = 3;
constexpr double kOtherDecoderMean = 0.2;

// Value i of the sequence that belongs to `name`, in [-1, 1).
double FillUnit(absl::string_view name, int64_t i) {
  uint64_t hash = 0xCBF29CE484222325u;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return static_cast<double>(SplitMix64(hash + static_cast<uint64_t>(i)) >> 40) / 8388608.0 - 1.0;
}

// A gradient, a checkerboard and noise.
Image SyntheticPicture(const std::string& name, int64_t height, int64_t width) {
  Image image(height, width);
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      const int64_t base[3] = {x * 255 / std::max<int64_t>(width - 1, 1),
                               y * 255 / std::max<int64_t>(height - 1, 1),
                               (x / 7 + y / 5) % 2 * 255};
      for (int64_t c = 0; c < 3; ++c) {
        const double u = FillUnit(name, (y * width + x) * 3 + c);
        const auto noise = static_cast<int64_t>(std::floor((u + 1) * 128));
        image.row(y)[3 * x + c] = static_cast<uint8_t>((noise + 3 * base[c]) / 4);
      }
    }
  }
  return image;
}

// Compares pixels with a tensor [H, W, 3], or [H, W] with the first channel.
void ComparePixels(const std::string& where, const ImageView& image, const Tensor& expected,
                   double max_error, double mean_error, WorstError* worst) {
  const int64_t channels = expected.rank() == 3 ? expected.dim(2) : 1;
  if (expected.rank() < 2 || expected.dtype() != DType::kU8 || expected.dim(0) != image.height ||
      expected.dim(1) != image.width || (channels != 1 && channels != 3)) {
    return worst->AddEqual(where + " (shape)", false);
  }
  int64_t largest = 0;
  int64_t sum = 0;
  const uint8_t* e = expected.data<uint8_t>();
  for (int64_t y = 0; y < image.height; ++y) {
    for (int64_t i = 0; i < image.width * channels; ++i) {
      const int64_t error = std::abs(int64_t{image.row(y)[channels == 3 ? i : 3 * i]} - *e++);
      largest = std::max(largest, error);
      sum += error;
    }
  }
  worst->Add(where, static_cast<double>(largest), max_error);
  worst->Add(where + " (mean)", static_cast<double>(sum) / static_cast<double>(expected.numel()),
             mean_error);
}

// ---- transforms

struct Picture {
  Image image;
  bool same_decoder = false;
};

absl::StatusOr<Picture> LoadPicture(const Json& meta, const std::string& data_dir,
                                    WorstError* worst) {
  ASSIGN_OR_RETURN(const std::string bytes, PosixFileSystem().ReadFile(JoinPath(
                                                data_dir, meta.at("path").get<std::string>())));
  const absl::Span<const uint8_t> span(reinterpret_cast<const uint8_t*>(bytes.data()),
                                       bytes.size());
  worst->AddEqual("sha256 of the file", Sha256::Hex(span) == meta.at("file_sha256"));
  absl::StatusOr<DecodedImage> decoded = DecodeImage(span);
  if (!decoded.ok()) return absl::InternalError(decoded.status().message());
  Picture picture{std::move(decoded->pixels), false};
  worst->AddEqual("size", picture.image.height() == meta.at("height") &&
                              picture.image.width() == meta.at("width"));
  picture.same_decoder =
      Sha256::Hex({picture.image.data(), static_cast<size_t>(picture.image.bytes())}) ==
      meta.at("decoded_rgb_sha256");
  return picture;
}

SampleTransform Evaluation(const Json& meta, int64_t size, double crop_pct,
                           const std::string& filter) {
  DataConfig config;
  config.image_size = size;
  config.crop_pct = crop_pct;
  config.interpolation = filter;
  config.mean = meta.at("mean").get<std::vector<double>>();
  config.std = meta.at("std").get<std::vector<double>>();
  auto transform = SampleTransform::Create(config, false);
  CHECK(transform.ok()) << transform.status();
  return *std::move(transform);
}

// The picture that a key such as "eval224_pct875_bicubic" stands for; empty for an unknown key.
Image Transformed(const std::string& key, const Image& image, const Json& meta,
                  const Tensor& expected) {
  RandomStream random(0, Purpose::kTest);
  absl::string_view rest = key;
  const std::vector<absl::string_view> parts = absl::StrSplit(rest, '_');
  if (absl::ConsumePrefix(&rest, "eval") && parts.size() == 3) {
    // pct875 is 0.875, pct100 is 1.
    const std::string digits(absl::StripPrefix(parts[1], "pct"));
    const double crop_pct = digits == "100" ? 1.0 : std::stod("0." + digits);
    int64_t size = 0;
    if (!absl::SimpleAtoi(absl::StripPrefix(parts[0], "eval"), &size)) return {};
    return Evaluation(meta, size, crop_pct, std::string(parts[2])).Apply(image, random);
  }
  if (absl::StrContains(key, "_resize_")) {
    const auto filter = ParseFilter(parts[0]);
    if (!filter.ok()) return {};
    return Resize(image, {.height = expected.dim(0), .width = expected.dim(1), .filter = *filter});
  }
  if (key == "crop_resize") {
    const SourceWindow window{11, 7, static_cast<float>(std::min<int64_t>(image.width(), 211)),
                              static_cast<float>(std::min<int64_t>(image.height(), 157))};
    return Resize(image, {.height = expected.dim(0), .width = expected.dim(1), .window = window});
  }
  return {};
}

// The first rows of the normalised evaluation crop, [3, rows, size].
void CompareNormalized(const Image& image, const Json& meta, const Tensor& expected,
                       const std::string& where, double tolerance, WorstError* worst) {
  const int64_t rows = expected.dim(1);
  const int64_t size = expected.dim(2);
  RandomStream random(0, Purpose::kTest);
  const SampleTransform transform = Evaluation(meta, size, 0.875, "bicubic");
  std::vector<float> values(size * size * 3);
  transform.Finish(transform.Apply(image, random), random, values.data());
  const float* e = expected.data<float>();
  double error = 0;
  for (int64_t c = 0; c < 3; ++c) {
    for (int64_t i = 0; i < rows * size; ++i) {
      error = std::max<double>(error, std::abs(values[3 * i + c] - *e++));
    }
  }
  worst->Add(where, error, tolerance);
}

absl::Status CheckPicture(const std::string& prefix, const Json& meta, const Picture& picture,
                          const SafetensorsFile& file, WorstError* worst) {
  const bool same = picture.same_decoder;
  for (const SafetensorsFile::Entry& entry : file.entries()) {
    absl::string_view key = entry.name;
    if (!absl::ConsumePrefix(&key, prefix)) continue;
    const std::string where = same ? entry.name : entry.name + " (decoded pixels differ)";
    ASSIGN_OR_RETURN(const Tensor expected, file.Read(entry.name));
    if (absl::StartsWith(key, "normalised_")) {
      // A level is 1 / (255 std) wide after normalisation.
      CompareNormalized(picture.image, meta, expected, where,
                        same ? kNormalizedTolerance : kOtherDecoderMax / (255 * 0.224), worst);
      continue;
    }
    const Image found = Transformed(std::string(key), picture.image, meta, expected);
    if (found.empty()) return DataError(absl::StrCat("no check for '", entry.name, "'"));
    ComparePixels(where, found, expected, same ? 0 : kOtherDecoderMax, same ? 0 : kOtherDecoderMean,
                  worst);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<DataCaseResult>> RunTransforms(const std::string& name, const Json& meta,
                                                          const SafetensorsFile& file,
                                                          const std::string& data_dir) {
  std::vector<DataCaseResult> results;
  for (const Json& image : meta.at("images")) {
    const std::string index = absl::StrCat(image.at("index").get<int64_t>());
    const std::string case_name = absl::StrCat(name, ".", index);
    WorstError worst;
    const absl::StatusOr<Picture> picture = LoadPicture(image, data_dir, &worst);
    if (absl::IsNotFound(picture.status())) {
      results.push_back(
          {.name = case_name, .skipped = true, .where = std::string(picture.status().message())});
      continue;
    }
    RETURN_IF_ERROR(picture.status());
    RETURN_IF_ERROR(CheckPicture(index + ".", meta, *picture, file, &worst));
    results.push_back(worst.Result(case_name));
  }
  return results;
}

// ---- resampling and augmentation

absl::StatusOr<DataCaseResult> RunResample(const std::string& name, const Json& cases,
                                           const SafetensorsFile& file) {
  WorstError worst;
  for (const Json& c : cases) {
    const Image source = SyntheticPicture(c.at("source"), c.at("h"), c.at("w"));
    const std::string prefix = absl::StrCat(c.at("case").get<int64_t>(), ".");
    for (const SafetensorsFile::Entry& entry : file.entries()) {
      absl::string_view filter_name = entry.name;
      if (!absl::ConsumePrefix(&filter_name, prefix)) continue;
      ASSIGN_OR_RETURN(const Filter filter, ParseFilter(filter_name));
      ASSIGN_OR_RETURN(const Tensor expected, file.Read(entry.name));
      const Image found =
          Resize(source, {.height = c.at("out_h"), .width = c.at("out_w"), .filter = filter});
      ComparePixels(entry.name, found, expected, 0, 0, &worst);
    }
  }
  return worst.Result(name);
}

struct AugmentCase {
  absl::string_view name;
  AugmentOp op;
  bool has_argument;
  double tolerance;
};
constexpr AugmentCase kAugmentCases[] = {
    {"autocontrast", AugmentOp::kAutoContrast, false, 0},
    {"equalize", AugmentOp::kEqualize, false, 0},
    {"invert", AugmentOp::kInvert, false, 0},
    {"posterize", AugmentOp::kPosterize, true, 0},
    {"solarize", AugmentOp::kSolarize, true, 0},
    {"solarize_add", AugmentOp::kSolarizeAdd, true, 0},
    {"color", AugmentOp::kColor, true, 1},
    {"contrast", AugmentOp::kContrast, true, 1},
    {"brightness", AugmentOp::kBrightness, true, 1},
    {"sharpness", AugmentOp::kSharpness, true, 1},
    {"shear_x", AugmentOp::kShearX, true, 1},
    {"shear_y", AugmentOp::kShearY, true, 1},
    {"translate_x_rel", AugmentOp::kTranslateX, true, 1},
    {"translate_y_rel", AugmentOp::kTranslateY, true, 1},
    {"rotate", AugmentOp::kRotate, true, 1},
};

// Runs "rotate_-13.5_bicubic", "posterize_4" or "invert"; the tolerance, or -1 for an unknown key.
double Augment(absl::string_view key, Image* image) {
  if (key == "gray_L") {
    ToGray(image);
    return 0;
  }
  const Filter filter =
      absl::ConsumeSuffix(&key, "_bicubic") ? Filter::kBicubic : Filter::kBilinear;
  absl::ConsumeSuffix(&key, "_bilinear");
  for (const AugmentCase& c : kAugmentCases) {
    double argument = 0;
    absl::string_view rest = key;
    if (!absl::ConsumePrefix(&rest, c.name)) continue;
    if (c.has_argument &&
        (!absl::ConsumePrefix(&rest, "_") || !absl::SimpleAtod(rest, &argument))) {
      continue;
    }
    if (!c.has_argument && !rest.empty()) continue;
    ApplyAugmentOp(c.op, argument, filter, kFill, image);
    return c.tolerance;
  }
  return -1;
}

absl::StatusOr<DataCaseResult> RunAugment(const std::string& name, const std::string& source_name,
                                          const SafetensorsFile& file) {
  WorstError worst;
  ASSIGN_OR_RETURN(const Tensor stored, file.Read("augop.source"));
  const Image source = SyntheticPicture(source_name, stored.dim(0), stored.dim(1));
  ComparePixels("augop.source", source, stored, 0, 0, &worst);
  for (const SafetensorsFile::Entry& entry : file.entries()) {
    absl::string_view key = entry.name;
    if (!absl::ConsumePrefix(&key, "augop.") || key == "source") continue;
    Image image = Image::Copy(source);
    const double tolerance = Augment(key, &image);
    if (tolerance < 0) return DataError(absl::StrCat("no check for '", entry.name, "'"));
    ASSIGN_OR_RETURN(const Tensor expected, file.Read(entry.name));
    ComparePixels(entry.name, image, expected, tolerance, tolerance, &worst);
  }
  return worst.Result(name);
}

// ---- mixing

absl::Status CheckMix(const std::string& kind, const MixDraw& draw, const Json& cases,
                      const SafetensorsFile& file, WorstError* worst) {
  ASSIGN_OR_RETURN(const Tensor x, file.Read("x"));
  ASSIGN_OR_RETURN(const Tensor labels, file.Read("targets"));
  ASSIGN_OR_RETURN(const Tensor mixed, file.Read(kind + ".x"));
  const int64_t batch = x.dim(0);
  const int64_t height = x.dim(2);
  const int64_t width = x.dim(3);
  const int64_t pixels = height * width;
  // The file has channels first.
  const auto image = [&](const Tensor& t, int64_t i) {
    std::vector<float> values(pixels * 3);
    for (int64_t k = 0; k < pixels * 3; ++k) {
      values[k] = t.data<float>()[i * pixels * 3 + k % 3 * pixels + k / 3];
    }
    return values;
  };
  const int64_t num_classes = cases.at("num_classes");
  const double smoothing = cases.at("smoothing");
  const std::string target_name = absl::StrCat(kind, ".y_s", smoothing);
  ASSIGN_OR_RETURN(const Tensor targets, file.Read(target_name));
  std::vector<float> row(num_classes);
  for (int64_t i = 0; i < batch; ++i) {
    const int64_t partner = batch - 1 - i;
    std::vector<float> found = image(x, i);
    MixInto(draw, height, width, image(x, partner).data(), found.data());
    const std::vector<float> expected = image(mixed, i);
    for (int64_t k = 0; k < pixels * 3; ++k) {
      worst->Add(kind + ".x", std::abs(found[k] - expected[k]), kMixTolerance);
    }
    const int64_t* y = labels.data<int64_t>();
    SoftTarget(y[i], y[partner], draw.lambda, num_classes, smoothing, row.data());
    for (int64_t c = 0; c < num_classes; ++c) {
      worst->Add(target_name, std::abs(row[c] - targets.data<float>()[i * num_classes + c]),
                 kMixTolerance);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<DataCaseResult> RunMix(const std::string& name, const Json& cases,
                                      const SafetensorsFile& file) {
  WorstError worst;
  RETURN_IF_ERROR(CheckMix("mixup", {.lambda = cases.at("mixup_lambda")}, cases, file, &worst));
  const auto box = cases.at("cutmix_box_yl_yh_xl_xh").get<std::vector<int64_t>>();
  const MixDraw cutmix{cases.at("cutmix_lambda"), true,
                       Rect{box.at(0), box.at(2), box.at(1) - box.at(0), box.at(3) - box.at(2)}};
  RETURN_IF_ERROR(CheckMix("cutmix", cutmix, cases, file, &worst));
  return worst.Result(name);
}

// ---- files

class Runner {
 public:
  Runner(const std::string& golden_dir, const std::string& data_dir)
      : golden_dir_(golden_dir), data_dir_(data_dir) {}

  absl::Status RunFile(const std::string& json_name) {
    absl::string_view tag = absl::StripSuffix(json_name, ".json");
    const std::string name(tag);
    if (absl::ConsumePrefix(&tag, "transforms")) {
      ASSIGN_OR_RETURN(const Json meta, ReadJson(json_name));
      ASSIGN_OR_RETURN(const SafetensorsFile file, Open(name));
      ASSIGN_OR_RETURN(auto found, RunTransforms(name, meta, file, data_dir_));
      results_.insert(results_.end(), found.begin(), found.end());
    } else if (absl::ConsumePrefix(&tag, "data_tables")) {
      ASSIGN_OR_RETURN(const Json tables, ReadJson(json_name));
      const auto found = internal::RunTableCases(name, tables);
      results_.insert(results_.end(), found.begin(), found.end());
    } else if (absl::ConsumePrefix(&tag, "data_cases")) {
      RETURN_IF_ERROR(RunCases(json_name, std::string(tag)));
    }
    return absl::OkStatus();
  }

  std::vector<DataCaseResult> results() && { return std::move(results_); }

 private:
  absl::Status RunCases(const std::string& json_name, const std::string& tag) {
    ASSIGN_OR_RETURN(const Json cases, ReadJson(json_name));
    ASSIGN_OR_RETURN(const SafetensorsFile resample, Open("resample" + tag));
    ASSIGN_OR_RETURN(DataCaseResult result,
                     RunResample("resample" + tag, cases.at("resample"), resample));
    results_.push_back(std::move(result));
    ASSIGN_OR_RETURN(result, RunAugment("augop" + tag, cases.at("augop_source"), resample));
    results_.push_back(std::move(result));
    ASSIGN_OR_RETURN(const SafetensorsFile mix, Open("mix" + tag));
    ASSIGN_OR_RETURN(result, RunMix("mix" + tag, cases, mix));
    results_.push_back(std::move(result));
    results_.push_back(internal::RunShardingCase("sharding" + tag, cases.at("sharding")));
    return absl::OkStatus();
  }

  absl::StatusOr<Json> ReadJson(const std::string& name) const {
    const std::string path = JoinPath(golden_dir_, name);
    ASSIGN_OR_RETURN(const std::string text, PosixFileSystem().ReadFile(path));
    return ParseJson(text, path);
  }
  absl::StatusOr<SafetensorsFile> Open(const std::string& name) const {
    return SafetensorsFile::Open(PosixFileSystem(), JoinPath(golden_dir_, name + ".safetensors"));
  }

  std::string golden_dir_;
  std::string data_dir_;
  std::vector<DataCaseResult> results_;
};

}  // namespace

void internal::WorstError::Add(const std::string& where, double error, double tolerance) {
  double fraction = error == 0 ? 0 : tolerance == 0 ? INFINITY : error / tolerance;
  if (std::isnan(fraction)) fraction = INFINITY;
  if (where_.empty() || fraction > worst_) {
    worst_ = fraction;
    where_ = where;
  }
}

DataCaseResult internal::WorstError::Result(const std::string& name) const {
  // A case that compared nothing has not passed.
  if (where_.empty()) return {.name = name, .ok = false, .where = "nothing to compare"};
  return {.name = name, .ok = worst_ <= 1, .worst = worst_, .where = where_};
}

std::vector<DataCaseResult> RunDataCases(const std::string& golden_dir,
                                         const std::string& data_dir) {
  Runner runner(golden_dir, data_dir);
  std::vector<DataCaseResult> failures;
  const auto names = PosixFileSystem().ListDirectory(golden_dir);
  if (!names.ok()) {
    return {{.name = golden_dir, .ok = false, .where = std::string(names.status().message())}};
  }
  for (const std::string& name : *names) {
    if (!absl::EndsWith(name, ".json")) continue;
    absl::Status status;
    // nlohmann reports keys that a case lacks by throwing.
    try {
      status = runner.RunFile(name);
    } catch (const std::exception& e) {
      status = DataError(e.what());
    }
    if (!status.ok()) {
      failures.push_back({.name = name, .ok = false, .where = std::string(status.message())});
    }
  }
  std::vector<DataCaseResult> results = std::move(runner).results();
  results.insert(results.end(), failures.begin(), failures.end());
  return results;
}

}  // namespace tessera
