// Errors that a user can cause: absl::Status with where, found, expected and a suggestion.
//
// Exit codes of the program follow from the status code (see ExitCode): 0 ok, 2 configuration or
// command line, 3 data, 4 memory, 5 numeric, 6 communication, 75 preempted and saved, 1 anything
// else.
#ifndef TESSERA_CORE_STATUS_H_
#define TESSERA_CORE_STATUS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"

#define TESSERA_CONCAT_INNER_(a, b) a##b
#define TESSERA_CONCAT_(a, b) TESSERA_CONCAT_INNER_(a, b)

// Returns from the enclosing function when `expr`, an absl::Status, is not ok.
#define RETURN_IF_ERROR(expr)                                         \
  do {                                                                \
    if (absl::Status status_ = (expr); !status_.ok()) return status_; \
  } while (false)

// ASSIGN_OR_RETURN(auto x, F()): binds the value of an absl::StatusOr, or returns its status.
#define ASSIGN_OR_RETURN(lhs, expr) \
  TESSERA_ASSIGN_OR_RETURN_(TESSERA_CONCAT_(status_or_, __LINE__), lhs, expr)
#define TESSERA_ASSIGN_OR_RETURN_(tmp, lhs, expr) \
  auto tmp = (expr);                              \
  if (!tmp.ok()) return tmp.status();             \
  lhs = std::move(tmp).value()

namespace tessera {

// Puts "context: " before the message, keeping the code. Ok stays ok.
inline absl::Status Annotate(const absl::Status& status, absl::string_view context) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(context, ": ", status.message()));
}

// The four kinds of user error, by what was wrong.
inline absl::Status ConfigError(std::string message) {
  return absl::InvalidArgumentError(std::move(message));
}
inline absl::Status DataError(std::string message) {
  return absl::DataLossError(std::move(message));
}
inline absl::Status MemoryError(std::string message) {
  return absl::ResourceExhaustedError(std::move(message));
}
inline absl::Status NumericError(std::string message) {
  return absl::OutOfRangeError(std::move(message));
}

// The exit code that a program ends with after `status`.
inline int ExitCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 0;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kAlreadyExists:
      return 2;
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kNotFound:
      return 3;
    case absl::StatusCode::kResourceExhausted:
      return 4;
    case absl::StatusCode::kOutOfRange:
      return 5;
    case absl::StatusCode::kUnavailable:
      return 6;
    case absl::StatusCode::kCancelled:
      return 75;
    default:
      return 1;
  }
}

}  // namespace tessera

#endif  // TESSERA_CORE_STATUS_H_
