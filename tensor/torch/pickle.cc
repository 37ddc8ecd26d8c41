#include "tensor/torch/pickle.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/escaping.h"
#include "core/check.h"
#include "core/status.h"

namespace tessera {
namespace {

using Kind = PickleValue::Kind;

constexpr absl::string_view kOrderedDict = "collections.OrderedDict";
constexpr size_t kMaxValues = size_t{1} << 22;  // some 400 MB
constexpr size_t kMaxArguments = 16;  // they are copied, and one tuple can serve many calls
constexpr uint8_t kMinProtocol = 2;
constexpr uint8_t kMaxProtocol = 5;

// Names as in CPython's pickletools.
enum Opcode : uint8_t {
  kMark = '(',
  kStop = '.',
  kPop = '0',
  kPopMark = '1',
  kDup = '2',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kNone = 'N',
  kBinPersId = 'Q',
  kReduce = 'R',
  kBinString = 'T',
  kShortBinString = 'U',
  kBinUnicode = 'X',
  kAppend = 'a',
  kBuild = 'b',
  kGlobal = 'c',
  kEmptyDict = '}',
  kAppends = 'e',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kEmptyList = ']',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kSetItem = 's',
  kTuple = 't',
  kEmptyTuple = ')',
  kSetItems = 'u',
  kBinFloat = 'G',
  kProto = 0x80,
  kNewObj = 0x81,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8A,
  kShortBinUnicode = 0x8C,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95,
};

std::string Printable(absl::string_view text) {
  return absl::Utf8SafeCHexEscape(text.substr(0, 100));
}

}  // namespace

// The stack machine. Every method takes what it needs off the stack and checks that it is there.
class PickleMachine {
 public:
  PickleMachine(absl::string_view program, absl::Span<const absl::string_view> globals)
      : program_(program), rest_(program), globals_(globals) {}

  absl::StatusOr<Pickle> Run();

 private:
  absl::Status Step(uint8_t opcode);
  absl::Status Error(absl::string_view what) const {
    return DataError(absl::StrCat("byte ", at_, ": ", what));
  }

  // The next bytes of the program.
  absl::Status Take(size_t count, absl::string_view* bytes);
  template <typename T>
  absl::Status TakeNumber(T* number);
  absl::Status TakeLine(absl::string_view* line);
  template <typename Size>
  absl::Status PushText();

  absl::Status Push(PickleValue value);
  absl::Status PushInt(int64_t value) { return Push({.kind = Kind::kInt, .integer = value}); }
  absl::Status PushLong();
  absl::Status PushFloat();
  absl::Status PushGlobal(const std::string& name);
  absl::Status Pop(int32_t* value);
  // The values above the last mark, which goes, too.
  absl::Status PopMark(std::vector<int32_t>* values);
  absl::Status PushTuple(size_t size);

  absl::Status Add(Kind kind, absl::Span<const int32_t> items);
  absl::Status Call();
  absl::Status Build();
  absl::Status Put(uint32_t key);
  absl::Status Get(uint32_t key);

  absl::string_view program_, rest_;
  size_t at_ = 0;  // of the current opcode
  absl::Span<const absl::string_view> globals_;
  Pickle pickle_;
  std::vector<int32_t> stack_;
  std::vector<size_t> marks_;  // sizes of the stack
  absl::flat_hash_map<uint32_t, int32_t> memo_;
};

absl::Status PickleMachine::Take(size_t count, absl::string_view* bytes) {
  if (count > rest_.size()) return Error("the pickle ends within an opcode");
  *bytes = rest_.substr(0, count);
  rest_.remove_prefix(count);
  return absl::OkStatus();
}

template <typename T>
absl::Status PickleMachine::TakeNumber(T* number) {
  absl::string_view bytes;
  RETURN_IF_ERROR(Take(sizeof(T), &bytes));
  std::memcpy(number, bytes.data(), sizeof(T));
  return absl::OkStatus();
}

absl::Status PickleMachine::TakeLine(absl::string_view* line) {
  const size_t end = rest_.find('\n');
  if (end == absl::string_view::npos) return Error("the pickle ends within an opcode");
  RETURN_IF_ERROR(Take(end, line));
  rest_.remove_prefix(1);
  return absl::OkStatus();
}

absl::Status PickleMachine::Push(PickleValue value) {
  if (pickle_.values_.size() >= kMaxValues) return Error("more values than any checkpoint has");
  stack_.push_back(static_cast<int32_t>(pickle_.values_.size()));
  pickle_.values_.push_back(std::move(value));
  return absl::OkStatus();
}

template <typename Size>
absl::Status PickleMachine::PushText() {
  Size size = 0;
  absl::string_view text;
  RETURN_IF_ERROR(TakeNumber(&size));
  RETURN_IF_ERROR(Take(size, &text));
  return Push({.kind = Kind::kString, .text = std::string(text)});
}

// An integer in two's complement, as many bytes as the first one says.
absl::Status PickleMachine::PushLong() {
  uint8_t size = 0;
  absl::string_view bytes;
  RETURN_IF_ERROR(TakeNumber(&size));
  RETURN_IF_ERROR(Take(size, &bytes));
  if (size > 8) return Error("an integer of more than 64 bits");
  uint64_t value = size > 0 && (bytes.back() & 0x80) ? ~uint64_t{0} : 0;
  for (size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[i]);
  return PushInt(static_cast<int64_t>(value));
}

absl::Status PickleMachine::PushFloat() {
  uint64_t big_endian = 0;
  RETURN_IF_ERROR(TakeNumber(&big_endian));
  return Push(
      {.kind = Kind::kFloat, .number = std::bit_cast<double>(__builtin_bswap64(big_endian))});
}

absl::Status PickleMachine::PushGlobal(const std::string& name) {
  if (name != std::string(kOrderedDict) &&
      std::find(globals_.begin(), globals_.end(), name) == globals_.end()) {
    return Error(absl::StrCat("'", Printable(name),
                              "' is not allowed: only tensors in plain containers are read"));
  }
  return Push({.kind = Kind::kGlobal, .text = name});
}

absl::Status PickleMachine::Pop(int32_t* value) {
  const size_t bottom = marks_.empty() ? 0 : marks_.back();
  if (stack_.size() <= bottom) return Error("takes a value that is not there");
  *value = stack_.back();
  stack_.pop_back();
  return absl::OkStatus();
}

absl::Status PickleMachine::PopMark(std::vector<int32_t>* values) {
  if (marks_.empty()) return Error("takes a mark that is not there");
  values->assign(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()), stack_.end());
  stack_.resize(marks_.back());
  marks_.pop_back();
  return absl::OkStatus();
}

absl::Status PickleMachine::PushTuple(size_t size) {
  std::vector<int32_t> items(size);
  for (size_t i = size; i-- > 0;) RETURN_IF_ERROR(Pop(&items[i]));
  return Push({.kind = Kind::kTuple, .items = std::move(items)});
}

// Adds items to the list or dict on top of the stack.
absl::Status PickleMachine::Add(Kind kind, absl::Span<const int32_t> items) {
  int32_t container = 0;
  RETURN_IF_ERROR(Pop(&container));
  PickleValue& value = pickle_.values_[container];
  if (value.kind != kind) return Error("adds to a value that is no such container");
  if (kind == Kind::kDict && items.size() % 2 != 0) return Error("sets a key without a value");
  value.items.insert(value.items.end(), items.begin(), items.end());
  stack_.push_back(container);
  return absl::OkStatus();
}

// A function or class and a tuple of arguments become a call; that of OrderedDict a dict.
absl::Status PickleMachine::Call() {
  int32_t arguments = 0, function = 0;
  RETURN_IF_ERROR(Pop(&arguments));
  RETURN_IF_ERROR(Pop(&function));
  if (pickle_.values_[function].kind != Kind::kGlobal ||
      pickle_.values_[arguments].kind != Kind::kTuple) {
    return Error("calls what is no function, or without a tuple of arguments");
  }
  std::vector<int32_t> items = {function};
  const std::vector<int32_t>& more = pickle_.values_[arguments].items;
  if (more.size() > kMaxArguments) return Error("calls a function with too many arguments");
  if (pickle_.values_[function].text == std::string(kOrderedDict)) {
    if (!more.empty()) return Error("OrderedDict with arguments");
    return Push({.kind = Kind::kDict});
  }
  items.insert(items.end(), more.begin(), more.end());
  return Push({.kind = Kind::kCall, .items = std::move(items)});
}

// Attributes of an object, which are left out: those of a state_dict say versions of modules.
absl::Status PickleMachine::Build() {
  int32_t state = 0, object = 0;
  RETURN_IF_ERROR(Pop(&state));
  RETURN_IF_ERROR(Pop(&object));
  const Kind kind = pickle_.values_[object].kind;
  if (kind != Kind::kDict && kind != Kind::kCall) return Error("sets attributes of no object");
  stack_.push_back(object);
  return absl::OkStatus();
}

absl::Status PickleMachine::Put(uint32_t key) {
  if (stack_.empty()) return Error("takes a value that is not there");
  memo_[key] = stack_.back();
  return absl::OkStatus();
}

absl::Status PickleMachine::Get(uint32_t key) {
  const auto found = memo_.find(key);
  if (found == memo_.end()) return Error(absl::StrCat("there is no memo ", key));
  stack_.push_back(found->second);
  return absl::OkStatus();
}

absl::Status PickleMachine::Step(uint8_t opcode) {
  int32_t value = 0, key = 0;
  std::vector<int32_t> items;
  const auto number = [this]<typename T>(T, auto then) -> absl::Status {
    T n = 0;
    RETURN_IF_ERROR(TakeNumber(&n));
    return then(n);
  };
  const auto push_int = [this](auto n) { return PushInt(n); };
  const auto put = [this](auto n) { return Put(n); };
  const auto get = [this](auto n) { return Get(n); };
  switch (opcode) {
    case kProto:
      return number(uint8_t(), [this](uint8_t protocol) {
        if (protocol >= kMinProtocol && protocol <= kMaxProtocol) return absl::OkStatus();
        return Error(absl::StrCat("pickle protocol ", protocol, ", expected 2 to 5"));
      });
    case kFrame:
      return number(uint64_t(), [](uint64_t) { return absl::OkStatus(); });
    case kMark:
      marks_.push_back(stack_.size());
      return absl::OkStatus();
    case kPop:
      return Pop(&value);
    case kPopMark:
      return PopMark(&items);
    case kDup:
      RETURN_IF_ERROR(Pop(&value));
      stack_.insert(stack_.end(), 2, value);
      return absl::OkStatus();
    case kNone:
      return Push({});
    case kNewTrue:
    case kNewFalse:
      return Push({.kind = Kind::kBool, .integer = opcode == kNewTrue});
    case kBinInt:
      return number(int32_t(), push_int);
    case kBinInt1:
      return number(uint8_t(), push_int);
    case kBinInt2:
      return number(uint16_t(), push_int);
    case kLong1:
      return PushLong();
    case kBinFloat:
      return PushFloat();
    case kBinString:
    case kBinUnicode:
      return PushText<uint32_t>();
    case kShortBinString:
    case kShortBinUnicode:
      return PushText<uint8_t>();
    case kEmptyTuple:
      return PushTuple(0);
    case kTuple1:
    case kTuple2:
    case kTuple3:
      return PushTuple(opcode - kTuple1 + 1);
    case kTuple:
      RETURN_IF_ERROR(PopMark(&items));
      return Push({.kind = Kind::kTuple, .items = std::move(items)});
    case kEmptyList:
      return Push({.kind = Kind::kList});
    case kAppend:
      RETURN_IF_ERROR(Pop(&value));
      return Add(Kind::kList, {value});
    case kAppends:
      RETURN_IF_ERROR(PopMark(&items));
      return Add(Kind::kList, items);
    case kEmptyDict:
      return Push({.kind = Kind::kDict});
    case kSetItem:
      RETURN_IF_ERROR(Pop(&value));
      RETURN_IF_ERROR(Pop(&key));
      return Add(Kind::kDict, {key, value});
    case kSetItems:
      RETURN_IF_ERROR(PopMark(&items));
      return Add(Kind::kDict, items);
    case kGlobal: {
      absl::string_view module, name;
      RETURN_IF_ERROR(TakeLine(&module));
      RETURN_IF_ERROR(TakeLine(&name));
      return PushGlobal(absl::StrCat(module, ".", name));
    }
    case kStackGlobal:
      RETURN_IF_ERROR(Pop(&value));
      RETURN_IF_ERROR(Pop(&key));
      return PushGlobal(absl::StrCat(pickle_[key].text, ".", pickle_[value].text));
    case kReduce:
    case kNewObj:
      return Call();
    case kBuild:
      return Build();
    case kBinPersId:
      RETURN_IF_ERROR(Pop(&value));
      return Push({.kind = Kind::kPersistent, .items = {value}});
    case kBinPut:
      return number(uint8_t(), put);
    case kLongBinPut:
      return number(uint32_t(), put);
    case kMemoize:
      return Put(static_cast<uint32_t>(memo_.size()));
    case kBinGet:
      return number(uint8_t(), get);
    case kLongBinGet:
      return number(uint32_t(), get);
    default:
      return Error(absl::StrFormat(
          "opcode 0x%02X%s is not allowed: only plain data is read", opcode,
          opcode > ' ' && opcode < 127 ? absl::StrCat(" '", std::string(1, opcode), "'") : ""));
  }
}

absl::StatusOr<Pickle> PickleMachine::Run() {
  while (true) {
    at_ = program_.size() - rest_.size();
    uint8_t opcode = 0;
    RETURN_IF_ERROR(TakeNumber(&opcode));
    if (opcode == kStop) break;
    RETURN_IF_ERROR(Step(opcode));
  }
  RETURN_IF_ERROR(Pop(&pickle_.root_));
  if (!stack_.empty() || !marks_.empty()) return Error("values are left over at the end");
  return std::move(pickle_);
}

absl::StatusOr<Pickle> Pickle::Parse(absl::string_view program,
                                     absl::Span<const absl::string_view> globals) {
  return PickleMachine(program, globals).Run();
}

}  // namespace tessera
