// Element types of tensors in files, more than a Tensor can have.
#ifndef TESSERA_TENSOR_FILE_DTYPE_H_
#define TESSERA_TENSOR_FILE_DTYPE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "core/file_system.h"

namespace tessera {

enum class FileDType : uint8_t { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kBool };

inline constexpr FileDType kAllFileDTypes[] = {
    FileDType::kF64, FileDType::kF32, FileDType::kF16, FileDType::kBF16, FileDType::kI64,
    FileDType::kI32, FileDType::kI16, FileDType::kI8,  FileDType::kU8,   FileDType::kBool};

int64_t SizeOf(FileDType dtype);          // bytes of an element
absl::string_view Name(FileDType dtype);  // as safetensors calls it: "F32", "BOOL"
bool IsFloatingPoint(FileDType dtype);

// Bytes of elements of this type in a shape of these dimensions, none negative; DataError if their
// number does not fit an int64.
absl::StatusOr<int64_t> BytesOf(absl::Span<const int64_t> dims, FileDType dtype);

// Fills `dst` with as many elements that lie one after another in `file` from byte `offset`,
// little-endian. Values of a floating-point type are rounded to f32; i16 and i8 become i32; i64
// stays.
absl::Status ReadElements(const ReadableFile& file, int64_t offset, FileDType dtype,
                          absl::Span<float> dst);
absl::Status ReadElements(const ReadableFile& file, int64_t offset, FileDType dtype,
                          absl::Span<int64_t> dst);
absl::Status ReadElements(const ReadableFile& file, int64_t offset, FileDType dtype,
                          absl::Span<int32_t> dst);

}  // namespace tessera

#endif  // TESSERA_TENSOR_FILE_DTYPE_H_
