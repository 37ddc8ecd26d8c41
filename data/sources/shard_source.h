// Pictures in tar shards, read at random; see shard_index.h for how they are labelled.
#ifndef TESSERA_DATA_SOURCES_SHARD_SOURCE_H_
#define TESSERA_DATA_SOURCES_SHARD_SOURCE_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/source.h"
#include "data/sources/classes.h"

namespace tessera::internal {

// The samples of all shards, in the order of `paths` and of their members.
absl::StatusOr<std::unique_ptr<ImageSource>> OpenShards(std::vector<std::string> paths,
                                                        const std::optional<ClassTable>& table);

}  // namespace tessera::internal

#endif  // TESSERA_DATA_SOURCES_SHARD_SOURCE_H_
