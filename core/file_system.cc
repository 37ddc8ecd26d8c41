#include "core/file_system.h"

#include <unistd.h>

#include <atomic>
#include <utility>

#include "absl/strings/match.h"
#include "core/check.h"
#include "core/status.h"

namespace tessera {
namespace {

// "a/b" of "a/b//"; the root stays "/".
absl::string_view WithoutTrailingSlashes(absl::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  return path;
}

std::string ReplacedPath(const std::string& path) {
  return JoinPath(DirectoryName(path), absl::StrFormat(".old-%s", BaseName(path)));
}

}  // namespace

absl::StatusOr<std::string> FileSystem::ReadFile(const std::string& path, int64_t max_bytes) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ReadableFile> file, OpenReadable(path));
  if (file->bytes() > max_bytes) {
    return DataError(
        absl::StrFormat("%s: %d bytes, at most %d are allowed", path, file->bytes(), max_bytes));
  }
  std::string contents(static_cast<size_t>(file->bytes()), '\0');
  RETURN_IF_ERROR(file->ReadAt(0, file->bytes(), contents.data()));
  return contents;
}

std::string JoinPath(absl::string_view directory, absl::string_view name) {
  if (directory.empty() || absl::StartsWith(name, "/")) return std::string(name);
  return absl::StrFormat("%s%s%s", directory, directory.back() == '/' ? "" : "/", name);
}

std::string DirectoryName(absl::string_view path) {
  const absl::string_view trimmed = WithoutTrailingSlashes(path);
  const size_t slash = trimmed.rfind('/');
  if (slash == absl::string_view::npos) return ".";
  return std::string(WithoutTrailingSlashes(trimmed.substr(0, slash + 1)));
}

std::string BaseName(absl::string_view path) {
  const absl::string_view trimmed = WithoutTrailingSlashes(path);
  return std::string(trimmed.substr(trimmed.rfind('/') + 1));
}

AtomicFile::AtomicFile(FileSystem& fs, std::string path, std::string temp_path,
                       std::unique_ptr<WritableFile> file)
    : fs_(&fs), path_(std::move(path)), temp_path_(std::move(temp_path)), file_(std::move(file)) {}

absl::StatusOr<AtomicFile> AtomicFile::Create(FileSystem& fs, const std::string& path) {
  // Unique, so that two writers of one path never share a temporary file: the last one to commit
  // wins.
  static std::atomic<int64_t> counter{0};
  std::string temp_path = JoinPath(
      DirectoryName(path), absl::StrFormat(".tmp-%s-%d-%d", BaseName(path), getpid(), ++counter));
  ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, fs.OpenWritable(temp_path));
  return AtomicFile(fs, path, std::move(temp_path), std::move(file));
}

AtomicFile::~AtomicFile() {
  if (file_ == nullptr) return;
  file_.reset();
  const absl::Status removed = fs_->Remove(temp_path_);
  if (!removed.ok()) LOG(WARNING) << removed.message();
}

absl::Status AtomicFile::Commit() {
  CHECK(file_ != nullptr) << path_ << ": committed twice";
  RETURN_IF_ERROR(file_->Sync());
  RETURN_IF_ERROR(file_->Close());
  RETURN_IF_ERROR(fs_->Rename(temp_path_, path_));
  file_.reset();
  return fs_->SyncDirectory(DirectoryName(path_));
}

absl::Status WriteFileAtomically(FileSystem& fs, const std::string& path,
                                 absl::string_view contents) {
  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(fs, path));
  RETURN_IF_ERROR(file.Append(contents));
  return file.Commit();
}

AtomicDirectory::AtomicDirectory(FileSystem& fs, std::string path, std::string temp_path)
    : fs_(&fs), path_(std::move(path)), temp_path_(std::move(temp_path)) {}

AtomicDirectory::AtomicDirectory(AtomicDirectory&& other) noexcept
    : fs_(std::exchange(other.fs_, nullptr)),
      path_(std::move(other.path_)),
      temp_path_(std::move(other.temp_path_)) {}

absl::StatusOr<AtomicDirectory> AtomicDirectory::Create(FileSystem& fs, const std::string& path) {
  std::string temp_path = JoinPath(DirectoryName(path), absl::StrFormat(".tmp-%s", BaseName(path)));
  RETURN_IF_ERROR(fs.RemoveTree(temp_path));
  RETURN_IF_ERROR(fs.CreateDirectories(temp_path));
  return AtomicDirectory(fs, path, std::move(temp_path));
}

AtomicDirectory::~AtomicDirectory() {
  if (fs_ == nullptr) return;
  const absl::Status removed = fs_->RemoveTree(temp_path_);
  if (!removed.ok()) LOG(WARNING) << removed.message();
}

absl::Status AtomicDirectory::WriteFile(absl::string_view name, absl::string_view contents) {
  ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file,
                   fs_->OpenWritable(JoinPath(temp_path_, name)));
  RETURN_IF_ERROR(file->Append(contents));
  RETURN_IF_ERROR(file->Sync());
  return file->Close();
}

absl::Status AtomicDirectory::Publish() {
  CHECK(fs_ != nullptr) << path_ << ": published twice";
  if (fs_->Exists(path_)) return absl::AlreadyExistsError(absl::StrFormat("%s exists", path_));
  RETURN_IF_ERROR(fs_->SyncDirectory(temp_path_));
  RETURN_IF_ERROR(fs_->Rename(temp_path_, path_));
  return std::exchange(fs_, nullptr)->SyncDirectory(DirectoryName(path_));
}

absl::Status AtomicDirectory::Replace() {
  CHECK(fs_ != nullptr) << path_ << ": published twice";
  RETURN_IF_ERROR(fs_->SyncDirectory(temp_path_));
  const std::string replaced_path = ReplacedPath(path_);
  // Without a directory at `path` the replaced one may be the only good one: it stays.
  if (fs_->Exists(path_)) {
    RETURN_IF_ERROR(fs_->RemoveTree(replaced_path));
    RETURN_IF_ERROR(fs_->Rename(path_, replaced_path));
  }
  RETURN_IF_ERROR(fs_->Rename(temp_path_, path_));
  FileSystem& fs = *std::exchange(fs_, nullptr);
  RETURN_IF_ERROR(fs.SyncDirectory(DirectoryName(path_)));
  if (!fs.Exists(replaced_path)) return absl::OkStatus();
  const absl::Status removed = fs.RemoveTree(replaced_path);
  if (!removed.ok()) LOG(WARNING) << removed.message();
  return absl::OkStatus();
}

std::string ResolveReplaced(FileSystem& fs, const std::string& path) {
  const std::string replaced_path = ReplacedPath(path);
  return !fs.Exists(path) && fs.Exists(replaced_path) ? replaced_path : path;
}

}  // namespace tessera
