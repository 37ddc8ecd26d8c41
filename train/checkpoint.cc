#include "train/checkpoint.h"

#include <xxhash.h>

#include <algorithm>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/check.h"
#include "core/json.h"
#include "core/status.h"

namespace tessera::train {
namespace {

constexpr int64_t kFormatVersion = 2;
constexpr int64_t kMaxTextBytes = int64_t{16} << 20;  // of each file that is not a group
constexpr absl::string_view kStateFile = "state.json";
constexpr absl::string_view kConfigFile = "config.yaml";
constexpr absl::string_view kChecksumsFile = "checksums";
constexpr absl::string_view kStepPrefix = "step_";

std::string GroupFile(absl::string_view group) { return absl::StrCat(group, ".safetensors"); }

std::string CheckpointsDir(absl::string_view run_dir) { return JoinPath(run_dir, "checkpoints"); }

class Hasher {
 public:
  Hasher() { XXH64_reset(state_.get(), 0); }
  void Update(absl::string_view data) { XXH64_update(state_.get(), data.data(), data.size()); }
  std::string Hex() const { return absl::StrFormat("%016x", XXH64_digest(state_.get())); }

 private:
  struct Free {
    void operator()(XXH64_state_t* state) const { XXH64_freeState(state); }
  };
  std::unique_ptr<XXH64_state_t, Free> state_{XXH64_createState()};
};

// Writes one file of a checkpoint and adds its line to `checksums`. `produce` hands it the bytes.
using Append = std::function<absl::Status(absl::string_view)>;
absl::Status WriteHashed(FileSystem& fs, const AtomicDirectory& directory, absl::string_view name,
                         const std::function<absl::Status(const Append&)>& produce,
                         std::string* checksums) {
  ASSIGN_OR_RETURN(const auto file, fs.OpenWritable(JoinPath(directory.temp_path(), name)));
  Hasher hasher;
  RETURN_IF_ERROR(produce([&](absl::string_view data) {
    hasher.Update(data);
    return file->Append(data);
  }));
  RETURN_IF_ERROR(file->Sync());
  absl::StrAppend(checksums, hasher.Hex(), "  ", name, "\n");
  return file->Close();
}

std::string StateJson(const CheckpointContents& contents) {
  const TrainState& state = contents.state;
  Json json = {{"format_version", kFormatVersion},
               {"model", state.model},
               {"step", state.step},
               {"epoch", state.epoch},
               {"batch", state.batch},
               {"updates", state.updates},
               {"skipped_in_a_row", state.skipped_in_a_row},
               {"rolled_back_at", state.rolled_back_at},
               {"mean_loss", state.mean_loss},
               {"seed", state.seed},
               {"class_names", state.class_names},
               {"metrics", state.metrics},
               {"groups", Json::array()}};
  for (const auto& [group, tensors] : contents.groups) json["groups"].push_back(group);
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

// A non-negative integer of `json`, or an error that names the key.
template <typename T>
absl::Status ReadCount(const Json& json, const char* key, T* value) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_number_unsigned() ||
      found->get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<T>::max())) {
    return DataError(absl::StrFormat("'%s': expected a non-negative integer", key));
  }
  *value = found->get<T>();
  return absl::OkStatus();
}

absl::Status ReadStrings(const Json& json, const char* key, std::vector<std::string>* strings) {
  const Json list = json.value(key, Json());
  if (!list.is_array()) return DataError(absl::StrFormat("'%s': expected a list", key));
  for (const Json& item : list) {
    if (!item.is_string()) {
      return DataError(absl::StrFormat("'%s': expected a list of strings", key));
    }
    strings->push_back(item.get<std::string>());
  }
  return absl::OkStatus();
}

absl::Status ParseSkippedSteps(const Json& json, TrainState* state) {
  RETURN_IF_ERROR(ReadCount(json, "updates", &state->updates));
  RETURN_IF_ERROR(ReadCount(json, "skipped_in_a_row", &state->skipped_in_a_row));
  RETURN_IF_ERROR(ReadCount(json, "rolled_back_at", &state->rolled_back_at));
  const auto mean_loss = json.find("mean_loss");
  if (mean_loss == json.end() || !mean_loss->is_number()) {
    return DataError("'mean_loss': expected a number");
  }
  state->mean_loss = mean_loss->get<double>();
  return absl::OkStatus();
}

absl::Status ParseState(const Json& json, TrainState* state, std::vector<std::string>* groups) {
  int64_t version = 0;
  if (!json.is_object()) return DataError("expected a map");
  RETURN_IF_ERROR(ReadCount(json, "format_version", &version));
  if (version < 1 || version > kFormatVersion) {
    return DataError(absl::StrFormat("format version %d, this program reads up to version %d",
                                     version, kFormatVersion));
  }
  RETURN_IF_ERROR(ReadCount(json, "step", &state->step));
  RETURN_IF_ERROR(ReadCount(json, "epoch", &state->epoch));
  RETURN_IF_ERROR(ReadCount(json, "batch", &state->batch));
  RETURN_IF_ERROR(ReadCount(json, "seed", &state->seed));
  state->updates = state->step;  // version 1 ended a run rather than skip a step
  if (version > 1) RETURN_IF_ERROR(ParseSkippedSteps(json, state));
  const Json model = json.value("model", Json()), metrics = json.value("metrics", Json());
  if (!model.is_string()) return DataError("'model': expected a string");
  state->model = model.get<std::string>();
  if (!metrics.is_object()) return DataError("'metrics': expected a map");
  for (const auto& [name, value] : metrics.items()) {
    if (!value.is_number() && !value.is_null()) {
      return DataError(absl::StrFormat("metric '%s': expected a number", name));
    }
    state->metrics[name] =
        value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
  }
  RETURN_IF_ERROR(ReadStrings(json, "class_names", &state->class_names));
  return ReadStrings(json, "groups", groups);
}

absl::StatusOr<std::string> HashFile(FileSystem& fs, const std::string& path) {
  constexpr int64_t kChunkBytes = int64_t{4} << 20;
  ASSIGN_OR_RETURN(const auto file, fs.OpenReadable(path));
  Hasher hasher;
  std::string chunk(static_cast<size_t>(std::min(kChunkBytes, file->bytes())), '\0');
  for (int64_t offset = 0; offset < file->bytes(); offset += kChunkBytes) {
    const int64_t count = std::min(kChunkBytes, file->bytes() - offset);
    RETURN_IF_ERROR(file->ReadAt(offset, count, chunk.data()));
    hasher.Update(absl::string_view(chunk).substr(0, static_cast<size_t>(count)));
  }
  return hasher.Hex();
}

// File name -> checksum, from the lines "HEX  NAME".
absl::StatusOr<std::map<std::string, std::string>> ParseChecksums(absl::string_view text) {
  std::map<std::string, std::string> checksums;
  if (!absl::EndsWith(text, "\n")) {
    return DataError(absl::StrFormat("%s is cut off", kChecksumsFile));
  }
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(line, absl::MaxSplits("  ", 1));
    if (parts.first.size() != 16 || parts.second.empty() ||
        parts.second.find('/') != std::string::npos) {
      return DataError(absl::StrFormat("%s is damaged", kChecksumsFile));
    }
    checksums.emplace(parts.second, parts.first);
  }
  return checksums;
}

// What is wrong with the files that `checksums` lists, one item each.
std::vector<std::string> FindDamage(FileSystem& fs, const std::string& path,
                                    const std::map<std::string, std::string>& checksums) {
  std::vector<std::string> damage;
  for (const absl::string_view required : {kStateFile, kConfigFile}) {
    if (checksums.count(std::string(required)) == 0) {
      damage.push_back(absl::StrFormat("%s has no entry in %s", required, kChecksumsFile));
    }
  }
  for (const auto& [name, expected] : checksums) {
    const absl::StatusOr<std::string> found = HashFile(fs, JoinPath(path, name));
    if (absl::IsNotFound(found.status())) {
      damage.push_back(absl::StrFormat("%s is missing", name));
    } else if (!found.ok()) {
      damage.push_back(absl::StrFormat("%s cannot be read (%s)", name, found.status().message()));
    } else if (*found != expected) {
      damage.push_back(absl::StrFormat("%s has checksum %s, expected %s", name, *found, expected));
    }
  }
  return damage;
}

bool HasShapeAndDType(const SafetensorsFile::Entry& entry, const Tensor& tensor) {
  static constexpr std::pair<FileDType, DType> kSame[] = {
      {FileDType::kF32, DType::kF32}, {FileDType::kBF16, DType::kBF16},
      {FileDType::kF64, DType::kF64}, {FileDType::kI64, DType::kI64},
      {FileDType::kI32, DType::kI32}, {FileDType::kU8, DType::kU8}};
  return entry.shape == tensor.shape() &&
         std::find(std::begin(kSame), std::end(kSame), std::pair(entry.dtype, tensor.dtype())) !=
             std::end(kSame);
}

absl::Status CheckNames(const SafetensorsFile& file, absl::Span<const NamedTensor> tensors) {
  std::set<std::string> wanted;
  for (const auto& [name, tensor] : tensors) {
    wanted.insert(name);
    const SafetensorsFile::Entry* entry = file.Find(name);
    if (entry == nullptr) {
      return DataError(
          absl::StrFormat("%s: tensor '%s' is missing; was the checkpoint written with "
                          "another model or optimizer?",
                          file.path(), name));
    }
    if (HasShapeAndDType(*entry, tensor)) continue;
    return DataError(absl::StrFormat("%s: tensor '%s' is %s%s, expected %s%s", file.path(), name,
                                     Name(entry->dtype), entry->shape.ToString(),
                                     Name(tensor.dtype()), tensor.shape().ToString()));
  }
  for (const auto& entry : file.entries()) {
    if (wanted.count(entry.name) > 0) continue;
    return DataError(
        absl::StrFormat("%s: tensor '%s' is not expected; was the checkpoint written "
                        "with another model or optimizer?",
                        file.path(), entry.name));
  }
  return absl::OkStatus();
}

// Removes what dead runs left: directories that were never published, and replaced ones whose
// successor is there.
absl::Status RemoveLeftovers(FileSystem& fs, const std::string& directory) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.ListDirectory(directory));
  for (absl::string_view name : names) {
    const std::string path = JoinPath(directory, name);
    const bool is_replaced =
        absl::ConsumePrefix(&name, ".old-") && fs.Exists(JoinPath(directory, name));
    if (is_replaced || absl::StartsWith(name, ".tmp-")) RETURN_IF_ERROR(fs.RemoveTree(path));
  }
  return absl::OkStatus();
}

// Somebody may have meant one of the checkpoints of a run's folder.
absl::Status NoCheckpoint(FileSystem& fs, const std::string& path, const absl::Status& error) {
  if (fs.Exists(BestPath(path))) {
    return DataError(absl::StrFormat("%s: is the folder of a run; its best checkpoint is %s", path,
                                     BestPath(path)));
  }
  const auto steps = ListCheckpoints(fs, path);
  if (steps.ok() && !steps->empty()) {
    return DataError(absl::StrFormat("%s: is the folder of a run; its newest checkpoint is %s",
                                     path, CheckpointPath(path, steps->front())));
  }
  return DataError(absl::StrFormat("%s: is it a checkpoint? %s", path, error.message()));
}

}  // namespace

std::string CheckpointPath(absl::string_view run_dir, int64_t step) {
  return JoinPath(CheckpointsDir(run_dir), absl::StrFormat("%s%09d", kStepPrefix, step));
}

std::string BestPath(absl::string_view run_dir) { return JoinPath(run_dir, "best"); }

absl::Status SaveCheckpoint(FileSystem& fs, const std::string& path,
                            const CheckpointContents& contents) {
  const std::string parent = DirectoryName(path);
  if (!fs.Exists(parent)) {
    RETURN_IF_ERROR(fs.CreateDirectories(parent));
    RETURN_IF_ERROR(fs.SyncDirectory(DirectoryName(parent)));
  }
  ASSIGN_OR_RETURN(AtomicDirectory directory, AtomicDirectory::Create(fs, path));
  std::string checksums;
  for (const auto& [group, tensors] : contents.groups) {
    CHECK(!group.empty() &&
          std::all_of(group.begin(), group.end(),
                      [](char c) {
                        return absl::ascii_isalpha(static_cast<unsigned char>(c)) || c == '_';
                      }))
        << "group '" << group << "'";
    RETURN_IF_ERROR(WriteHashed(
        fs, directory, GroupFile(group),
        [&tensors = tensors](const Append& append) {
          return EncodeSafetensors(tensors, {{"format", "pt"}}, append);
        },
        &checksums));
  }
  const auto write_text = [&](absl::string_view name, const std::string& text) {
    return WriteHashed(
        fs, directory, name, [&](const Append& append) { return append(text); }, &checksums);
  };
  RETURN_IF_ERROR(write_text(kConfigFile, contents.config));
  RETURN_IF_ERROR(write_text(kStateFile, StateJson(contents)));
  RETURN_IF_ERROR(directory.WriteFile(kChecksumsFile, checksums));
  return directory.Replace();
}

absl::StatusOr<Checkpoint> Checkpoint::Open(FileSystem& fs, const std::string& path) {
  const std::string where = ResolveReplaced(fs, path);
  RETURN_IF_ERROR(fs.Stat(where).status());
  const absl::StatusOr<std::string> listing =
      fs.ReadFile(JoinPath(where, kChecksumsFile), kMaxTextBytes);
  if (!listing.ok()) return NoCheckpoint(fs, path, listing.status());
  const auto checksums = ParseChecksums(*listing);
  if (!checksums.ok()) return Annotate(checksums.status(), path);
  const std::vector<std::string> damage = FindDamage(fs, where, *checksums);
  if (!damage.empty()) {
    return DataError(absl::StrFormat("%s: damaged: %s", path, absl::StrJoin(damage, "; ")));
  }

  Checkpoint result;
  result.path_ = where;
  ASSIGN_OR_RETURN(result.config_, fs.ReadFile(JoinPath(where, kConfigFile), kMaxTextBytes));
  const std::string state_path = JoinPath(where, kStateFile);
  ASSIGN_OR_RETURN(const std::string text, fs.ReadFile(state_path, kMaxTextBytes));
  ASSIGN_OR_RETURN(const Json json, ParseJson(text, state_path));
  std::vector<std::string> groups;
  const absl::Status parsed = ParseState(json, &result.state_, &groups);
  if (!parsed.ok()) return Annotate(parsed, state_path);
  for (const std::string& group : groups) {
    if (checksums->count(GroupFile(group)) == 0) {
      return DataError(absl::StrFormat("%s: damaged: %s has no entry in %s", path, GroupFile(group),
                                       kChecksumsFile));
    }
    ASSIGN_OR_RETURN(SafetensorsFile file,
                     SafetensorsFile::Open(fs, JoinPath(where, GroupFile(group))));
    result.groups_.emplace(group, std::move(file));
  }
  return result;
}

const SafetensorsFile* Checkpoint::group(absl::string_view name) const {
  const auto found = groups_.find(std::string(name));
  return found == groups_.end() ? nullptr : &found->second;
}

absl::Status Checkpoint::Read(absl::string_view name, absl::Span<const NamedTensor> tensors) const {
  const SafetensorsFile* file = group(name);
  if (file == nullptr) {
    return absl::NotFoundError(absl::StrFormat("%s: holds no %s", path_, GroupFile(name)));
  }
  RETURN_IF_ERROR(CheckNames(*file, tensors));
  for (const auto& [tensor_name, tensor] : tensors) {
    if (tensor.dtype() == DType::kF32 && tensor.device() == Device::kCpu) {
      RETURN_IF_ERROR(file->ReadAsF32(tensor_name,
                                      {tensor.data<float>(), static_cast<size_t>(tensor.numel())}));
    } else {
      ASSIGN_OR_RETURN(const Tensor read, file->Read(tensor_name));
      tensor.CopyFrom(read);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int64_t>> ListCheckpoints(FileSystem& fs, const std::string& run_dir) {
  const std::string directory = CheckpointsDir(run_dir);
  if (!fs.Exists(directory)) return std::vector<int64_t>();
  ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.ListDirectory(directory));
  std::set<int64_t, std::greater<>> steps;
  for (absl::string_view name : names) {
    int64_t step = 0;
    absl::ConsumePrefix(&name, ".old-");  // see ResolveReplaced
    const bool is_step = absl::SimpleAtoi(absl::StripPrefix(name, kStepPrefix), &step);
    if (is_step && name == BaseName(CheckpointPath("", step))) steps.insert(step);
  }
  return std::vector<int64_t>(steps.begin(), steps.end());
}

absl::StatusOr<Checkpoint> OpenLatestCheckpoint(FileSystem& fs, const std::string& run_dir) {
  ASSIGN_OR_RETURN(const std::vector<int64_t> steps, ListCheckpoints(fs, run_dir));
  absl::Status newest_error = absl::NotFoundError(
      absl::StrFormat("%s: no checkpoint to resume from; without --resume a new run starts",
                      CheckpointsDir(run_dir)));
  for (const int64_t step : steps) {
    absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(fs, CheckpointPath(run_dir, step));
    if (checkpoint.ok()) return checkpoint;
    LOG(WARNING) << "skipped: " << checkpoint.status().message();
    if (step == steps.front()) newest_error = checkpoint.status();
  }
  return newest_error;
}

absl::Status PruneCheckpoints(FileSystem& fs, const std::string& run_dir, int64_t keep_last) {
  CHECK_GE(keep_last, 1);
  const std::string directory = CheckpointsDir(run_dir);
  ASSIGN_OR_RETURN(const std::vector<int64_t> steps, ListCheckpoints(fs, run_dir));
  if (steps.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(RemoveLeftovers(fs, directory));
  bool kept_good = false;
  for (size_t i = 0; i < steps.size(); ++i) {
    const std::string path = CheckpointPath(run_dir, steps[i]);
    if (!kept_good) {
      kept_good = Checkpoint::Open(fs, path).ok();
    } else if (static_cast<int64_t>(i) >= keep_last) {
      // Renamed first: a removal that is cut short leaves no half of a checkpoint under its name.
      const std::string doomed = JoinPath(directory, absl::StrCat(".tmp-", BaseName(path)));
      RETURN_IF_ERROR(fs.Rename(ResolveReplaced(fs, path), doomed));
      RETURN_IF_ERROR(fs.RemoveTree(doomed));
    }
  }
  return fs.SyncDirectory(directory);
}

}  // namespace tessera::train
