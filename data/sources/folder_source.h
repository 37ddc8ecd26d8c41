// Pictures in folders: one folder per class, or any folders with a label file.
#ifndef TESSERA_DATA_SOURCES_FOLDER_SOURCE_H_
#define TESSERA_DATA_SOURCES_FOLDER_SOURCE_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "data/source.h"
#include "data/sources/classes.h"

namespace tessera::internal {

// Pictures FOLDER/CLASS/NAME, in natural order of their paths. A class folder without pictures is
// a warning.
absl::StatusOr<std::unique_ptr<ImageSource>> OpenClassFolders(
    const std::string& folder, const std::optional<ClassTable>& table);

// Pictures listed in a file by lines "path<TAB>index" (or a space), in its order; '#' starts a
// comment. Paths are relative to `folder`, or to the label file's own folder if the first is not
// there. One that is missing among the first 1000 is an error, a later one is a bad file.
absl::StatusOr<std::unique_ptr<ImageSource>> OpenLabelFile(const std::string& label_file,
                                                           const std::string& folder,
                                                           const std::optional<ClassTable>& table);

// True if the folder itself holds pictures.
bool IsFlatFolder(const std::string& folder);

}  // namespace tessera::internal

#endif  // TESSERA_DATA_SOURCES_FOLDER_SOURCE_H_
