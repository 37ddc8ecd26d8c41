#include "data/source.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "core/file_system.h"
#include "core/status.h"
#include "data/sources/classes.h"
#include "data/sources/folder_source.h"
#include "data/sources/idx_source.h"
#include "data/sources/names.h"
#include "data/sources/shard_source.h"

namespace tessera {
namespace {

using internal::ClassTable;

constexpr const char* kLayouts =
    "one of ROOT/SPLIT/CLASS/NAME.jpg (folder), ROOT/SPLIT.tar or ROOT/SPLIT-000000.tar with "
    "members CLASS/NAME.jpg or pairs NAME.jpg and NAME.cls (shards), "
    "ROOT/SPLIT-images-idx3-ubyte.gz and ROOT/SPLIT-labels-idx1-ubyte.gz (idx)";

// A source may be missing without an error.
using Found = absl::StatusOr<std::unique_ptr<ImageSource>>;

struct Place {
  DataConfig config;
  std::string root;
  std::string format;
  std::vector<std::string> entries;  // of root
  std::optional<ClassTable> classes;

  bool Allows(absl::string_view f) const { return format == "auto" || format == std::string(f); }
  bool Has(const std::string& name) const {
    return std::find(entries.begin(), entries.end(), name) != entries.end();
  }
};

bool IsShardList(absl::string_view text) {
  return absl::StrContains(text, "{") || internal::IsTarName(text);
}

// Takes a prefix such as "shards:" off the root.
absl::Status SplitFormat(std::string* root, std::string* format) {
  const size_t colon = root->find(':');
  if (colon == std::string::npos || root->find('/') < colon) return absl::OkStatus();
  const std::string prefix = root->substr(0, colon);
  if (prefix != "folder" && prefix != "shards" && prefix != "idx") {
    return ConfigError(absl::StrCat("data.root: unknown layout '", prefix, "' in '", *root,
                                    "'; expected folder:, shards: or idx: before the path"));
  }
  if (*format != "auto" && *format != prefix) {
    return ConfigError(absl::StrCat("data.root says ", prefix, ", data.format says ", *format));
  }
  *format = prefix;
  root->erase(0, colon + 1);
  return absl::OkStatus();
}

absl::Status RootMissing(const std::string& root, const absl::Status& why) {
  std::string parent = DirectoryName(root);
  while (parent != "/" && parent != "." && !PosixFileSystem().Exists(parent)) {
    parent = DirectoryName(parent);
  }
  const auto entries = PosixFileSystem().ListDirectory(parent);
  return Annotate(why,
                  absl::StrCat("data.root: no data set at '", root,
                               "'; the nearest folder that exists is '", parent, "', which holds ",
                               internal::ListNames(entries.value_or(std::vector<std::string>())),
                               "; expected ", kLayouts));
}

Found OpenShardList(const Place& place, const std::string& directory, const std::string& list) {
  ASSIGN_OR_RETURN(std::vector<std::string> paths, internal::ExpandBraces(list));
  for (std::string& path : paths) path = JoinPath(directory, path);
  return internal::OpenShards(std::move(paths), place.classes);
}

// SPLIT.tar, SPLIT-*.tar or SPLIT/*.tar.
std::vector<std::string> FindShards(const Place& place, const std::string& split) {
  if (place.Has(split + ".tar")) return {JoinPath(place.root, split + ".tar")};
  std::string folder = place.root;
  std::vector<std::string> names = place.entries;
  std::erase_if(names, [&](const std::string& name) {
    const bool starts = absl::StartsWith(name, split) && name.size() > split.size();
    return !starts || !absl::StrContains("-_.", name[split.size()]) || !internal::IsTarName(name);
  });
  if (names.empty() && place.Has(split)) {
    folder = JoinPath(place.root, split);
    names = PosixFileSystem().ListDirectory(folder).value_or(std::vector<std::string>());
    std::erase_if(names, [](const std::string& n) { return !internal::IsTarName(n); });
  }
  std::sort(names.begin(), names.end(), internal::NaturalLess);
  for (std::string& name : names) name = JoinPath(folder, name);
  return names;
}

Found TryIdx(const Place& place, const std::string& split) {
  std::string paths[2];
  const std::string stems[2] = {split + "-images-idx3-ubyte", split + "-labels-idx1-ubyte"};
  for (int i = 0; i < 2; ++i) {
    for (const char* ending : {"", ".gz"}) {
      const std::string name = stems[i] + ending;
      if (paths[i].empty() && place.Has(name)) paths[i] = JoinPath(place.root, name);
    }
  }
  if (paths[0].empty()) return nullptr;
  if (paths[1].empty()) {
    return absl::NotFoundError(absl::StrCat(paths[0], ": no labels; expected ", stems[1], " or ",
                                            stems[1], ".gz beside it"));
  }
  return internal::OpenIdx(paths[0], paths[1], place.classes);
}

Found TryShards(const Place& place, const std::string& split) {
  if (IsShardList(split)) return OpenShardList(place, place.root, split);
  std::vector<std::string> paths = FindShards(place, split);
  if (paths.empty()) return nullptr;
  return internal::OpenShards(std::move(paths), place.classes);
}

Found TryFolder(const Place& place, const std::string& split) {
  const std::string folder = JoinPath(place.root, split);
  if (!place.config.labels.empty()) {
    const std::string labels = absl::StrReplaceAll(place.config.labels, {{"{split}", split}});
    return internal::OpenLabelFile(JoinPath(place.root, labels), folder, place.classes);
  }
  const auto info = PosixFileSystem().Stat(folder);
  if (!info.ok() || !info->is_directory) return nullptr;
  if (place.Has(split + ".txt") && internal::IsFlatFolder(folder)) {
    return internal::OpenLabelFile(JoinPath(place.root, split + ".txt"), folder, place.classes);
  }
  return internal::OpenClassFolders(folder, place.classes);
}

std::vector<std::string> SplitNames(const DataConfig& config, Split split) {
  if (split == Split::kTrain) return {config.train_split};
  if (config.val_split != "val") return {config.val_split};
  return {"val", "validation", "test", "t10k"};
}

Found OpenSplit(const Place& place, const std::string& split) {
  const auto try_format = [&](absl::string_view format,
                              Found (*open)(const Place&, const std::string&)) -> Found {
    if (!place.Allows(format)) return nullptr;
    return open(place, split);
  };
  ASSIGN_OR_RETURN(std::unique_ptr<ImageSource> source, try_format("idx", TryIdx));
  if (source != nullptr) return source;
  ASSIGN_OR_RETURN(source, try_format("shards", TryShards));
  if (source != nullptr) return source;
  return try_format("folder", TryFolder);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ImageSource>> OpenSource(const DataConfig& config, Split split) {
  Place place{config, config.root, config.format, {}, {}};
  if (place.root.empty()) {
    return ConfigError(
        absl::StrCat("data.root is not set; expected the folder of a data set, ", kLayouts));
  }
  RETURN_IF_ERROR(SplitFormat(&place.root, &place.format));
  if (place.Allows("shards") && IsShardList(place.root)) {
    const std::string directory = DirectoryName(place.root);
    ASSIGN_OR_RETURN(place.classes, internal::FindClassTable(config, directory));
    return OpenShardList(place, "", place.root);
  }
  auto entries = PosixFileSystem().ListDirectory(place.root);
  if (!entries.ok()) return RootMissing(place.root, entries.status());
  place.entries = *std::move(entries);
  ASSIGN_OR_RETURN(place.classes, internal::FindClassTable(config, place.root));
  const std::vector<std::string> names = SplitNames(config, split);
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(std::unique_ptr<ImageSource> source, OpenSplit(place, name));
    if (source != nullptr) return source;
  }
  return absl::NotFoundError(absl::StrCat(
      place.root, ": no ", split == Split::kTrain ? "training" : "evaluation", " pictures (",
      split == Split::kTrain ? "data.train_split" : "data.val_split", " is '", names.front(),
      "'); the folder holds ", internal::ListNames(place.entries), "; expected ", kLayouts));
}

absl::Status CheckSameClasses(const ImageSource& train, const ImageSource& val) {
  const std::vector<std::string>& a = train.class_names();
  const std::vector<std::string>& b = val.class_names();
  if (b.size() <= a.size() && std::equal(b.begin(), b.end(), a.begin())) return absl::OkStatus();
  const size_t at = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
  const auto name = [at](const std::vector<std::string>& names) {
    return at < names.size() ? absl::StrCat("'", names[at], "'") : std::string("missing");
  };
  return DataError(absl::StrCat("class ", at, " is ", name(a), " in ", train.description(), " and ",
                                name(b), " in ", val.description(),
                                "; give both the same class folders, or a class file "
                                "(data.class_index)"));
}

}  // namespace tessera
