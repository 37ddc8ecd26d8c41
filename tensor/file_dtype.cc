#include "tensor/file_dtype.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "absl/strings/str_join.h"
#include "core/check.h"
#include "core/dtype.h"
#include "core/status.h"

namespace tessera {
namespace {

static_assert(std::endian::native == std::endian::little,
              "elements are stored as they lie in memory");

// IEEE half precision; read only.
struct F16 {
  uint16_t bits = 0;

  explicit operator float() const {
    const uint32_t exponent = (bits >> 10) & 31;
    const uint32_t mantissa = bits & 1023;
    float magnitude = 0.0f;
    if (exponent == 0) {
      magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    } else {
      const uint32_t wide_exponent = exponent == 31 ? 255 : exponent + 112;
      magnitude = std::bit_cast<float>(wide_exponent << 23 | mantissa << 13);
    }
    return bits & 0x8000 ? -magnitude : magnitude;
  }
};

struct Info {
  absl::string_view name;
  int64_t bytes;
};

Info InfoOf(FileDType dtype) {
  switch (dtype) {
    case FileDType::kF64:
      return {"F64", 8};
    case FileDType::kF32:
      return {"F32", 4};
    case FileDType::kF16:
      return {"F16", 2};
    case FileDType::kBF16:
      return {"BF16", 2};
    case FileDType::kI64:
      return {"I64", 8};
    case FileDType::kI32:
      return {"I32", 4};
    case FileDType::kI16:
      return {"I16", 2};
    case FileDType::kI8:
      return {"I8", 1};
    case FileDType::kU8:
      return {"U8", 1};
    case FileDType::kBool:
      return {"BOOL", 1};
  }
  LOG(FATAL) << "dtype " << static_cast<int>(dtype);
}

template <typename From, typename To>
absl::Status ReadConverted(const ReadableFile& file, int64_t offset, absl::Span<To> dst) {
  constexpr int64_t kChunkElements = 1 << 16;
  const int64_t numel = static_cast<int64_t>(dst.size());
  std::vector<From> chunk(static_cast<size_t>(std::min(numel, kChunkElements)));
  for (int64_t i = 0; i < numel; i += kChunkElements) {
    const int64_t count = std::min(kChunkElements, numel - i);
    RETURN_IF_ERROR(file.ReadAt(offset + i * int64_t{sizeof(From)}, count * int64_t{sizeof(From)},
                                chunk.data()));
    std::transform(chunk.begin(), chunk.begin() + count, dst.begin() + i,
                   [](From value) { return static_cast<To>(value); });
  }
  return absl::OkStatus();
}

}  // namespace

int64_t SizeOf(FileDType dtype) { return InfoOf(dtype).bytes; }
absl::string_view Name(FileDType dtype) { return InfoOf(dtype).name; }
bool IsFloatingPoint(FileDType dtype) {
  return dtype == FileDType::kF64 || dtype == FileDType::kF32 || dtype == FileDType::kF16 ||
         dtype == FileDType::kBF16;
}

// The zeros of an empty shape are left out of the product, so that no order of multiplication
// overflows.
absl::StatusOr<int64_t> BytesOf(absl::Span<const int64_t> dims, FileDType dtype) {
  int64_t bytes = SizeOf(dtype);
  bool is_empty = false;
  for (const int64_t dim : dims) {
    CHECK_GE(dim, 0);
    is_empty |= dim == 0;
    if (dim != 0 && __builtin_mul_overflow(bytes, dim, &bytes)) {
      return DataError(absl::StrFormat("shape [%s] is too large", absl::StrJoin(dims, ", ")));
    }
  }
  return is_empty ? 0 : bytes;
}

absl::Status ReadElements(const ReadableFile& file, int64_t offset, FileDType dtype,
                          absl::Span<float> dst) {
  switch (dtype) {
    case FileDType::kF32:
      return file.ReadAt(offset, static_cast<int64_t>(dst.size()) * SizeOf(dtype), dst.data());
    case FileDType::kF64:
      return ReadConverted<double>(file, offset, dst);
    case FileDType::kF16:
      return ReadConverted<F16>(file, offset, dst);
    case FileDType::kBF16:
      return ReadConverted<BF16>(file, offset, dst);
    default:
      LOG(FATAL) << Name(dtype) << " read as floating point";
  }
}

absl::Status ReadElements(const ReadableFile& file, int64_t offset, FileDType dtype,
                          absl::Span<int64_t> dst) {
  CHECK(dtype == FileDType::kI64) << Name(dtype) << " read as i64";
  return file.ReadAt(offset, static_cast<int64_t>(dst.size()) * SizeOf(dtype), dst.data());
}

absl::Status ReadElements(const ReadableFile& file, int64_t offset, FileDType dtype,
                          absl::Span<int32_t> dst) {
  switch (dtype) {
    case FileDType::kI32:
      return file.ReadAt(offset, static_cast<int64_t>(dst.size()) * SizeOf(dtype), dst.data());
    case FileDType::kI16:
      return ReadConverted<int16_t>(file, offset, dst);
    case FileDType::kI8:
      return ReadConverted<int8_t>(file, offset, dst);
    default:
      LOG(FATAL) << Name(dtype) << " read as i32";
  }
}

}  // namespace tessera
