#include "data/sources/idx_source.h"

#include <archive.h>
#include <archive_entry.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "core/status.h"

namespace tessera::internal {
namespace {

constexpr int64_t kMaxBytes = int64_t{8} << 30;  // of one file, unpacked
constexpr int64_t kMaxSide = 65'536;
constexpr size_t kBlockBytes = 64 << 10;

// A file's bytes, unpacked where it is gzipped.
class Stream {
 public:
  static absl::StatusOr<std::unique_ptr<Stream>> Open(const std::string& path) {
    std::unique_ptr<Stream> stream(new Stream(path));
    archive* a = stream->archive_;
    archive_entry* entry = nullptr;
    archive_read_support_filter_gzip(a);
    archive_read_support_format_raw(a);
    if (archive_read_open_filename(a, path.c_str(), kBlockBytes) != ARCHIVE_OK ||
        archive_read_next_header(a, &entry) != ARCHIVE_OK) {
      return stream->Failed();
    }
    return stream;
  }
  ~Stream() { archive_read_free(archive_); }

  // Exactly `count` bytes.
  absl::Status Read(int64_t count, uint8_t* out) {
    int64_t done = 0;
    while (done < count) {
      const la_ssize_t got = archive_read_data(archive_, out + done, count - done);
      if (got < 0) return Failed();
      if (got == 0) {
        return DataError(absl::StrCat(path_, ": ends after ", position_ + done, " bytes, expected ",
                                      position_ + count, "; the file is cut: copy it again"));
      }
      done += got;
    }
    position_ += count;
    return absl::OkStatus();
  }

  // Big-endian.
  absl::StatusOr<int64_t> ReadNumber() {
    uint8_t b[4];
    RETURN_IF_ERROR(Read(4, b));
    return int64_t{b[0]} << 24 | int64_t{b[1]} << 16 | int64_t{b[2]} << 8 | b[3];
  }

 private:
  explicit Stream(std::string path) : archive_(archive_read_new()), path_(std::move(path)) {}

  absl::Status Failed() const {
    const char* reason = archive_error_string(archive_);
    return DataError(
        absl::StrCat(path_, ": cannot read: ", reason == nullptr ? "unknown reason" : reason));
  }

  archive* archive_;
  std::string path_;
  int64_t position_ = 0;
};

struct IdxArray {
  std::vector<int64_t> shape;
  std::vector<uint8_t> values;
};

// An array of bytes with `rank` dimensions.
absl::StatusOr<IdxArray> ReadIdx(const std::string& path, int64_t rank) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, Stream::Open(path));
  ASSIGN_OR_RETURN(const int64_t magic, stream->ReadNumber());
  if (magic != 0x800 + rank) {
    return DataError(absl::StrFormat(
        "%s: starts with %#010x, expected %#010x: an IDX file of bytes with %d dimensions", path,
        magic, 0x800 + rank, rank));
  }
  IdxArray array;
  int64_t count = 1;
  for (int64_t axis = 0; axis < rank; ++axis) {
    ASSIGN_OR_RETURN(const int64_t size, stream->ReadNumber());
    if (size <= 0 || (axis > 0 && size > kMaxSide) || count > kMaxBytes / size) {
      return DataError(absl::StrCat(path, ": dimension ", axis, " is ", size));
    }
    array.shape.push_back(size);
    count *= size;
  }
  // In growing steps, so that a header which promises too much costs no memory.
  for (int64_t done = 0; done < count;) {
    const int64_t step = std::min(count - done, std::max<int64_t>(done, 64 << 10));
    array.values.resize(done + step);
    RETURN_IF_ERROR(stream->Read(step, array.values.data() + done));
    done += step;
  }
  return array;
}

class IdxSource : public ImageSource {
 public:
  IdxSource(std::string path, IdxArray images, IdxArray labels,
            std::vector<std::string> class_names)
      : path_(std::move(path)), images_(std::move(images)), labels_(std::move(labels)) {
    class_names_ = std::move(class_names);
  }

  int64_t num_samples() const override { return images_.shape[0]; }
  int32_t label(int64_t i) const override { return labels_.values[i]; }
  std::string name(int64_t i) const override { return absl::StrCat(path_, "[", i, "]"); }
  std::string description() const override { return absl::StrCat("IDX file ", path_); }

  absl::Status ReadBytes(int64_t i, std::vector<uint8_t>* bytes) const override {
    const int64_t size = images_.shape[1] * images_.shape[2];
    bytes->assign(images_.values.begin() + i * size, images_.values.begin() + (i + 1) * size);
    return absl::OkStatus();
  }

  absl::StatusOr<DecodedImage> Decode(absl::Span<const uint8_t> bytes,
                                      const DecodeOptions& options) const override {
    DecodedImage result;
    result.height = images_.shape[1];
    result.width = images_.shape[2];
    RETURN_IF_ERROR(CheckImageSize(result.height, result.width, options));
    result.covers = {0, 0, result.height, result.width};
    result.pixels = Image(result.height, result.width);
    uint8_t* out = result.pixels.data();
    for (const uint8_t gray : bytes) {
      std::fill_n(out, 3, gray);
      out += 3;
    }
    return result;
  }

 private:
  std::string path_;
  IdxArray images_;
  IdxArray labels_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ImageSource>> OpenIdx(const std::string& images_path,
                                                     const std::string& labels_path,
                                                     const std::optional<ClassTable>& table) {
  ASSIGN_OR_RETURN(IdxArray labels, ReadIdx(labels_path, 1));
  ASSIGN_OR_RETURN(IdxArray images, ReadIdx(images_path, 3));
  if (images.shape[0] != labels.shape[0]) {
    return DataError(absl::StrCat(images_path, ": ", images.shape[0], " pictures, but ",
                                  labels.shape[0], " labels in ", labels_path));
  }
  const uint8_t max_label = *std::max_element(labels.values.begin(), labels.values.end());
  auto names = NumberedClasses(table, max_label);
  if (!names.ok()) return Annotate(names.status(), labels_path);
  return std::make_unique<IdxSource>(images_path, std::move(images), std::move(labels),
                                     *std::move(names));
}

}  // namespace tessera::internal
