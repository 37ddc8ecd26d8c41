#include "data/sources/shard_source.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "core/check.h"
#include "core/file_system.h"
#include "core/parallel.h"
#include "core/status.h"
#include "data/sources/shard_index.h"
#include "data/sources/tar_reader.h"

namespace tessera::internal {
namespace {

// More shards than this are opened for each read: file descriptors are few.
constexpr size_t kMaxOpenShards = 256;

class ShardSource : public ImageSource {
 public:
  ShardSource(std::vector<std::string> paths, std::vector<ShardEntry> entries,
              std::vector<std::string> class_names)
      : paths_(std::move(paths)), entries_(std::move(entries)) {
    class_names_ = std::move(class_names);
  }

  absl::Status OpenFiles() {
    if (paths_.size() > kMaxOpenShards) return absl::OkStatus();
    for (const std::string& path : paths_) {
      ASSIGN_OR_RETURN(std::unique_ptr<ReadableFile> file, PosixFileSystem().OpenReadable(path));
      files_.push_back(std::move(file));
    }
    return absl::OkStatus();
  }

  int64_t num_samples() const override { return static_cast<int64_t>(entries_.size()); }
  int32_t label(int64_t i) const override { return entries_[i].label; }

  // Read from the shard when asked for: names would take more memory than all the rest.
  std::string name(int64_t i) const override {
    const ShardEntry& entry = entries_[i];
    const std::string& path = paths_[entry.shard];
    if (const auto file = PosixFileSystem().OpenReadable(path); file.ok()) {
      const auto member = TarReader(**file, path, entry.offset - entry.header_bytes).Next();
      if (member.ok() && member->has_value()) return absl::StrCat(path, ":", (*member)->name);
    }
    return absl::StrCat(path, ": member at byte ", entry.offset);
  }

  std::string description() const override {
    if (paths_.size() == 1) return absl::StrCat("shard ", paths_[0]);
    return absl::StrCat(paths_.size(), " shards ", paths_.front(), " to ", paths_.back());
  }

  absl::Status ReadBytes(int64_t i, std::vector<uint8_t>* bytes) const override {
    const ShardEntry& entry = entries_[i];
    bytes->resize(entry.bytes);
    absl::Status status;
    if (!files_.empty()) {
      status = files_[entry.shard]->ReadAt(entry.offset, entry.bytes, bytes->data());
    } else {
      const auto file = PosixFileSystem().OpenReadable(paths_[entry.shard]);
      status =
          file.ok() ? (*file)->ReadAt(entry.offset, entry.bytes, bytes->data()) : file.status();
    }
    if (!status.ok()) return BadFileError(BadFile::kUnreadable, status.message());
    return absl::OkStatus();
  }

 private:
  std::vector<std::string> paths_;
  std::vector<std::unique_ptr<ReadableFile>> files_;  // one per path, or none
  std::vector<ShardEntry> entries_;
};

absl::StatusOr<std::vector<ShardIndex>> LoadIndexes(const std::vector<std::string>& paths) {
  std::vector<absl::StatusOr<ShardIndex>> loaded(paths.size());
  ParallelFor(static_cast<int64_t>(paths.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) loaded[i] = LoadShardIndex(paths[i]);
  });
  std::vector<ShardIndex> result;
  for (auto& index : loaded) {
    RETURN_IF_ERROR(index.status());
    result.push_back(*std::move(index));
  }
  return result;
}

// The class folders of all shards, each once.
std::vector<std::string> AllFolders(const std::vector<ShardIndex>& indexes) {
  std::vector<std::string> folders;
  for (const ShardIndex& index : indexes) {
    folders.insert(folders.end(), index.folders.begin(), index.folders.end());
  }
  std::sort(folders.begin(), folders.end());
  folders.erase(std::unique(folders.begin(), folders.end()), folders.end());
  return folders;
}

// Replaces positions in each shard's own list of folders by class numbers.
absl::StatusOr<std::vector<std::string>> NumberByFolder(const std::optional<ClassTable>& table,
                                                        const std::vector<std::string>& folders,
                                                        std::vector<ShardIndex>* indexes) {
  ASSIGN_OR_RETURN(FolderClasses classes, NumberFolders(table, folders));
  absl::flat_hash_map<std::string, int32_t> numbers;
  for (size_t i = 0; i < folders.size(); ++i) numbers[folders[i]] = classes.labels[i];
  for (ShardIndex& index : *indexes) {
    for (ShardEntry& entry : index.entries) entry.label = numbers[index.folders[entry.label]];
  }
  return std::move(classes.names);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ImageSource>> OpenShards(std::vector<std::string> paths,
                                                        const std::optional<ClassTable>& table) {
  ASSIGN_OR_RETURN(std::vector<ShardIndex> indexes, LoadIndexes(paths));
  const std::vector<std::string> folders = AllFolders(indexes);
  std::vector<std::string> names;
  if (!folders.empty()) {
    for (size_t s = 0; s < indexes.size(); ++s) {
      if (!indexes[s].folders.empty() || indexes[s].entries.empty()) continue;
      return DataError(absl::StrCat(paths[s],
                                    ": labels are numbers, but other shards have class "
                                    "folders; expected one way for all"));
    }
    auto numbered = NumberByFolder(table, folders, &indexes);
    if (!numbered.ok()) return Annotate(numbered.status(), paths.front());
    names = *std::move(numbered);
  }
  size_t total = 0;
  int32_t max_label = 0;
  for (const ShardIndex& index : indexes) total += index.entries.size();
  std::vector<ShardEntry> entries;
  entries.reserve(total);
  for (size_t s = 0; s < indexes.size(); ++s) {
    if (indexes[s].entries.empty()) LOG(WARNING) << paths[s] << ": no picture in the shard";
    for (ShardEntry entry : std::exchange(indexes[s].entries, {})) {
      entry.shard = static_cast<int32_t>(s);
      max_label = std::max(max_label, entry.label);
      entries.push_back(entry);
    }
  }
  if (entries.empty()) {
    return DataError(absl::StrCat(paths.front(), ": no picture in ", paths.size(),
                                  " shards; expected members CLASS/NAME.jpg, or pairs NAME.jpg and "
                                  "NAME.cls"));
  }
  if (folders.empty()) {
    auto numbered = NumberedClasses(table, max_label);
    if (!numbered.ok()) return Annotate(numbered.status(), paths.front());
    names = *std::move(numbered);
  }
  auto source =
      std::make_unique<ShardSource>(std::move(paths), std::move(entries), std::move(names));
  RETURN_IF_ERROR(source->OpenFiles());
  return source;
}

}  // namespace tessera::internal
