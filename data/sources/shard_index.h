// Where the samples of a tar shard lie, so that they can be read in any order.
//
// A sample is a picture with a label, which is either the number in the member KEY.cls beside
// KEY.jpg (WebDataset: KEY is the name up to its first dot, the members of a sample are adjacent),
// or the folder that the picture is in. The index is kept in a file next to the shard, SHARD.index,
// and is made again when the shard's size or time of change differs.
#ifndef TESSERA_DATA_SOURCES_SHARD_INDEX_H_
#define TESSERA_DATA_SOURCES_SHARD_INDEX_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/file_system.h"

namespace tessera::internal {

struct ShardEntry {
  int64_t offset = 0;  // of the picture's bytes in the shard
  uint32_t bytes = 0;
  uint32_t header_bytes = 0;  // from the member's first header to its data
  int32_t label = 0;          // class number, or position in ShardIndex::folders
  int32_t shard = 0;          // which shard, for who holds entries of several
};

struct ShardIndex {
  std::vector<ShardEntry> entries;
  std::vector<std::string> folders;  // class folders; empty where labels are numbers
};

// Reads a shard; `path` is for messages.
absl::StatusOr<ShardIndex> BuildShardIndex(const std::string& path, const ReadableFile& file);

// Reads the index file, or the shard itself, and then saves the index if the folder is writable.
absl::StatusOr<ShardIndex> LoadShardIndex(const std::string& shard_path);

}  // namespace tessera::internal

#endif  // TESSERA_DATA_SOURCES_SHARD_INDEX_H_
