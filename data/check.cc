#include "data/check.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#include "core/status.h"
#include "data/sources/names.h"
#include "xxhash.h"

namespace tessera {
namespace {

constexpr int64_t kSamplesPerTask = 16;
constexpr size_t kMaxListed = 20;

struct SampleResult {
  absl::Status status;
  uint64_t hash = 0;
  int64_t bytes = 0;
  int64_t height = 0;
  int64_t width = 0;
  std::string warning;
};

SampleResult ReadSample(const ImageSource& source, int64_t i, const DecodeOptions& options,
                        std::vector<uint8_t>* bytes) {
  SampleResult result;
  try {
    result.status = source.ReadBytes(i, bytes);
    if (!result.status.ok()) return result;
    result.bytes = static_cast<int64_t>(bytes->size());
    result.hash = XXH64(bytes->data(), bytes->size(), 0);
    const absl::StatusOr<DecodedImage> image = source.Decode(*bytes, options);
    result.status = image.status();
    if (!image.ok()) return result;
    result.height = image->height;
    result.width = image->width;
    result.warning = image->warning;
  } catch (const std::exception& e) {  // such as no memory for a hostile file
    result.status = BadFileError(BadFile::kCorrupt, e.what());
  }
  return result;
}

// Hash and index of samples, in the order of the hashes.
using Hashes = std::vector<std::pair<uint64_t, int64_t>>;

// Goes through one split with several threads.
class SplitChecker {
 public:
  SplitChecker(const ImageSource& source, const DataConfig& config,
               const std::function<void(int64_t, int64_t)>& progress)
      : source_(source), progress_(progress) {
    options_.exif_rotate = config.exif_rotate;
    options_.max_pixels = config.max_pixels;
    const auto cores = static_cast<int64_t>(std::thread::hardware_concurrency());
    std::vector<std::thread> threads;
    for (int64_t t = 0; t < std::max<int64_t>(config.workers, cores); ++t) {
      threads.emplace_back([this] { Work(); });
    }
    for (std::thread& thread : threads) thread.join();
    std::sort(bad_.begin(), bad_.end(), ByIndex);
    std::sort(damaged_.begin(), damaged_.end(), ByIndex);
    std::sort(hashes_.begin(), hashes_.end());
  }

  void Fill(SplitReport* report) const {
    report->description = source_.description();
    report->num_samples = source_.num_samples();
    report->class_names = source_.class_names();
    report->samples_per_class.assign(source_.num_classes(), 0);
    for (int64_t i = 0; i < source_.num_samples(); ++i) {
      ++report->samples_per_class[source_.label(i)];
    }
    for (const auto& [index, picture] : bad_) report->bad.push_back(picture);
    for (const auto& [index, picture] : damaged_) report->damaged.push_back(picture);
    size_t first = 0;
    for (size_t i = 1; i < hashes_.size(); ++i) {
      if (hashes_[i].first != hashes_[first].first) first = i;
      if (i == first) continue;
      report->duplicates.emplace_back(source_.name(hashes_[first].second),
                                      source_.name(hashes_[i].second));
    }
    report->bytes = bytes_;
    report->min_height = min_height_;
    report->max_height = max_height_;
    report->min_width = min_width_;
    report->max_width = max_width_;
  }

  const Hashes& hashes() const { return hashes_; }

 private:
  using Indexed = std::pair<int64_t, BadPicture>;
  static bool ByIndex(const Indexed& a, const Indexed& b) { return a.first < b.first; }

  void Work() {
    std::vector<uint8_t> bytes;
    const int64_t n = source_.num_samples();
    while (true) {
      const int64_t begin = next_.fetch_add(kSamplesPerTask);
      if (begin >= n) return;
      const int64_t end = std::min(n, begin + kSamplesPerTask);
      std::vector<SampleResult> results;
      for (int64_t i = begin; i < end; ++i) {
        results.push_back(ReadSample(source_, i, options_, &bytes));
      }
      const std::lock_guard<std::mutex> lock(mutex_);
      for (int64_t i = begin; i < end; ++i) Add(i, results[i - begin]);
      done_ += end - begin;
      if (progress_) progress_(done_, n);
    }
  }

  void Add(int64_t i, const SampleResult& r) {
    bytes_ += r.bytes;
    if (!r.status.ok()) {
      bad_.push_back(
          {i, {source_.name(i), BadFileKind(r.status), std::string(r.status.message())}});
      return;
    }
    if (!r.warning.empty()) {
      damaged_.push_back({i, {source_.name(i), BadFile::kCorrupt, r.warning}});
    }
    const bool is_first = hashes_.empty();
    hashes_.emplace_back(r.hash, i);
    min_height_ = is_first ? r.height : std::min(min_height_, r.height);
    max_height_ = std::max(max_height_, r.height);
    min_width_ = is_first ? r.width : std::min(min_width_, r.width);
    max_width_ = std::max(max_width_, r.width);
  }

  const ImageSource& source_;
  const std::function<void(int64_t, int64_t)>& progress_;
  DecodeOptions options_;
  std::atomic<int64_t> next_{0};
  std::mutex mutex_;
  int64_t done_ = 0;
  int64_t bytes_ = 0;
  int64_t min_height_ = 0;
  int64_t max_height_ = 0;
  int64_t min_width_ = 0;
  int64_t max_width_ = 0;
  std::vector<Indexed> bad_;
  std::vector<Indexed> damaged_;
  Hashes hashes_;
};

// How many samples of `b` have bytes that `a` has too.
int64_t CountShared(const Hashes& a, const Hashes& b) {
  return std::count_if(b.begin(), b.end(), [&a](const auto& entry) {
    const auto it = std::lower_bound(a.begin(), a.end(), std::pair{entry.first, int64_t{0}});
    return it != a.end() && it->first == entry.first;
  });
}

void AppendClasses(const SplitReport& r, std::string* text) {
  std::vector<std::string> empty;
  for (size_t c = 0; c < r.class_names.size(); ++c) {
    if (r.samples_per_class[c] == 0) empty.push_back(r.class_names[c]);
  }
  const auto [least, most] =
      std::minmax_element(r.samples_per_class.begin(), r.samples_per_class.end());
  absl::StrAppend(text, "  ", r.class_names.size(), " classes with ", *least, " to ", *most,
                  " samples");
  if (r.class_names.size() <= kMaxListed) {
    for (size_t c = 0; c < r.class_names.size(); ++c) {
      absl::StrAppend(text, c == 0 ? ": " : ", ", r.class_names[c], " ", r.samples_per_class[c]);
    }
  }
  absl::StrAppend(text, "\n");
  if (empty.empty()) return;
  absl::StrAppend(text, "  ", empty.size(),
                  " classes without a sample: ", internal::ListNames(empty), "\n");
}

void AppendPictures(absl::string_view what, const std::vector<BadPicture>& pictures, size_t limit,
                    std::string* text) {
  absl::StrAppend(text, "  ", pictures.size(), " ", what, "\n");
  for (size_t i = 0; i < std::min(limit, pictures.size()); ++i) {
    absl::StrAppend(text, "    ", pictures[i].name, ": ", pictures[i].reason, "\n");
  }
  if (pictures.size() > limit) {
    absl::StrAppend(text, "    and ", pictures.size() - limit, " more\n");
  }
}

void AppendSplit(const SplitReport& r, std::string* text) {
  if (!r.error.empty()) {
    absl::StrAppend(text, r.name, ": ", r.error, "\n");
    return;
  }
  absl::StrAppendFormat(text, "%s: %s: %d samples, %.1f MB, heights %d to %d, widths %d to %d\n",
                        r.name, r.description, r.num_samples, static_cast<double>(r.bytes) * 1e-6,
                        r.min_height, r.max_height, r.min_width, r.max_width);
  AppendClasses(r, text);
  AppendPictures("bad pictures", r.bad, r.bad.size(), text);
  AppendPictures("damaged pictures that can be used", r.damaged, kMaxListed, text);
  absl::StrAppend(text, "  ", r.duplicates.size(), " duplicates\n");
  for (size_t i = 0; i < std::min(kMaxListed, r.duplicates.size()); ++i) {
    absl::StrAppend(text, "    ", r.duplicates[i].second, " is ", r.duplicates[i].first, "\n");
  }
}

}  // namespace

bool DataReport::ok() const {
  return class_mismatch.empty() &&
         std::all_of(splits.begin(), splits.end(),
                     [](const SplitReport& r) { return r.error.empty() && r.bad.empty(); });
}

std::string DataReport::Text() const {
  std::string text;
  for (const SplitReport& split : splits) AppendSplit(split, &text);
  if (!class_mismatch.empty()) absl::StrAppend(&text, class_mismatch, "\n");
  if (num_shared > 0) {
    absl::StrAppend(&text, num_shared, " evaluation pictures are in the training split too\n");
  }
  absl::StrAppend(&text, ok() ? "The data can be used.\n" : "The data has errors.\n");
  return text;
}

DataReport CheckData(const DataConfig& config, const std::vector<Split>& splits,
                     const std::function<void(int64_t, int64_t)>& progress) {
  DataReport report;
  std::unique_ptr<ImageSource> train;
  Hashes train_hashes;
  for (const Split split : splits) {
    SplitReport& r = report.splits.emplace_back();
    r.name = split == Split::kTrain ? "train" : "val";
    absl::StatusOr<std::unique_ptr<ImageSource>> source = OpenSource(config, split);
    if (!source.ok()) {
      r.error = std::string(source.status().message());
      continue;
    }
    const SplitChecker checker(**source, config, progress);
    checker.Fill(&r);
    if (split == Split::kTrain) {
      train = *std::move(source);
      train_hashes = checker.hashes();
    } else if (train != nullptr) {
      report.class_mismatch = std::string(CheckSameClasses(*train, **source).message());
      report.num_shared = CountShared(train_hashes, checker.hashes());
    }
  }
  return report;
}

}  // namespace tessera
