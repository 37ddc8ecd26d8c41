#include "tensor/safetensors.h"

#include <algorithm>
#include <limits>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_join.h"
#include "core/edit_distance.h"
#include "core/json.h"
#include "core/status.h"

namespace tessera {
namespace {

constexpr int64_t kSizeBytes = 8;  // of the header's size
constexpr int64_t kMaxHeaderBytes = int64_t{32} << 20;
constexpr absl::string_view kMetadataKey = "__metadata__";

absl::StatusOr<FileDType> ParseDType(const Json& value) {
  if (value.is_string()) {
    for (const FileDType dtype : kAllFileDTypes) {
      if (value.get_ref<const std::string&>() == std::string(Name(dtype))) return dtype;
    }
  }
  return DataError(absl::StrFormat(
      "dtype %s is not supported, expected one of %s", value.dump(-1, ' ', true).substr(0, 40),
      absl::StrJoin(kAllFileDTypes, ", ",
                    [](std::string* out, FileDType dtype) { absl::StrAppend(out, Name(dtype)); })));
}

// A list of non-negative integers.
absl::StatusOr<std::vector<int64_t>> ParseSizes(const Json& value, absl::string_view key) {
  std::vector<int64_t> sizes;
  bool ok = value.is_array();
  for (size_t i = 0; ok && i < value.size(); ++i) {
    ok = value[i].is_number_unsigned() &&
         value[i].get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    if (ok) sizes.push_back(value[i].get<int64_t>());
  }
  if (ok) return sizes;
  return DataError(absl::StrFormat("%s: expected a list of non-negative integers", key));
}

absl::StatusOr<SafetensorsFile::Entry> ParseEntry(const std::string& name, const Json& value) {
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    if (!value.is_object() || !value.contains(key)) {
      return DataError(absl::StrFormat("'%s' is missing", key));
    }
  }
  ASSIGN_OR_RETURN(const FileDType dtype, ParseDType(value["dtype"]));
  ASSIGN_OR_RETURN(const std::vector<int64_t> dims, ParseSizes(value["shape"], "shape"));
  ASSIGN_OR_RETURN(const std::vector<int64_t> place,
                   ParseSizes(value["data_offsets"], "data_offsets"));
  if (dims.size() > Shape::kMaxRank) {
    return DataError(
        absl::StrFormat("%d dimensions, at most %d are supported", dims.size(), Shape::kMaxRank));
  }
  if (place.size() != 2 || place[0] > place[1]) {
    return DataError("data_offsets: expected [begin, end] with begin <= end");
  }
  ASSIGN_OR_RETURN(const int64_t bytes, BytesOf(dims, dtype));
  const Shape shape{absl::MakeConstSpan(dims)};
  if (place[1] - place[0] != bytes) {
    return DataError(absl::StrFormat("%d bytes at [%d, %d), expected %d for %s%s",
                                     place[1] - place[0], place[0], place[1], bytes, Name(dtype),
                                     shape.ToString()));
  }
  return SafetensorsFile::Entry{name, dtype, shape, place[0], place[1]};
}

absl::Status ParseMetadata(const Json& value, std::map<std::string, std::string>* metadata) {
  if (!value.is_object()) return DataError("expected a map of strings");
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) {
      return DataError(absl::StrFormat("'%s' is no string", absl::Utf8SafeCHexEscape(key)));
    }
    metadata->emplace(key, text.get<std::string>());
  }
  return absl::OkStatus();
}

std::string Quoted(absl::string_view name) {
  return absl::StrFormat("tensor '%s'", absl::Utf8SafeCHexEscape(name));
}

// Tensors lie one after another from 0 to the end of the file: no gaps, no overlaps.
absl::Status CheckPlaces(const std::vector<SafetensorsFile::Entry>& entries, int64_t data_bytes) {
  int64_t end = 0;
  for (const auto& entry : entries) {
    if (entry.begin != end) {
      return DataError(absl::StrFormat("%s: begins at byte %d of the data, expected %d",
                                       Quoted(entry.name), entry.begin, end));
    }
    end = entry.end;
  }
  if (end == data_bytes) return absl::OkStatus();
  return DataError(absl::StrFormat("%d bytes of data, expected %d from the header%s", data_bytes,
                                   end, data_bytes < end ? "; is the file cut off?" : ""));
}

absl::StatusOr<std::string> ReadHeader(const ReadableFile& file) {
  uint64_t header_bytes = 0;
  if (file.bytes() < kSizeBytes) {
    return DataError(absl::StrFormat("%d bytes are too few for a safetensors file", file.bytes()));
  }
  RETURN_IF_ERROR(file.ReadAt(0, kSizeBytes, &header_bytes));
  const int64_t limit = std::min(kMaxHeaderBytes, file.bytes() - kSizeBytes);
  if (header_bytes > static_cast<uint64_t>(limit)) {
    return DataError(absl::StrFormat(
        "header of %d bytes, at most %d are possible; is it a safetensors file, and complete?",
        header_bytes, limit));
  }
  std::string text(header_bytes, '\0');
  RETURN_IF_ERROR(file.ReadAt(kSizeBytes, static_cast<int64_t>(header_bytes), text.data()));
  if (text.empty() || text[0] != '{') return DataError("the header does not begin with '{'");
  return text;
}

}  // namespace

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(FileSystem& fs, const std::string& path) {
  SafetensorsFile result;
  result.path_ = path;
  ASSIGN_OR_RETURN(result.file_, fs.OpenReadable(path));
  const absl::StatusOr<std::string> text = ReadHeader(*result.file_);
  if (!text.ok()) return Annotate(text.status(), path);
  result.data_offset_ = kSizeBytes + static_cast<int64_t>(text->size());
  // A map of tensors, each a map, with lists in it: three levels.
  ASSIGN_OR_RETURN(const Json header, ParseJson(*text, path + ": header", {.max_depth = 3}));
  for (const auto& [name, value] : header.items()) {
    if (name == std::string(kMetadataKey)) {
      const absl::Status status = ParseMetadata(value, &result.metadata_);
      if (!status.ok()) return Annotate(status, absl::StrFormat("%s: %s", path, kMetadataKey));
      continue;
    }
    absl::StatusOr<Entry> entry = ParseEntry(name, value);
    if (!entry.ok()) {
      return Annotate(entry.status(), absl::StrFormat("%s: %s", path, Quoted(name)));
    }
    result.entries_.push_back(*std::move(entry));
  }
  std::stable_sort(result.entries_.begin(), result.entries_.end(),
                   [](const auto& a, const auto& b) {
                     return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
                   });
  const absl::Status places =
      CheckPlaces(result.entries_, result.file_->bytes() - result.data_offset_);
  if (!places.ok()) return Annotate(places, path);
  for (const Entry& entry : result.entries_) {
    result.index_.emplace(entry.name, static_cast<int64_t>(result.index_.size()));
  }
  return result;
}

const SafetensorsFile::Entry* SafetensorsFile::Find(absl::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &entries_[found->second];
}

absl::StatusOr<const SafetensorsFile::Entry*> SafetensorsFile::FindOrError(
    absl::string_view name) const {
  if (const Entry* entry = Find(name)) return entry;
  std::vector<std::string> names;
  for (const Entry& entry : entries_) names.push_back(entry.name);
  return absl::NotFoundError(
      absl::StrFormat("%s: no %s%s", path_, Quoted(name), DidYouMean(name, names)));
}

absl::StatusOr<Tensor> SafetensorsFile::Read(absl::string_view name) const {
  ASSIGN_OR_RETURN(const Entry* entry, FindOrError(name));
  const int64_t offset = data_offset_ + entry->begin;
  const auto as_it_is = [&](DType dtype) -> absl::StatusOr<Tensor> {
    Tensor result = Tensor::Empty(entry->shape, dtype);
    RETURN_IF_ERROR(file_->ReadAt(offset, result.bytes(), result.raw()));
    return result;
  };
  const auto as = [&](auto element) -> absl::StatusOr<Tensor> {
    using T = decltype(element);
    Tensor result = Tensor::Empty(entry->shape, kDTypeOf<T>);
    const absl::Span<T> elements(result.data<T>(), static_cast<size_t>(result.numel()));
    RETURN_IF_ERROR(ReadElements(*file_, offset, entry->dtype, elements));
    return result;
  };
  switch (entry->dtype) {
    case FileDType::kF64:
      return as_it_is(DType::kF64);
    case FileDType::kBF16:
      return as_it_is(DType::kBF16);
    case FileDType::kI64:
      return as_it_is(DType::kI64);
    case FileDType::kU8:
    case FileDType::kBool:
      return as_it_is(DType::kU8);
    case FileDType::kF32:
    case FileDType::kF16:
      return as(float());
    case FileDType::kI32:
    case FileDType::kI16:
    case FileDType::kI8:
      return as(int32_t());
  }
  LOG(FATAL) << "dtype " << static_cast<int>(entry->dtype);
}

absl::Status SafetensorsFile::ReadAsF32(absl::string_view name, absl::Span<float> dst) const {
  ASSIGN_OR_RETURN(const Entry* entry, FindOrError(name));
  if (entry->shape.numel() != static_cast<int64_t>(dst.size())) {
    return DataError(absl::StrFormat("%s: %s: %d elements of shape %s, expected %d", path_,
                                     Quoted(name), entry->shape.numel(), entry->shape.ToString(),
                                     dst.size()));
  }
  if (!IsFloatingPoint(entry->dtype)) {
    return DataError(absl::StrFormat("%s: %s: holds %s, expected floating point", path_,
                                     Quoted(name), Name(entry->dtype)));
  }
  return ReadElements(*file_, data_offset_ + entry->begin, entry->dtype, dst);
}

namespace {

absl::string_view FileDTypeName(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return "F64";
    case DType::kF32:
      return "F32";
    case DType::kBF16:
      return "BF16";
    case DType::kI64:
      return "I64";
    case DType::kI32:
      return "I32";
    case DType::kU8:
      return "U8";
  }
  LOG(FATAL) << "dtype " << static_cast<int>(dtype);
}

std::string JsonString(const std::string& text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

absl::Status EncodeSafetensors(absl::Span<const NamedTensor> tensors,
                               const std::map<std::string, std::string>& metadata,
                               const std::function<absl::Status(absl::string_view)>& append) {
  std::vector<const NamedTensor*> sorted;
  for (const NamedTensor& tensor : tensors) sorted.push_back(&tensor);
  std::stable_sort(sorted.begin(), sorted.end(), [](const NamedTensor* a, const NamedTensor* b) {
    return SizeOf(a->second.dtype()) > SizeOf(b->second.dtype());
  });
  std::vector<std::string> items;
  if (!metadata.empty()) {
    items.push_back(
        absl::StrFormat("\"%s\":{%s}", kMetadataKey,
                        absl::StrJoin(metadata, ",", [](std::string* out, const auto& m) {
                          absl::StrAppend(out, JsonString(m.first), ":", JsonString(m.second));
                        })));
  }
  absl::flat_hash_set<absl::string_view> seen = {kMetadataKey};
  int64_t begin = 0;
  for (const NamedTensor* entry : sorted) {
    const auto& [name, tensor] = *entry;
    CHECK(seen.insert(name).second) << "two tensors are called " << name;
    CHECK(tensor.defined()) << name;
    items.push_back(absl::StrFormat("%s:{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%d,%d]}",
                                    JsonString(name), FileDTypeName(tensor.dtype()),
                                    absl::StrJoin(tensor.shape().dims(), ","), begin,
                                    begin + tensor.bytes()));
    begin += tensor.bytes();
  }
  std::string header = absl::StrCat("{", absl::StrJoin(items, ","), "}");
  header.resize((header.size() + 7) / 8 * 8, ' ');
  if (static_cast<int64_t>(header.size()) > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "names and metadata take %d bytes, at most %d", header.size(), kMaxHeaderBytes));
  }
  const uint64_t header_bytes = header.size();
  RETURN_IF_ERROR(append({reinterpret_cast<const char*>(&header_bytes), sizeof(header_bytes)}));
  RETURN_IF_ERROR(append(header));
  for (const NamedTensor* entry : sorted) {
    const Tensor tensor = entry->second.To(Device::kCpu);
    RETURN_IF_ERROR(
        append({static_cast<const char*>(tensor.raw()), static_cast<size_t>(tensor.bytes())}));
  }
  return absl::OkStatus();
}

absl::Status WriteSafetensors(FileSystem& fs, const std::string& path,
                              absl::Span<const NamedTensor> tensors,
                              const std::map<std::string, std::string>& metadata) {
  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(fs, path));
  RETURN_IF_ERROR(EncodeSafetensors(tensors, metadata,
                                    [&](absl::string_view data) { return file.Append(data); }));
  return file.Commit();
}

}  // namespace tessera
