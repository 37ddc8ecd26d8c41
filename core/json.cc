#include "core/json.h"

#include <algorithm>
#include <exception>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "core/status.h"

namespace tessera {
namespace {

// Reads characters and leaves the place it has come to in `*position`: the parser's own events
// carry none.
struct TrackedChars {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  const char* next;
  const char** position;

  reference operator*() const { return *next; }
  TrackedChars& operator++() {
    *position = ++next;
    return *this;
  }
  bool operator==(const TrackedChars& other) const { return next == other.next; }
};

// Builds the value from the parser's events; an event returns false to stop the parser after an
// error.
class ValueBuilder : public nlohmann::json_sax<Json> {
 public:
  explicit ValueBuilder(int max_depth) : max_depth_(static_cast<size_t>(max_depth)) {}

  Json TakeValue() { return std::move(root_); }
  const std::string& error() const { return error_; }

  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(int64_t value) override { return Add(value); }
  bool number_unsigned(uint64_t value) override { return Add(value); }
  bool number_float(double value, const std::string&) override { return Add(value); }
  bool string(std::string& value) override { return Add(std::move(value)); }
  bool binary(Json::binary_t&) override { return Fail("binary value"); }
  bool start_object(size_t) override { return Open(Json::object()); }
  bool start_array(size_t) override { return Open(Json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool key(std::string& name) override {
    const auto [entry, is_new] = open_.back()->emplace(name, nullptr);
    if (!is_new) {
      return Fail(absl::StrFormat("key '%s' is given twice", absl::Utf8SafeCHexEscape(name)));
    }
    value_of_key_ = &*entry;
    return true;
  }
  bool parse_error(size_t, const std::string& token, const Json::exception&) override {
    return Fail(token.empty() ? "unexpected end"
                              : absl::StrFormat("not valid JSON near '%s'",
                                                absl::Utf8SafeCHexEscape(token.substr(0, 40))));
  }

 private:
  bool Fail(std::string message) {
    if (error_.empty()) error_ = std::move(message);
    return false;
  }

  Json* Place(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) return &open_.back()->emplace_back(std::move(value));
    *value_of_key_ = std::move(value);
    return value_of_key_;
  }
  bool Add(Json value) {
    Place(std::move(value));
    return true;
  }
  bool Open(Json container) {
    if (open_.size() == max_depth_) {
      return Fail(absl::StrFormat("nested more than %d levels deep", max_depth_));
    }
    open_.push_back(Place(std::move(container)));
    return true;
  }
  bool Close() {
    open_.pop_back();
    return true;
  }

  size_t max_depth_;
  Json root_;
  // An open container is the last element of its parent, so it does not move.
  std::vector<Json*> open_;
  Json* value_of_key_ = nullptr;
  std::string error_;
};

}  // namespace

absl::StatusOr<Json> ParseJson(absl::string_view text, absl::string_view source,
                               const JsonLimits& limits) {
  if (static_cast<int64_t>(text.size()) > limits.max_bytes) {
    return DataError(absl::StrFormat("%s: %d bytes of JSON, at most %d are allowed", source,
                                     text.size(), limits.max_bytes));
  }
  // The parser takes a zero byte for the end and would ignore what follows.
  if (text.find('\0') != absl::string_view::npos) {
    return DataError(absl::StrFormat("%s: holds a zero byte; is it a text file?", source));
  }
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  const char* position = begin;
  ValueBuilder builder(limits.max_depth);
  bool ok = false;
  std::string error;
  try {
    ok = Json::sax_parse(TrackedChars{begin, &position}, TrackedChars{end, &position}, &builder);
    error = builder.error();
  } catch (const std::exception& exception) {
    error = exception.what();
  }
  if (ok) return builder.TakeValue();
  const auto line = 1 + std::count(begin, position, '\n');
  const char* const line_start =
      std::find(std::reverse_iterator(position), std::reverse_iterator(begin), '\n').base();
  return DataError(absl::StrFormat("%s:%d:%d: %s", source, line, position - line_start, error));
}

}  // namespace tessera
