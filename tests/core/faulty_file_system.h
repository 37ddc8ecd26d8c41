// A file system in memory that fails the k-th operation or loses its power.
//
//   FaultyFileSystem fs;
//   fs.FailAt(3, absl::FailedPreconditionError("disk full"));   // operations count from 0
//   WriteFileAtomically(fs, "/run/a", "new");
//   fs.PowerLoss(FaultyFileSystem::Entries::kSyncedOnly);
// Every file has contents and synced contents, every directory entries and synced entries; a loss
// of power goes back to what was synced.
#ifndef TESSERA_TESTS_CORE_FAULTY_FILE_SYSTEM_H_
#define TESSERA_TESTS_CORE_FAULTY_FILE_SYSTEM_H_

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_split.h"
#include "core/file_system.h"
#include "core/status.h"

namespace tessera {

class FaultyFileSystem : public FileSystem {
 public:
  // What survives a loss of power besides synced contents: directory entries may reach the disk
  // before they are synced.
  enum class Entries { kSyncedOnly, kAll };

  // Fails the operation that comes after `skip` others that change the file system. A failing
  // Append writes half.
  void FailAt(int64_t skip, absl::Status error) {
    fail_at_ = num_operations_ + skip;
    error_ = std::move(error);
  }
  // As if the program died there: that operation and all later ones fail.
  void DieAt(int64_t skip) {
    FailAt(skip, absl::UnknownError("died"));
    dead_ = true;
  }
  void FailNever() {
    fail_at_ = -1;
    dead_ = false;
  }
  int64_t num_operations() const { return num_operations_; }

  void PowerLoss(Entries entries) { Crash(entries, root_.get()); }

  absl::StatusOr<std::unique_ptr<ReadableFile>> OpenReadable(const std::string& path) override {
    const std::shared_ptr<Node> node = Lookup(path);
    if (node == nullptr || node->is_directory) return NotFound(path);
    return std::make_unique<Reader>(node);
  }

  absl::StatusOr<std::unique_ptr<WritableFile>> OpenWritable(const std::string& path,
                                                             WriteMode mode) override {
    RETURN_IF_ERROR(Count());
    const std::shared_ptr<Node> parent = Lookup(DirectoryName(path));
    if (parent == nullptr) return NotFound(path);
    std::shared_ptr<Node>& node = parent->entries[BaseName(path)];
    if (node == nullptr) node = std::make_shared<Node>();
    if (mode == WriteMode::kTruncate) node->contents.clear();
    return std::make_unique<Writer>(this, node);
  }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    RETURN_IF_ERROR(Count());
    const std::shared_ptr<Node> node = Lookup(from);
    if (node == nullptr) return NotFound(from);
    const std::shared_ptr<Node> target = Lookup(to);
    if (target != nullptr && target->is_directory && !target->entries.empty()) {
      return absl::AlreadyExistsError(to);
    }
    Lookup(DirectoryName(from))->entries.erase(BaseName(from));
    Lookup(DirectoryName(to))->entries[BaseName(to)] = node;
    return absl::OkStatus();
  }

  absl::Status Remove(const std::string& path) override {
    RETURN_IF_ERROR(Count());
    const std::shared_ptr<Node> node = Lookup(path);
    if (node == nullptr || node->is_directory) return NotFound(path);
    Lookup(DirectoryName(path))->entries.erase(BaseName(path));
    return absl::OkStatus();
  }

  absl::Status RemoveTree(const std::string& path) override {
    RETURN_IF_ERROR(Count());
    if (const std::shared_ptr<Node> parent = Lookup(DirectoryName(path))) {
      parent->entries.erase(BaseName(path));
    }
    return absl::OkStatus();
  }

  absl::Status CreateDirectories(const std::string& path) override {
    RETURN_IF_ERROR(Count());
    std::shared_ptr<Node> node = root_;
    for (const std::string& name : Split(path)) {
      std::shared_ptr<Node>& child = node->entries[name];
      if (child == nullptr) {
        child = std::make_shared<Node>();
        child->is_directory = true;
      }
      node = child;
    }
    return absl::OkStatus();
  }

  absl::Status SyncDirectory(const std::string& path) override {
    RETURN_IF_ERROR(Count());
    const std::shared_ptr<Node> node = Lookup(path);
    if (node == nullptr) return NotFound(path);
    node->synced_entries = node->entries;
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& path) override {
    const std::shared_ptr<Node> node = Lookup(path);
    if (node == nullptr || !node->is_directory) return NotFound(path);
    std::vector<std::string> names;
    for (const auto& [name, child] : node->entries) names.push_back(name);
    return names;
  }

  absl::StatusOr<FileInfo> Stat(const std::string& path) override {
    const std::shared_ptr<Node> node = Lookup(path);
    if (node == nullptr) return NotFound(path);
    return FileInfo{.bytes = static_cast<int64_t>(node->contents.size()),
                    .modified = absl::UnixEpoch(),
                    .is_directory = node->is_directory};
  }

  absl::StatusOr<std::unique_ptr<DirectoryLock>> LockDirectory(const std::string& path) override {
    if (!locked_.insert(path).second) return absl::AlreadyExistsError(path);
    return std::make_unique<Lock>(this, path);
  }

 private:
  struct Node {
    bool is_directory = false;
    std::string contents, synced_contents;
    std::map<std::string, std::shared_ptr<Node>> entries, synced_entries;
  };

  class Reader : public ReadableFile {
   public:
    explicit Reader(std::shared_ptr<Node> node) : node_(std::move(node)) {}
    int64_t bytes() const override { return static_cast<int64_t>(node_->contents.size()); }
    absl::Status ReadAt(int64_t offset, int64_t count, void* dst) const override {
      if (offset + count > bytes()) return DataError("read beyond the end");
      if (count > 0) std::memcpy(dst, node_->contents.data() + offset, static_cast<size_t>(count));
      return absl::OkStatus();
    }

   private:
    std::shared_ptr<Node> node_;
  };

  class Writer : public WritableFile {
   public:
    Writer(FaultyFileSystem* fs, std::shared_ptr<Node> node) : fs_(fs), node_(std::move(node)) {}
    absl::Status Append(absl::string_view data) override {
      const absl::Status status = fs_->Count();
      if (!status.ok()) data.remove_suffix(data.size() - data.size() / 2);
      absl::StrAppend(&node_->contents, data);
      return status;
    }
    absl::Status Sync() override {
      RETURN_IF_ERROR(fs_->Count());
      node_->synced_contents = node_->contents;
      return absl::OkStatus();
    }
    absl::Status Close() override { return fs_->Count(); }

   private:
    FaultyFileSystem* fs_;
    std::shared_ptr<Node> node_;
  };

  class Lock : public DirectoryLock {
   public:
    Lock(FaultyFileSystem* fs, std::string path) : fs_(fs), path_(std::move(path)) {}
    ~Lock() override { fs_->locked_.erase(path_); }

   private:
    FaultyFileSystem* fs_;
    std::string path_;
  };

  static absl::Status NotFound(const std::string& path) {
    return absl::NotFoundError(absl::StrCat(path, ": no such file or directory"));
  }
  static std::vector<std::string> Split(const std::string& path) {
    return absl::StrSplit(path, '/', absl::SkipEmpty());
  }

  absl::Status Count() {
    const int64_t operation = num_operations_++;
    if (fail_at_ < 0) return absl::OkStatus();
    return operation == fail_at_ || (dead_ && operation > fail_at_) ? error_ : absl::OkStatus();
  }

  std::shared_ptr<Node> Lookup(const std::string& path) const {
    std::shared_ptr<Node> node = root_;
    for (const std::string& name : Split(path)) {
      const auto child = node->entries.find(name);
      if (child == node->entries.end()) return nullptr;
      node = child->second;
    }
    return node;
  }

  static void Crash(Entries entries, Node* node) {
    node->contents = node->synced_contents;
    if (entries == Entries::kSyncedOnly) node->entries = node->synced_entries;
    for (const auto& [name, child] : node->entries) Crash(entries, child.get());
  }

  std::shared_ptr<Node> root_ = [] {
    auto root = std::make_shared<Node>();
    root->is_directory = true;
    return root;
  }();
  std::set<std::string> locked_;
  int64_t num_operations_ = 0;
  int64_t fail_at_ = -1;
  bool dead_ = false;
  absl::Status error_;
};

}  // namespace tessera

#endif  // TESSERA_TESTS_CORE_FAULTY_FILE_SYSTEM_H_
