#include "data/sources/shard_index.h"

#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "core/check.h"
#include "core/status.h"
#include "data/sources/classes.h"
#include "data/sources/names.h"
#include "data/sources/tar_reader.h"
#include "xxhash.h"

namespace tessera::internal {
namespace {

constexpr int64_t kMaxClsBytes = 64;
constexpr uint64_t kMagic = 0x3130584449535354;  // "TSSIDX01" as the bytes of the file

// The index file: this header, the folders' names each ended by a zero byte, the entries, and the
// XXH64 of all that.
struct FileHeader {
  uint64_t magic;
  int64_t shard_bytes;
  int64_t shard_modified_ns;
  int64_t folder_bytes;
  int64_t num_entries;
};

FileHeader HeaderFor(const FileInfo& shard) {
  return {kMagic, shard.bytes, absl::ToUnixNanos(shard.modified), 0, 0};
}

template <typename T>
void AppendBytes(std::string* out, const T* values, size_t count) {
  out->append(reinterpret_cast<const char*>(values), count * sizeof(T));
}

std::string Serialize(const ShardIndex& index, const FileInfo& shard) {
  std::string folders;
  for (const std::string& folder : index.folders) folders.append(folder.c_str(), folder.size() + 1);
  FileHeader header = HeaderFor(shard);
  header.folder_bytes = static_cast<int64_t>(folders.size());
  header.num_entries = static_cast<int64_t>(index.entries.size());
  std::string out;
  AppendBytes(&out, &header, 1);
  out += folders;
  AppendBytes(&out, index.entries.data(), index.entries.size());
  const uint64_t hash = XXH64(out.data(), out.size(), 0);
  AppendBytes(&out, &hash, 1);
  return out;
}

// None if the bytes are not the index of this shard as it is now.
std::optional<ShardIndex> Deserialize(const std::string& bytes, const FileInfo& shard) {
  FileHeader header;
  uint64_t hash = 0;
  if (bytes.size() < sizeof(header) + sizeof(hash)) return std::nullopt;
  const size_t body = bytes.size() - sizeof(hash);
  std::memcpy(&header, bytes.data(), sizeof(header));
  std::memcpy(&hash, bytes.data() + body, sizeof(hash));
  const FileHeader expected = HeaderFor(shard);
  if (header.magic != kMagic || header.shard_bytes != expected.shard_bytes ||
      header.shard_modified_ns != expected.shard_modified_ns ||
      hash != XXH64(bytes.data(), body, 0)) {
    return std::nullopt;
  }
  const auto room = static_cast<int64_t>(body - sizeof(header));
  if (header.folder_bytes < 0 || header.folder_bytes > room || header.num_entries < 0 ||
      header.num_entries > room ||
      room != header.folder_bytes + header.num_entries * int64_t{sizeof(ShardEntry)}) {
    return std::nullopt;
  }
  ShardIndex index;
  const char* at = bytes.data() + sizeof(header);
  for (const char* end = at + header.folder_bytes; at < end;) {
    index.folders.emplace_back(at);
    at += index.folders.back().size() + 1;
  }
  index.entries.resize(header.num_entries);
  std::memcpy(index.entries.data(), bytes.data() + sizeof(header) + header.folder_bytes,
              header.num_entries * sizeof(ShardEntry));
  return index;
}

// "b" of "a/b/c.jpg"; empty if there is no folder.
absl::string_view FolderOf(absl::string_view name) {
  const size_t slash = name.rfind('/');
  if (slash == absl::string_view::npos) return {};
  const absl::string_view folder = name.substr(0, slash);
  return folder.substr(folder.rfind('/') + 1);
}

// The name up to the first dot of its last part.
absl::string_view KeyOf(absl::string_view name) {
  return name.substr(0, name.find('.', name.rfind('/') + 1));
}

// Puts the members of a shard together to samples.
class IndexBuilder {
 public:
  IndexBuilder(std::string path, const ReadableFile& file)
      : path_(std::move(path)), file_(file), reader_(file, path_) {}

  absl::StatusOr<ShardIndex> Build() {
    while (true) {
      ASSIGN_OR_RETURN(const std::optional<TarMember> member, reader_.Next());
      if (!member.has_value()) break;
      if (member->is_file) RETURN_IF_ERROR(Add(*member));
    }
    RETURN_IF_ERROR(FinishSample());
    if (reader_.lacks_end_marker()) {
      LOG(WARNING) << path_ << ": no end-of-archive marker; the shard may be cut";
    }
    if (numbered_ && !index_.folders.empty()) {
      return DataError(absl::StrCat(path_,
                                    ": some pictures have a .cls member and others only a "
                                    "class folder; expected one way for all"));
    }
    return std::move(index_);
  }

 private:
  absl::Status Add(const TarMember& member) {
    const bool is_image = IsImageName(member.name);
    if (!is_image && !absl::EndsWith(member.name, ".cls")) return absl::OkStatus();
    const absl::string_view key = KeyOf(member.name);
    if (key != key_ || (is_image && image_.has_value())) {
      RETURN_IF_ERROR(FinishSample());
      key_ = std::string(key);
    }
    if (is_image) {
      if (member.bytes > std::numeric_limits<uint32_t>::max()) {
        return DataError(absl::StrCat(path_, ": '", member.name, "' is larger than 4 GiB"));
      }
      image_ = member;
      return absl::OkStatus();
    }
    const absl::StatusOr<int32_t> label = ReadLabel(member);
    if (!label.ok()) return Annotate(label.status(), absl::StrCat(path_, ": ", member.name));
    label_ = *label;
    return absl::OkStatus();
  }

  absl::StatusOr<int32_t> ReadLabel(const TarMember& member) const {
    if (member.bytes > kMaxClsBytes) {
      return DataError(absl::StrCat(member.bytes, " bytes, expected the number of a class"));
    }
    std::string text(member.bytes, '\0');
    RETURN_IF_ERROR(file_.ReadAt(member.data_offset, member.bytes, text.data()));
    return ParseLabel(absl::StripAsciiWhitespace(text));
  }

  absl::Status FinishSample() {
    const std::optional<TarMember> image = std::exchange(image_, std::nullopt);
    const std::optional<int32_t> label = std::exchange(label_, std::nullopt);
    if (!image.has_value()) return absl::OkStatus();
    ShardEntry entry;
    entry.offset = image->data_offset;
    entry.bytes = static_cast<uint32_t>(image->bytes);
    entry.header_bytes = static_cast<uint32_t>(image->data_offset - image->header_offset);
    const absl::string_view folder = FolderOf(image->name);
    if (label.has_value()) {
      entry.label = *label;
      numbered_ = true;
    } else if (!folder.empty() && folder != ".") {
      const auto [it, is_new] =
          folder_numbers_.emplace(folder, static_cast<int32_t>(index_.folders.size()));
      if (is_new) index_.folders.emplace_back(folder);
      entry.label = it->second;
    } else {
      return DataError(absl::StrCat(path_, ": '", image->name,
                                    "' has no label; expected it in a class folder, or a member '",
                                    KeyOf(image->name), ".cls' next to it"));
    }
    index_.entries.push_back(entry);
    return absl::OkStatus();
  }

  std::string path_;
  const ReadableFile& file_;
  TarReader reader_;
  ShardIndex index_;
  absl::flat_hash_map<std::string, int32_t> folder_numbers_;
  bool numbered_ = false;
  // The sample whose members are being read.
  std::string key_;
  std::optional<TarMember> image_;
  std::optional<int32_t> label_;
};

}  // namespace

absl::StatusOr<ShardIndex> BuildShardIndex(const std::string& path, const ReadableFile& file) {
  return IndexBuilder(path, file).Build();
}

absl::StatusOr<ShardIndex> LoadShardIndex(const std::string& shard_path) {
  FileSystem& fs = PosixFileSystem();
  ASSIGN_OR_RETURN(const FileInfo info, fs.Stat(shard_path));
  const std::string index_path = shard_path + ".index";
  if (const auto saved = fs.ReadFile(index_path); saved.ok()) {
    if (std::optional<ShardIndex> index = Deserialize(*saved, info)) return *std::move(index);
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<ReadableFile> file, fs.OpenReadable(shard_path));
  ASSIGN_OR_RETURN(ShardIndex index, BuildShardIndex(shard_path, *file));
  // A folder that can not be written to costs a second reading next time, nothing more.
  const absl::Status saved = WriteFileAtomically(fs, index_path, Serialize(index, info));
  if (!saved.ok()) VLOG(1) << saved.message();
  return index;
}

}  // namespace tessera::internal
