#include "data/sources/folder_source.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/check.h"
#include "core/file_system.h"
#include "core/status.h"
#include "data/sources/names.h"

namespace tessera::internal {
namespace {

constexpr int64_t kMaxLabelFileBytes = int64_t{4} << 30;
constexpr int64_t kMaxImageBytes = int64_t{1} << 30;
constexpr int64_t kFilesCheckedAtStart = 1000;
constexpr int64_t kMaxBadLinesNamed = 20;

class FolderSource : public ImageSource {
 public:
  FolderSource(std::string folder, std::string description)
      : folder_(std::move(folder)), description_(std::move(description)) {}

  int64_t num_samples() const override { return static_cast<int64_t>(labels_.size()); }
  int32_t label(int64_t i) const override { return labels_[i]; }
  std::string name(int64_t i) const override { return Path(i); }
  std::string description() const override { return description_; }

  absl::Status ReadBytes(int64_t i, std::vector<uint8_t>* bytes) const override {
    const auto file = PosixFileSystem().OpenReadable(Path(i));
    if (!file.ok()) return BadFileError(BadFile::kUnreadable, file.status().message());
    if ((*file)->bytes() > kMaxImageBytes) {
      return BadFileError(BadFile::kTooLarge, absl::StrCat((*file)->bytes(), " bytes"));
    }
    bytes->resize((*file)->bytes());
    const absl::Status read = (*file)->ReadAt(0, (*file)->bytes(), bytes->data());
    if (!read.ok()) return BadFileError(BadFile::kUnreadable, read.message());
    return absl::OkStatus();
  }

  void Add(absl::string_view relative_path, int32_t label) {
    paths_.append(relative_path.data(), relative_path.size());
    path_ends_.push_back(static_cast<int64_t>(paths_.size()));
    labels_.push_back(label);
  }
  void set_class_names(std::vector<std::string> names) { class_names_ = std::move(names); }

 private:
  std::string Path(int64_t i) const {
    const int64_t begin = i == 0 ? 0 : path_ends_[i - 1];
    return JoinPath(folder_, absl::string_view(paths_).substr(begin, path_ends_[i] - begin));
  }

  std::string folder_;
  std::string description_;
  std::string paths_;  // all relative paths, one after the other: millions of strings cost more
  std::vector<int64_t> path_ends_;
  std::vector<int32_t> labels_;
};

absl::StatusOr<std::vector<std::string>> ClassFolders(const std::string& folder) {
  FileSystem& fs = PosixFileSystem();
  ASSIGN_OR_RETURN(std::vector<std::string> names, fs.ListDirectory(folder));
  std::erase_if(names, [&](const std::string& name) {
    if (IsHidden(name) || IsImageName(name)) return true;
    const auto info = fs.Stat(JoinPath(folder, name));
    return !info.ok() || !info->is_directory;
  });
  std::sort(names.begin(), names.end(), NaturalLess);
  return names;
}

struct LabelLine {
  absl::string_view path;
  int32_t label = 0;
};

absl::StatusOr<LabelLine> ParseLabelLine(absl::string_view row) {
  size_t separator = row.rfind('\t');
  if (separator == absl::string_view::npos) separator = row.rfind(' ');
  if (separator == absl::string_view::npos) {
    return DataError(absl::StrCat("found '", row, "', expected 'path<TAB>class index'"));
  }
  LabelLine line;
  line.path = absl::StripTrailingAsciiWhitespace(row.substr(0, separator));
  ASSIGN_OR_RETURN(line.label, ParseLabel(row.substr(separator + 1)));
  if (line.path.empty()) return DataError(absl::StrCat("found '", row, "' without a path"));
  return line;
}

// Gathers the errors of lines, so that a person sees all of them at once.
class BadLines {
 public:
  void Add(const absl::Status& error) {
    if (++count_ <= kMaxBadLinesNamed) {
      absl::StrAppend(&text_, count_ == 1 ? "" : "\n", error.message());
    }
  }
  absl::Status status() const {
    if (count_ == 0) return absl::OkStatus();
    if (count_ <= kMaxBadLinesNamed) return DataError(text_);
    return DataError(absl::StrCat(text_, "\nand ", count_ - kMaxBadLinesNamed, " more bad lines"));
  }

 private:
  int64_t count_ = 0;
  std::string text_;
};

absl::Status CheckFirstFiles(const FolderSource& source, const std::string& label_file) {
  for (int64_t i = 0; i < std::min(source.num_samples(), kFilesCheckedAtStart); ++i) {
    const absl::Status found = PosixFileSystem().Stat(source.name(i)).status();
    if (!found.ok()) {
      return Annotate(found, absl::StrCat(label_file, ": sample ", i,
                                          " is not there; paths are relative to the pictures' "
                                          "folder"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ImageSource>> OpenClassFolders(
    const std::string& folder, const std::optional<ClassTable>& table) {
  ASSIGN_OR_RETURN(const std::vector<std::string> folders, ClassFolders(folder));
  auto numbered = NumberFolders(table, folders);
  if (!numbered.ok()) return Annotate(numbered.status(), folder);
  auto source = std::make_unique<FolderSource>(folder, absl::StrCat("folder ", folder));
  for (size_t c = 0; c < folders.size(); ++c) {
    ASSIGN_OR_RETURN(std::vector<std::string> names,
                     PosixFileSystem().ListDirectory(JoinPath(folder, folders[c])));
    std::erase_if(names, [](const std::string& n) { return IsHidden(n) || !IsImageName(n); });
    std::sort(names.begin(), names.end(), NaturalLess);
    if (names.empty()) LOG(WARNING) << folder << ": no picture in class folder " << folders[c];
    for (const std::string& name : names) {
      source->Add(absl::StrCat(folders[c], "/", name), numbered->labels[c]);
    }
  }
  if (source->num_samples() == 0) {
    return DataError(absl::StrCat(
        folder, ": found ", folders.size(), " class folders and no picture in them; expected ",
        folder,
        "/CLASS/NAME.jpg (or .png, .webp, .gif, .bmp), or a label file named by data.labels"));
  }
  source->set_class_names(std::move(numbered->names));
  return source;
}

absl::StatusOr<std::unique_ptr<ImageSource>> OpenLabelFile(const std::string& label_file,
                                                           const std::string& folder,
                                                           const std::optional<ClassTable>& table) {
  FileSystem& fs = PosixFileSystem();
  absl::StatusOr<std::string> contents = fs.ReadFile(label_file, kMaxLabelFileBytes);
  if (!contents.ok()) return Annotate(contents.status(), "data.labels");
  absl::string_view text = *contents;
  absl::ConsumePrefix(&text, "\xEF\xBB\xBF");
  std::unique_ptr<FolderSource> source;
  int32_t max_label = 0;
  int64_t line_number = 0;
  BadLines bad;
  for (absl::string_view row : absl::StrSplit(text, '\n')) {
    ++line_number;
    absl::ConsumeSuffix(&row, "\r");
    if (absl::StripAsciiWhitespace(row).empty() || row[0] == '#') continue;
    const auto line = ParseLabelLine(row);
    if (!line.ok()) {
      bad.Add(Annotate(line.status(), absl::StrCat(label_file, ":", line_number)));
      continue;
    }
    if (source == nullptr) {
      const bool below = fs.Exists(JoinPath(folder, line->path));
      source = std::make_unique<FolderSource>(below ? folder : DirectoryName(label_file),
                                              absl::StrCat("label file ", label_file));
    }
    source->Add(line->path, line->label);
    max_label = std::max(max_label, line->label);
  }
  RETURN_IF_ERROR(bad.status());
  if (source == nullptr) return DataError(absl::StrCat(label_file, ": no sample in the file"));
  RETURN_IF_ERROR(CheckFirstFiles(*source, label_file));
  auto names = NumberedClasses(table, max_label);
  if (!names.ok()) return Annotate(names.status(), label_file);
  source->set_class_names(*std::move(names));
  return source;
}

bool IsFlatFolder(const std::string& folder) {
  const auto names = PosixFileSystem().ListDirectory(folder);
  return names.ok() && std::any_of(names->begin(), names->end(), IsImageName);
}

}  // namespace tessera::internal
