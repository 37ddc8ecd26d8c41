#include "tensor/torch/torch_file.h"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/types/span.h"
#include "core/check.h"
#include "core/status.h"
#include "tensor/torch/pickle.h"
#include "tensor/torch/zip_reader.h"

namespace tessera {
namespace {

using Kind = PickleValue::Kind;

constexpr int64_t kMaxPickleBytes = int64_t{64} << 20;
constexpr int kMaxNesting = 4;  // of dicts around a state_dict
constexpr absl::string_view kZipStart = "PK\x03\x04";
// What torch.save wrote before 1.6 begins with: a pickle of its magic number.
constexpr absl::string_view kLegacyStart = "\x80\x02\x8a\x0a";
constexpr absl::string_view kModulePrefix = "module.";

constexpr absl::string_view kRebuildTensor = "torch._utils._rebuild_tensor_v2";
constexpr absl::string_view kRebuildParameter = "torch._utils._rebuild_parameter";
// Holds the command line in the checkpoints of many training scripts.
constexpr absl::string_view kNamespace = "argparse.Namespace";

struct StorageType {
  absl::string_view name;
  FileDType dtype;
};
constexpr StorageType kStorageTypes[] = {
    {"torch.DoubleStorage", FileDType::kF64}, {"torch.FloatStorage", FileDType::kF32},
    {"torch.HalfStorage", FileDType::kF16},   {"torch.BFloat16Storage", FileDType::kBF16},
    {"torch.LongStorage", FileDType::kI64},   {"torch.IntStorage", FileDType::kI32},
    {"torch.ShortStorage", FileDType::kI16},  {"torch.CharStorage", FileDType::kI8},
    {"torch.ByteStorage", FileDType::kU8},    {"torch.BoolStorage", FileDType::kBool},
};

std::vector<absl::string_view> AllowedGlobals() {
  std::vector<absl::string_view> globals = {kRebuildTensor, kRebuildParameter, kNamespace};
  for (const StorageType& type : kStorageTypes) globals.push_back(type.name);
  return globals;
}

bool IsText(const PickleValue& value, absl::string_view text) {
  return value.text == std::string(text);
}

// The archive's members by their names below its one folder.
using Members = std::map<std::string, ZipMember>;

absl::StatusOr<Members> OpenArchive(const ReadableFile& file) {
  std::string start(static_cast<size_t>(std::min<int64_t>(file.bytes(), 4)), '\0');
  RETURN_IF_ERROR(file.ReadAt(0, static_cast<int64_t>(start.size()), start.data()));
  if (start == std::string(kLegacyStart)) {
    return DataError(
        "written in the format of PyTorch before 1.6, which is not read; in Python, "
        "torch.save(torch.load(FILE, map_location='cpu'), OTHER_FILE) writes today's");
  }
  if (start != std::string(kZipStart)) {
    return DataError("no file of torch.save: it does not begin like a ZIP archive");
  }
  ASSIGN_OR_RETURN(std::vector<ZipMember> list, ReadZipDirectory(file));
  Members members;
  for (ZipMember& member : list) {
    const std::string name = member.name.substr(member.name.find('/') + 1);
    members.emplace(name, std::move(member));
  }
  return members;
}

absl::StatusOr<std::string> ReadMember(const ReadableFile& file, const ZipMember& member,
                                       int64_t max_bytes) {
  if (!member.is_stored) return DataError("compressed or encrypted, expected plain bytes");
  if (member.bytes > max_bytes) {
    return DataError(absl::StrFormat("%d bytes, at most %d are read", member.bytes, max_bytes));
  }
  std::string bytes(static_cast<size_t>(member.bytes), '\0');
  RETURN_IF_ERROR(file.ReadAt(member.offset, member.bytes, bytes.data()));
  return bytes;
}

absl::Status CheckByteOrder(const ReadableFile& file, const Members& members) {
  const auto found = members.find("byteorder");
  if (found == members.end()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string order, ReadMember(file, found->second, 16));
  if (order == "little") return absl::OkStatus();
  return DataError("written on a machine of another byte order");
}

// Follows what a pickle says to the tensors' bytes.
class Reader {
 public:
  Reader(const Pickle& pickle, const Members& members) : pickle_(pickle), members_(members) {}

  absl::StatusOr<std::vector<TorchFile::Entry>> ReadStateDict() const;

 private:
  struct Storage {
    FileDType dtype;
    const ZipMember* member;
  };

  const PickleValue* Find(const PickleValue& dict, absl::string_view key) const;
  absl::StatusOr<const PickleValue*> FindStateDict() const;
  // The call that rebuilds a tensor; null for any other value.
  const PickleValue* TensorCall(const PickleValue& value) const;
  absl::StatusOr<TorchFile::Entry> ReadTensor(const PickleValue& call) const;
  absl::StatusOr<Storage> ReadStorage(const PickleValue& value) const;
  absl::StatusOr<std::vector<int64_t>> ReadSizes(const PickleValue& value) const;
  const PickleValue& Item(const PickleValue& value, size_t i) const {
    return pickle_[value.items[i]];
  }

  const Pickle& pickle_;
  const Members& members_;
};

const PickleValue* Reader::Find(const PickleValue& dict, absl::string_view key) const {
  for (size_t i = 0; i < dict.items.size(); i += 2) {
    if (Item(dict, i).kind == Kind::kString && IsText(Item(dict, i), key)) {
      return &Item(dict, i + 1);
    }
  }
  return nullptr;
}

const PickleValue* Reader::TensorCall(const PickleValue& value) const {
  if (value.kind != Kind::kCall) return nullptr;
  if (IsText(Item(value, 0), kRebuildTensor)) return &value;
  if (!IsText(Item(value, 0), kRebuildParameter) || value.items.size() < 2) return nullptr;
  const PickleValue& data = Item(value, 1);
  return data.kind == Kind::kCall && IsText(Item(data, 0), kRebuildTensor) ? &data : nullptr;
}

absl::StatusOr<const PickleValue*> Reader::FindStateDict() const {
  const PickleValue* dict = &pickle_[pickle_.root()];
  for (int nesting = 0; nesting < kMaxNesting; ++nesting) {
    if (dict->kind != Kind::kDict) break;
    const PickleValue* inner = nullptr;
    for (const char* key : {"state_dict_ema", "model_ema", "state_dict", "model", "module"}) {
      const PickleValue* const found = Find(*dict, key);
      if (inner == nullptr && found != nullptr && found->kind == Kind::kDict) inner = found;
    }
    if (inner == nullptr) return dict;
    dict = inner;
  }
  return DataError("holds no state_dict: neither by itself nor under 'model' or 'state_dict'");
}

absl::StatusOr<std::vector<int64_t>> Reader::ReadSizes(const PickleValue& value) const {
  std::vector<int64_t> sizes;
  bool ok = value.kind == Kind::kTuple && value.items.size() <= Shape::kMaxRank;
  for (size_t i = 0; ok && i < value.items.size(); ++i) {
    ok = Item(value, i).kind == Kind::kInt && Item(value, i).integer >= 0;
    sizes.push_back(Item(value, i).integer);
  }
  if (ok) return sizes;
  return DataError(absl::StrFormat("expected a tuple of at most %d sizes", Shape::kMaxRank));
}

// A tuple ('storage', type, key, device, number of elements).
absl::StatusOr<Reader::Storage> Reader::ReadStorage(const PickleValue& value) const {
  if (value.kind != Kind::kPersistent) return DataError("expected a storage");
  const PickleValue& id = Item(value, 0);
  if (id.kind != Kind::kTuple || id.items.size() < 5 || Item(id, 1).kind != Kind::kGlobal ||
      Item(id, 2).kind != Kind::kString) {
    return DataError("expected a storage");
  }
  const std::string& type_name = Item(id, 1).text;
  const StorageType* const type =
      std::find_if(std::begin(kStorageTypes), std::end(kStorageTypes),
                   [&](const StorageType& t) { return type_name == std::string(t.name); });
  if (type == std::end(kStorageTypes)) {
    return DataError(absl::StrCat("a storage of type ", type_name));
  }
  const auto member = members_.find("data/" + Item(id, 2).text);
  if (member == members_.end()) {
    return DataError(absl::StrFormat("its storage data/%s is not in the file",
                                     absl::Utf8SafeCHexEscape(Item(id, 2).text)));
  }
  if (!member->second.is_stored) return DataError("its storage is compressed or encrypted");
  return Storage{type->dtype, &member->second};
}

// Arguments: storage, first element in it, shape, strides, and others that say nothing about bytes.
absl::StatusOr<TorchFile::Entry> Reader::ReadTensor(const PickleValue& call) const {
  if (call.items.size() < 5 || Item(call, 2).kind != Kind::kInt) {
    return DataError("a tensor without storage, shape or strides");
  }
  ASSIGN_OR_RETURN(const Storage storage, ReadStorage(Item(call, 1)));
  const int64_t first = Item(call, 2).integer;
  ASSIGN_OR_RETURN(const std::vector<int64_t> dims, ReadSizes(Item(call, 3)));
  ASSIGN_OR_RETURN(std::vector<int64_t> strides, ReadSizes(Item(call, 4)));
  if (dims.size() != strides.size()) return DataError("as many strides as dimensions expected");
  ASSIGN_OR_RETURN(const int64_t bytes, BytesOf(dims, storage.dtype));
  const Shape shape{absl::MakeConstSpan(dims)};
  // The last element that the tensor reaches; none of an empty one.
  int64_t last = bytes == 0 ? -1 : first;
  bool fits = first >= 0;
  for (size_t i = 0; i < dims.size() && fits && bytes > 0; ++i) {
    int64_t reach = 0;
    fits = !__builtin_mul_overflow(dims[i] - 1, strides[i], &reach) &&
           !__builtin_add_overflow(last, reach, &last);
  }
  const int64_t stored = storage.member->bytes / SizeOf(storage.dtype);
  if (!fits || last >= stored) {
    return DataError(absl::StrFormat("%s%s reaches beyond the %d elements of its storage",
                                     Name(storage.dtype), shape.ToString(), stored));
  }
  const int64_t offset = bytes == 0 ? 0 : storage.member->offset + first * SizeOf(storage.dtype);
  return TorchFile::Entry{"", storage.dtype, shape, offset, std::move(strides)};
}

absl::StatusOr<std::vector<TorchFile::Entry>> Reader::ReadStateDict() const {
  ASSIGN_OR_RETURN(const PickleValue* dict, FindStateDict());
  std::vector<TorchFile::Entry> entries;
  absl::flat_hash_map<std::string, size_t> places;
  for (size_t i = 0; i < dict->items.size(); i += 2) {
    const PickleValue* const tensor = TensorCall(Item(*dict, i + 1));
    if (tensor == nullptr || Item(*dict, i).kind != Kind::kString) continue;
    const std::string& name = Item(*dict, i).text;
    absl::StatusOr<TorchFile::Entry> entry = ReadTensor(*tensor);
    if (!entry.ok()) {
      return Annotate(entry.status(),
                      absl::StrFormat("tensor '%s'", absl::Utf8SafeCHexEscape(name)));
    }
    entry->name = name;
    // As in Python, the last value of a key is the one that stays.
    const auto [place, is_new] = places.emplace(name, entries.size());
    if (is_new) {
      entries.push_back(*std::move(entry));
    } else {
      entries[place->second] = *std::move(entry);
    }
  }
  if (entries.empty()) return DataError("holds no tensors");
  return entries;
}

void StripModulePrefix(std::vector<TorchFile::Entry>* entries) {
  for (const TorchFile::Entry& entry : *entries) {
    if (!absl::StartsWith(entry.name, kModulePrefix)) return;
  }
  for (TorchFile::Entry& entry : *entries) entry.name.erase(0, kModulePrefix.size());
}

absl::StatusOr<std::vector<TorchFile::Entry>> ReadEntries(const ReadableFile& file) {
  ASSIGN_OR_RETURN(const Members members, OpenArchive(file));
  RETURN_IF_ERROR(CheckByteOrder(file, members));
  const auto found = members.find("data.pkl");
  if (found == members.end() || members.count("constants.pkl") > 0) {
    return DataError(found == members.end()
                         ? "no file of torch.save: the archive has no data.pkl"
                         : "a TorchScript program, expected a file with a state_dict");
  }
  const absl::StatusOr<std::string> program = ReadMember(file, found->second, kMaxPickleBytes);
  if (!program.ok()) return Annotate(program.status(), "data.pkl");
  absl::StatusOr<Pickle> pickle = Pickle::Parse(*program, AllowedGlobals());
  if (!pickle.ok()) return Annotate(pickle.status(), "data.pkl");
  ASSIGN_OR_RETURN(std::vector<TorchFile::Entry> entries, Reader(*pickle, members).ReadStateDict());
  StripModulePrefix(&entries);
  return entries;
}

}  // namespace

bool HasTorchSuffix(absl::string_view path) {
  for (const char* suffix : {".pth", ".pt", ".bin", ".ckpt", ".tar"}) {
    if (absl::EndsWith(path, suffix)) return true;
  }
  return false;
}

absl::StatusOr<TorchFile> TorchFile::Open(FileSystem& fs, const std::string& path) {
  TorchFile result;
  result.path_ = path;
  ASSIGN_OR_RETURN(result.file_, fs.OpenReadable(path));
  absl::StatusOr<std::vector<Entry>> entries = ReadEntries(*result.file_);
  if (!entries.ok()) return Annotate(entries.status(), path);
  result.entries_ = *std::move(entries);
  return result;
}

template <typename T>
absl::Status TorchFile::ReadView(const Entry& entry, absl::Span<T> dst) const {
  const Shape& shape = entry.shape;
  int64_t reach = 1;  // elements from the first to the last
  bool row_major = true;
  for (int64_t axis = shape.rank() - 1, run = 1; axis >= 0; run *= shape[axis--]) {
    reach += (shape[axis] - 1) * entry.strides[axis];
    row_major &= shape[axis] == 1 || entry.strides[axis] == run;
  }
  if (row_major) return ReadElements(*file_, entry.offset, entry.dtype, dst);
  std::vector<T> reached(static_cast<size_t>(reach));
  RETURN_IF_ERROR(ReadElements(*file_, entry.offset, entry.dtype, absl::MakeSpan(reached)));
  std::vector<int64_t> index(entry.strides.size(), 0);
  for (T& value : dst) {
    int64_t element = 0;
    for (size_t i = 0; i < index.size(); ++i) element += index[i] * entry.strides[i];
    value = reached[static_cast<size_t>(element)];
    for (int i = shape.rank() - 1; i >= 0 && ++index[i] == shape[i]; --i) index[i] = 0;
  }
  return absl::OkStatus();
}

absl::Status TorchFile::Read(const Entry& entry, const Tensor& dst) const {
  CHECK(dst.shape() == entry.shape) << entry.name << " " << entry.shape << " into " << dst.shape();
  const size_t numel = static_cast<size_t>(dst.numel());
  if (numel == 0) return absl::OkStatus();
  if (dst.dtype() == DType::kI64) return ReadView<int64_t>(entry, {dst.data<int64_t>(), numel});
  return ReadView<float>(entry, {dst.data<float>(), numel});
}

}  // namespace tessera
