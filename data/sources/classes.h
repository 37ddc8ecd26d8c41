// Classes of a data set: their numbers, the folders that stand for them, and their names.
#ifndef TESSERA_DATA_SOURCES_CLASSES_H_
#define TESSERA_DATA_SOURCES_CLASSES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "data/config.h"

namespace tessera::internal {

inline constexpr int32_t kMaxLabel = 999'999;

// A class file, which says what number each class folder has.
class ClassTable {
 public:
  // Lines "index<TAB>folder[<TAB>name]", or one folder a line, numbered from 0; '#' starts a
  // comment. Every index from 0 up must occur exactly once.
  static absl::StatusOr<ClassTable> Parse(const std::string& path, absl::string_view text);

  const std::string& path() const { return path_; }
  const std::vector<std::string>& names() const { return names_; }
  // DataError naming the folder, and the nearest known one, if the file does not list it.
  absl::StatusOr<int32_t> Find(const std::string& folder) const;

 private:
  std::string path_;
  std::vector<std::string> folders_;
  std::vector<std::string> names_;
  absl::flat_hash_map<std::string, int32_t> index_;
};

// The file that config.class_index names, or class_index.tsv or classes.txt in `root`, or none.
absl::StatusOr<std::optional<ClassTable>> FindClassTable(const DataConfig& config,
                                                         const std::string& root);

// Numbers of class folders, in the order given, and the names of all classes: from the table, or
// the rank in natural order.
struct FolderClasses {
  std::vector<int32_t> labels;
  std::vector<std::string> names;
};
absl::StatusOr<FolderClasses> NumberFolders(const std::optional<ClassTable>& table,
                                            const std::vector<std::string>& folders);

// The names of classes that are given by number, the largest of which is `max_label`: the table's,
// or the numbers.
absl::StatusOr<std::vector<std::string>> NumberedClasses(const std::optional<ClassTable>& table,
                                                         int64_t max_label);

// The number of a class as files write it, 0..kMaxLabel.
absl::StatusOr<int32_t> ParseLabel(absl::string_view text);

}  // namespace tessera::internal

#endif  // TESSERA_DATA_SOURCES_CLASSES_H_
