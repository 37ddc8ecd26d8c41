// The operating system's files, by POSIX calls.
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "core/file_system.h"
#include "core/status.h"

namespace tessera {
namespace {

absl::Status ErrorOf(absl::string_view path, absl::string_view operation, int error) {
  const std::string what =
      absl::StrFormat("%s: cannot %s: %s", path, operation, std::generic_category().message(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(what);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(what + "; check the owner and mode of the path");
    case EEXIST:
    case ENOTEMPTY:
      return absl::AlreadyExistsError(what);
    case ENOSPC:
    case EDQUOT:
      return absl::FailedPreconditionError(what + "; free some space or write to another disk");
    default:
      return absl::UnknownError(what);
  }
}

// The system would silently cut a path at an embedded zero byte.
absl::Status CheckPath(const std::string& path) {
  if (!path.empty() && path.find('\0') == std::string::npos) return absl::OkStatus();
  return absl::NotFoundError(path.empty() ? "empty path" : "path with a zero byte");
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

absl::StatusOr<FileDescriptor> Open(const std::string& path, int flags,
                                    absl::string_view operation) {
  RETURN_IF_ERROR(CheckPath(path));
  int fd;
  do {
    fd = open(path.c_str(), flags | O_CLOEXEC, 0666);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return ErrorOf(path, operation, errno);
  return FileDescriptor(fd);
}

class PosixReadableFile : public ReadableFile {
 public:
  PosixReadableFile(std::string path, FileDescriptor fd, int64_t bytes)
      : path_(std::move(path)), fd_(std::move(fd)), bytes_(bytes) {}

  int64_t bytes() const override { return bytes_; }

  absl::Status ReadAt(int64_t offset, int64_t count, void* dst) const override {
    char* next = static_cast<char*>(dst);
    while (count > 0) {
      const ssize_t got = pread(fd_.get(), next, static_cast<size_t>(count), offset);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return ErrorOf(path_, "read", errno);
      if (got == 0) {
        return DataError(
            absl::StrFormat("%s: ends at byte %d, expected %d more", path_, offset, count));
      }
      next += got;
      offset += got;
      count -= got;
    }
    return absl::OkStatus();
  }

 private:
  std::string path_;
  FileDescriptor fd_;
  int64_t bytes_;
};

class PosixWritableFile : public WritableFile {
 public:
  PosixWritableFile(std::string path, FileDescriptor fd)
      : path_(std::move(path)), fd_(std::move(fd)) {}

  absl::Status Append(absl::string_view data) override {
    while (!data.empty()) {
      const ssize_t written = write(fd_.get(), data.data(), data.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return ErrorOf(path_, "write", errno);
      data.remove_prefix(static_cast<size_t>(written));
    }
    return absl::OkStatus();
  }

  absl::Status Sync() override {
    return fsync(fd_.get()) == 0 ? absl::OkStatus() : ErrorOf(path_, "sync", errno);
  }

  absl::Status Close() override {
    // After an interrupted close the descriptor is gone on Linux: closing again could hit another
    // file.
    if (close(fd_.Release()) == 0 || errno == EINTR) return absl::OkStatus();
    return ErrorOf(path_, "close", errno);
  }

 private:
  std::string path_;
  FileDescriptor fd_;
};

class PosixDirectoryLock : public DirectoryLock {
 public:
  explicit PosixDirectoryLock(FileDescriptor fd) : fd_(std::move(fd)) {}

 private:
  FileDescriptor fd_;
};

class Posix : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<ReadableFile>> OpenReadable(const std::string& path) override {
    // O_NONBLOCK: opening a pipe without a writer would wait forever.
    ASSIGN_OR_RETURN(FileDescriptor fd, Open(path, O_RDONLY | O_NONBLOCK, "open"));
    struct stat info;
    if (fstat(fd.get(), &info) != 0) return ErrorOf(path, "stat", errno);
    if (!S_ISREG(info.st_mode)) {
      return absl::NotFoundError(absl::StrFormat(
          "%s: expected a file, found %s", path,
          S_ISDIR(info.st_mode) ? "a directory" : "something that is no regular file"));
    }
    return std::make_unique<PosixReadableFile>(path, std::move(fd), info.st_size);
  }

  absl::StatusOr<std::unique_ptr<WritableFile>> OpenWritable(const std::string& path,
                                                             WriteMode mode) override {
    const int flags = O_WRONLY | O_CREAT | (mode == WriteMode::kAppend ? O_APPEND : O_TRUNC);
    ASSIGN_OR_RETURN(FileDescriptor fd, Open(path, flags, "open for writing"));
    return std::make_unique<PosixWritableFile>(path, std::move(fd));
  }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    RETURN_IF_ERROR(CheckPath(from));
    RETURN_IF_ERROR(CheckPath(to));
    if (rename(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
    return ErrorOf(from, absl::StrFormat("rename to %s", to), errno);
  }

  absl::Status Remove(const std::string& path) override {
    RETURN_IF_ERROR(CheckPath(path));
    return unlink(path.c_str()) == 0 ? absl::OkStatus() : ErrorOf(path, "remove", errno);
  }

  absl::Status RemoveTree(const std::string& path) override {
    RETURN_IF_ERROR(CheckPath(path));
    std::error_code error;
    std::filesystem::remove_all(path, error);
    return error ? ErrorOf(path, "remove", error.value()) : absl::OkStatus();
  }

  absl::Status CreateDirectories(const std::string& path) override {
    RETURN_IF_ERROR(CheckPath(path));
    std::error_code error;
    std::filesystem::create_directories(path, error);
    return error ? ErrorOf(path, "create directory", error.value()) : absl::OkStatus();
  }

  absl::Status SyncDirectory(const std::string& path) override {
    ASSIGN_OR_RETURN(const FileDescriptor fd, Open(path, O_RDONLY | O_DIRECTORY, "open directory"));
    return fsync(fd.get()) == 0 ? absl::OkStatus() : ErrorOf(path, "sync directory", errno);
  }

  absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& path) override {
    RETURN_IF_ERROR(CheckPath(path));
    DIR* const directory = opendir(path.c_str());
    if (directory == nullptr) return ErrorOf(path, "list", errno);
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = readdir(directory)) {
      const absl::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
      errno = 0;
    }
    const int error = errno;
    closedir(directory);
    if (error != 0) return ErrorOf(path, "list", error);
    std::sort(names.begin(), names.end());
    return names;
  }

  absl::StatusOr<FileInfo> Stat(const std::string& path) override {
    RETURN_IF_ERROR(CheckPath(path));
    struct stat info;
    if (stat(path.c_str(), &info) != 0) return ErrorOf(path, "stat", errno);
    return FileInfo{.bytes = info.st_size,
                    .modified = absl::TimeFromTimespec(info.st_mtim),
                    .is_directory = S_ISDIR(info.st_mode)};
  }

  absl::StatusOr<std::unique_ptr<DirectoryLock>> LockDirectory(const std::string& path) override {
    ASSIGN_OR_RETURN(FileDescriptor fd, Open(path, O_RDONLY | O_DIRECTORY, "open directory"));
    if (flock(fd.get(), LOCK_EX | LOCK_NB) == 0) {
      return std::make_unique<PosixDirectoryLock>(std::move(fd));
    }
    if (errno != EWOULDBLOCK) return ErrorOf(path, "lock", errno);
    return absl::AlreadyExistsError(absl::StrFormat(
        "%s: another process is using this folder; wait for it or choose another folder", path));
  }
};

}  // namespace

FileSystem& PosixFileSystem() {
  static auto* const posix = new Posix();
  return *posix;
}

}  // namespace tessera
