// IDX files as MNIST and Fashion-MNIST have them (yann.lecun.com/exdb/mnist): gray pictures of one
// size and their labels, plain or gzipped.
#ifndef TESSERA_DATA_SOURCES_IDX_SOURCE_H_
#define TESSERA_DATA_SOURCES_IDX_SOURCE_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "data/source.h"
#include "data/sources/classes.h"

namespace tessera::internal {

// Reads both files into memory. Gray becomes three equal channels.
absl::StatusOr<std::unique_ptr<ImageSource>> OpenIdx(const std::string& images_path,
                                                     const std::string& labels_path,
                                                     const std::optional<ClassTable>& table);

}  // namespace tessera::internal

#endif  // TESSERA_DATA_SOURCES_IDX_SOURCE_H_
