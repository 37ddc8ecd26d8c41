// Reads Python's pickles without running them. A pickle is a program for a stack machine, and its
// opcodes can call any function of Python. Here only those are known that build plain data; names
// of functions and classes must be on the caller's list, and a call of one stays in the result as a
// value: function and arguments.
// Format: https://github.com/python/cpython/blob/main/Lib/pickletools.py
#ifndef TESSERA_TENSOR_TORCH_PICKLE_H_
#define TESSERA_TENSOR_TORCH_PICKLE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace tessera {

// A value of a Pickle, which refers to others by their numbers. Values can be shared, and contain
// themselves.
struct PickleValue {
  enum class Kind : uint8_t {
    kNone,
    kBool,        // integer
    kInt,         // integer
    kFloat,       // number
    kString,      // text
    kTuple,       // items
    kList,        // items
    kDict,        // items: key, value, key, value, ...; also of OrderedDict
    kGlobal,      // text: "module.name"
    kCall,        // items: the global, then its arguments
    kPersistent,  // items: the one value that says what lies outside of the pickle
  };
  Kind kind = Kind::kNone;
  int64_t integer = 0;
  double number = 0.0;
  std::string text;
  std::vector<int32_t> items;
};

class Pickle {
 public:
  // Reads the whole program, protocols 2 to 5. `globals` are the names that it may mention besides
  // collections.OrderedDict. DataErrors name the opcode or the global and its byte:
  //   byte 23: 'posix.system' is not allowed
  static absl::StatusOr<Pickle> Parse(absl::string_view program,
                                      absl::Span<const absl::string_view> globals);

  int32_t root() const { return root_; }
  const PickleValue& operator[](int32_t value) const { return values_[value]; }

 private:
  friend class PickleMachine;
  std::vector<PickleValue> values_;
  int32_t root_ = 0;
};

}  // namespace tessera

#endif  // TESSERA_TENSOR_TORCH_PICKLE_H_
