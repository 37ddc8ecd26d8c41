// Files and directories behind one small interface, so that tests can fail any operation or drop
// un-synced data.
//
// Nothing is ever half-written: a file is written to a temporary name, synced and renamed
// (AtomicFile), a group of files goes into a temporary directory that is renamed as a whole
// (AtomicDirectory). Errors name the path, the operation and the system's reason: NotFound,
// PermissionDenied, AlreadyExists, FailedPrecondition for a full disk, otherwise Unknown.
#ifndef TESSERA_CORE_FILE_SYSTEM_H_
#define TESSERA_CORE_FILE_SYSTEM_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace tessera {

// An open file to read from; thread-safe.
class ReadableFile {
 public:
  virtual ~ReadableFile() = default;
  virtual int64_t bytes() const = 0;  // size when it was opened
  // Fills dst[0, count) from byte `offset`; DataLoss if the file ends before.
  virtual absl::Status ReadAt(int64_t offset, int64_t count, void* dst) const = 0;
};

// An open file to write to. Destroying it closes it and loses any error: call Close.
class WritableFile {
 public:
  virtual ~WritableFile() = default;
  virtual absl::Status Append(
      absl::string_view data) = 0;  // straight to the system, without a buffer
  virtual absl::Status Sync() = 0;  // on disk when it returns
  virtual absl::Status Close() = 0;
};

// Held while it lives; see FileSystem::LockDirectory.
class DirectoryLock {
 public:
  virtual ~DirectoryLock() = default;
};

struct FileInfo {
  int64_t bytes = 0;
  absl::Time modified;
  bool is_directory = false;
};

enum class WriteMode { kTruncate, kAppend };

class FileSystem {
 public:
  virtual ~FileSystem() = default;

  // Regular files only: a directory, a pipe or a device is an error, not a wait.
  virtual absl::StatusOr<std::unique_ptr<ReadableFile>> OpenReadable(const std::string& path) = 0;
  // Creates the file if there is none.
  virtual absl::StatusOr<std::unique_ptr<WritableFile>> OpenWritable(
      const std::string& path, WriteMode mode = WriteMode::kTruncate) = 0;
  // Replaces a file at `to`; a directory replaces an empty directory only.
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;
  virtual absl::Status Remove(const std::string& path) = 0;      // a file
  virtual absl::Status RemoveTree(const std::string& path) = 0;  // anything; none there is fine
  virtual absl::Status CreateDirectories(const std::string& path) = 0;
  virtual absl::Status SyncDirectory(const std::string& path) = 0;  // its entries are on disk
  // Names, not paths, in byte order, without "." and "..".
  virtual absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& path) = 0;
  virtual absl::StatusOr<FileInfo> Stat(const std::string& path) = 0;
  // Claims a directory for this process until the lock or the process ends; AlreadyExists if
  // another one has it.
  virtual absl::StatusOr<std::unique_ptr<DirectoryLock>> LockDirectory(const std::string& path) = 0;

  // The whole file; an error if it is larger than `max_bytes`.
  absl::StatusOr<std::string> ReadFile(const std::string& path,
                                       int64_t max_bytes = std::numeric_limits<int64_t>::max());
  bool Exists(const std::string& path) { return Stat(path).ok(); }
};

FileSystem& PosixFileSystem();

// A file that appears at `path` complete or not at all; what was there before stays until Commit
// has succeeded. Needs the directory to exist. `fs` must outlive it.
class AtomicFile {
 public:
  static absl::StatusOr<AtomicFile> Create(FileSystem& fs, const std::string& path);
  AtomicFile(AtomicFile&& other) noexcept = default;
  AtomicFile& operator=(AtomicFile&& other) = delete;
  ~AtomicFile();  // without Commit: removes the temporary file

  absl::Status Append(absl::string_view data) { return file_->Append(data); }
  absl::Status Commit();  // sync, rename, sync the directory

 private:
  AtomicFile(FileSystem& fs, std::string path, std::string temp_path,
             std::unique_ptr<WritableFile> file);

  FileSystem* fs_;
  std::string path_;
  std::string temp_path_;
  std::unique_ptr<WritableFile> file_;  // null after Commit and in a moved-from object
};

absl::Status WriteFileAtomically(FileSystem& fs, const std::string& path,
                                 absl::string_view contents);

// A directory that appears at `path` with all its files or not at all. Until then they are in
// ".tmp-NAME" beside it, where a run that died may have left one: Create removes that. `fs` must
// outlive it.
class AtomicDirectory {
 public:
  static absl::StatusOr<AtomicDirectory> Create(FileSystem& fs, const std::string& path);
  AtomicDirectory(AtomicDirectory&& other) noexcept;
  AtomicDirectory& operator=(AtomicDirectory&& other) = delete;
  ~AtomicDirectory();  // without Publish: removes the temporary directory

  // Where to write the files; who writes there directly syncs each of them (WriteFileAtomically
  // does).
  const std::string& temp_path() const { return temp_path_; }
  absl::Status WriteFile(absl::string_view name, absl::string_view contents);
  // Syncs the directory, renames it and syncs its parent. AlreadyExists if something is at `path`.
  absl::Status Publish();
  // Like Publish, but takes the place of a directory at `path`. That one is called ".old-NAME"
  // until the new one is there; should the program die in between, ResolveReplaced finds it.
  absl::Status Replace();

 private:
  AtomicDirectory(FileSystem& fs, std::string path, std::string temp_path);

  FileSystem* fs_;  // null once published and in a moved-from object
  std::string path_;
  std::string temp_path_;
};

// Where the directory `path` is to be read: at `path`, or, when a replacement was cut short, where
// it left the directory of before.
std::string ResolveReplaced(FileSystem& fs, const std::string& path);

// "a/b" from "a" and "b"; an absolute `name` stays as it is.
std::string JoinPath(absl::string_view directory, absl::string_view name);
// "a/b" of "a/b/c"; "." of "c"; "/" of "/c".
std::string DirectoryName(absl::string_view path);
// "c" of "a/b/c".
std::string BaseName(absl::string_view path);

}  // namespace tessera

#endif  // TESSERA_CORE_FILE_SYSTEM_H_
