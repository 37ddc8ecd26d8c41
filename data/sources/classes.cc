#include "data/sources/classes.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/edit_distance.h"
#include "core/file_system.h"
#include "core/status.h"
#include "data/sources/names.h"

namespace tessera::internal {
namespace {

constexpr int64_t kMaxClassFileBytes = 256 << 20;

struct Line {
  int64_t index = 0;
  std::string folder;
  std::string name;
};

absl::StatusOr<Line> ParseLine(absl::string_view text, int64_t next_index) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, '\t');
  if (parts.size() == 1) return Line{next_index, std::string(text), std::string(text)};
  Line line{0, std::string(parts[1]), std::string(parts.size() > 2 ? parts[2] : parts[1])};
  if (!absl::SimpleAtoi(parts[0], &line.index) || line.index < 0 || line.index > kMaxLabel ||
      line.folder.empty()) {
    return DataError(absl::StrCat("found '", text, "', expected 'index<TAB>folder<TAB>name'"));
  }
  return line;
}

}  // namespace

absl::StatusOr<ClassTable> ClassTable::Parse(const std::string& path, absl::string_view text) {
  ClassTable table;
  table.path_ = path;
  absl::ConsumePrefix(&text, "\xEF\xBB\xBF");
  int64_t line_number = 0;
  int64_t num_classes = 0;
  for (absl::string_view row : absl::StrSplit(text, '\n')) {
    ++line_number;
    absl::ConsumeSuffix(&row, "\r");
    if (row.empty() || row[0] == '#') continue;
    const std::string where = absl::StrCat(path, ":", line_number);
    absl::StatusOr<Line> line = ParseLine(row, num_classes);
    if (!line.ok()) return Annotate(line.status(), where);
    if (line->index >= static_cast<int64_t>(table.folders_.size())) {
      table.folders_.resize(line->index + 1);
      table.names_.resize(line->index + 1);
    }
    if (!table.folders_[line->index].empty() ||
        !table.index_.emplace(line->folder, static_cast<int32_t>(line->index)).second) {
      return DataError(absl::StrCat(where, ": class ", line->index, " or folder '", line->folder,
                                    "' is there twice"));
    }
    table.folders_[line->index] = std::move(line->folder);
    table.names_[line->index] = std::move(line->name);
    ++num_classes;
  }
  if (num_classes == 0) return DataError(absl::StrCat(path, ": no class in the file"));
  if (num_classes != static_cast<int64_t>(table.folders_.size())) {
    const auto gap = std::find(table.folders_.begin(), table.folders_.end(), "");
    return DataError(absl::StrCat(path, ": class ", gap - table.folders_.begin(), " is missing"));
  }
  return table;
}

absl::StatusOr<int32_t> ClassTable::Find(const std::string& folder) const {
  const auto it = index_.find(folder);
  if (it != index_.end()) return it->second;
  return DataError(absl::StrCat("class folder '", folder, "' is not in ", path_,
                                DidYouMean(folder, folders_),
                                "; add it there, or remove the folder"));
}

absl::StatusOr<std::optional<ClassTable>> FindClassTable(const DataConfig& config,
                                                         const std::string& root) {
  FileSystem& fs = PosixFileSystem();
  std::string path;
  if (!config.class_index.empty()) {
    path = JoinPath(root, config.class_index);
  } else {
    for (const char* name : {"class_index.tsv", "classes.txt"}) {
      if (path.empty() && fs.Exists(JoinPath(root, name))) path = JoinPath(root, name);
    }
    if (path.empty()) return std::nullopt;
  }
  absl::StatusOr<std::string> text = fs.ReadFile(path, kMaxClassFileBytes);
  if (!text.ok()) return Annotate(text.status(), "data.class_index");
  ASSIGN_OR_RETURN(ClassTable table, ClassTable::Parse(path, *text));
  return table;
}

absl::StatusOr<FolderClasses> NumberFolders(const std::optional<ClassTable>& table,
                                            const std::vector<std::string>& folders) {
  FolderClasses result;
  result.labels.resize(folders.size());
  if (table.has_value()) {
    for (size_t i = 0; i < folders.size(); ++i) {
      ASSIGN_OR_RETURN(result.labels[i], table->Find(folders[i]));
    }
    result.names = table->names();
    return result;
  }
  std::vector<size_t> order(folders.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return NaturalLess(folders[a], folders[b]); });
  for (size_t rank = 0; rank < order.size(); ++rank) {
    result.labels[order[rank]] = static_cast<int32_t>(rank);
    result.names.push_back(folders[order[rank]]);
  }
  return result;
}

absl::StatusOr<std::vector<std::string>> NumberedClasses(const std::optional<ClassTable>& table,
                                                         int64_t max_label) {
  if (table.has_value()) {
    if (max_label < static_cast<int64_t>(table->names().size())) return table->names();
    return DataError(absl::StrCat("class ", max_label, " is used, but ", table->path(), " has ",
                                  table->names().size(), " classes"));
  }
  std::vector<std::string> names(max_label + 1);
  for (int64_t i = 0; i <= max_label; ++i) names[i] = absl::StrCat(i);
  return names;
}

absl::StatusOr<int32_t> ParseLabel(absl::string_view text) {
  int32_t label = 0;
  if (!absl::SimpleAtoi(text, &label) || label < 0 || label > kMaxLabel) {
    return DataError(
        absl::StrCat("found '", text, "', expected the number of a class, 0 to ", kMaxLabel));
  }
  return label;
}

}  // namespace tessera::internal
