#include "train/weight_source.h"

#include <memory>
#include <optional>
#include <utility>

#include "core/status.h"
#include "tensor/safetensors.h"
#include "tensor/torch/torch_file.h"
#include "train/checkpoint.h"

namespace tessera::train {
namespace {

// `file` is kept by the entries that read from it.
void AddEntries(const std::shared_ptr<const SafetensorsFile>& file,
                std::vector<WeightSource::Entry>* entries) {
  for (const SafetensorsFile::Entry& entry : file->entries()) {
    const auto read = [file, name = entry.name](const Tensor& dst) -> absl::Status {
      if (dst.dtype() == DType::kF32) {
        return file->ReadAsF32(name, {dst.data<float>(), static_cast<size_t>(dst.numel())});
      }
      ASSIGN_OR_RETURN(const Tensor tensor, file->Read(name));
      dst.CopyFrom(tensor);
      return absl::OkStatus();
    };
    entries->push_back({entry.name, entry.dtype, entry.shape, read});
  }
}

}  // namespace

absl::Status WeightSource::AddSafetensors(FileSystem& fs) {
  ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(fs, path_));
  AddEntries(std::make_shared<const SafetensorsFile>(std::move(file)), &entries_);
  return absl::OkStatus();
}

absl::Status WeightSource::AddTorch(FileSystem& fs) {
  ASSIGN_OR_RETURN(TorchFile opened, TorchFile::Open(fs, path_));
  const auto file = std::make_shared<const TorchFile>(std::move(opened));
  for (const TorchFile::Entry& entry : file->entries()) {
    // Entries live as long as their file.
    entries_.push_back({entry.name, entry.dtype, entry.shape,
                        [file, &entry](const Tensor& dst) { return file->Read(entry, dst); }});
  }
  return absl::OkStatus();
}

absl::Status WeightSource::AddCheckpoint(FileSystem& fs, bool ema) {
  ASSIGN_OR_RETURN(Checkpoint opened, Checkpoint::Open(fs, path_));
  const auto checkpoint = std::make_shared<const Checkpoint>(std::move(opened));
  const char* const group = ema ? "ema" : "model";
  const SafetensorsFile* const file = checkpoint->group(group);
  if (file == nullptr) {
    return absl::NotFoundError(absl::StrFormat("%s: holds no %s.safetensors", path_, group));
  }
  AddEntries(std::shared_ptr<const SafetensorsFile>(checkpoint, file), &entries_);
  return absl::OkStatus();
}

absl::Status WeightSource::Rename(absl::Span<const NameRule> rules) {
  std::vector<Entry> renamed;
  for (Entry& entry : entries_) {
    std::optional<std::string> name = RenameWeight(entry.name, rules);
    if (!name) continue;
    if (!places_.emplace(*name, renamed.size()).second) {
      return DataError(absl::StrFormat("%s: two tensors stand for %s", path_, *name));
    }
    entry.name = *std::move(name);
    renamed.push_back(std::move(entry));
  }
  entries_ = std::move(renamed);
  return absl::OkStatus();
}

absl::StatusOr<WeightSource> WeightSource::Open(FileSystem& fs, const std::string& path, bool ema,
                                                absl::Span<const NameRule> rules) {
  WeightSource source;
  source.path_ = path;
  ASSIGN_OR_RETURN(const FileInfo info, fs.Stat(ResolveReplaced(fs, path)));
  if (info.is_directory) {
    RETURN_IF_ERROR(source.AddCheckpoint(fs, ema));
  } else if (HasTorchSuffix(path)) {
    RETURN_IF_ERROR(source.AddTorch(fs));
  } else {
    RETURN_IF_ERROR(source.AddSafetensors(fs));
  }
  RETURN_IF_ERROR(source.Rename(rules));
  return source;
}

const WeightSource::Entry* WeightSource::Find(absl::string_view name) const {
  const auto found = places_.find(name);
  return found == places_.end() ? nullptr : &entries_[found->second];
}

}  // namespace tessera::train
