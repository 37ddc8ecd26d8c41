#include "tensor/torch/pickle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/check.h"
#include "tests/tensor/torch_testing.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;
using Kind = PickleValue::Kind;

Pickle Parsed(const std::string& value) {
  auto pickle = Pickle::Parse(PickleProgram(value), {"m.f"});
  CHECK(pickle.ok()) << pickle.status();
  return *std::move(pickle);
}

PickleValue Root(const std::string& value) {
  const Pickle pickle = Parsed(value);
  return pickle[pickle.root()];
}

std::string ErrorOf(const std::string& program) {
  const auto pickle = Pickle::Parse(program, {"m.f"});
  EXPECT_EQ(pickle.status().code(), absl::StatusCode::kDataLoss) << pickle.status();
  return std::string(pickle.status().message());
}

TEST(Pickle, HoldsNumbersAndText) {
  EXPECT_EQ(Root("N").kind, Kind::kNone);
  EXPECT_EQ(Root("\x88").integer, 1);
  EXPECT_EQ(Root("\x89").integer, 0);
  EXPECT_EQ(Root("K\xff").integer, 255);
  EXPECT_EQ(Root("M\x01\x80").integer, 0x8001);
  EXPECT_EQ(Root("J\xfe\xff\xff\xff").integer, -2);
  EXPECT_EQ(Root(std::string("\x8a\x00", 2)).integer, 0);
  EXPECT_EQ(Root("\x8a\x01\xff").integer, -1);
  EXPECT_EQ(Root(PickleInt(INT64_MIN)).integer, INT64_MIN);
  EXPECT_EQ(Root(std::string("G\xbf\xe0\0\0\0\0\0\0", 9)).number, -0.5);
  EXPECT_EQ(Root(PickleText("word")).text, "word");
  EXPECT_EQ(Root("U\x02it").text, "it");
  EXPECT_EQ(Root("\x8c\x02it").text, "it");
}

TEST(Pickle, HoldsContainers) {
  const Pickle tuple = Parsed("K\x01K\x02\x86");
  ASSERT_EQ(tuple[tuple.root()].kind, Kind::kTuple);
  EXPECT_EQ(tuple[tuple[tuple.root()].items[0]].integer, 1);
  EXPECT_EQ(tuple[tuple[tuple.root()].items[1]].integer, 2);
  EXPECT_EQ(Root(")").items.size(), 0u);
  EXPECT_EQ(Root("](K\x01K\x02"
                 "eK\x03"
                 "a")
                .items.size(),
            3u);
  EXPECT_EQ(Root("}(K\x01K\x02uK\x03K\x04s").items.size(), 4u);
  const PickleValue ordered = Root("ccollections\nOrderedDict\n)RK\x01K\x02s");
  EXPECT_EQ(ordered.kind, Kind::kDict);
  EXPECT_EQ(ordered.items.size(), 2u);
  // Attributes are left out.
  EXPECT_EQ(Root("ccollections\nOrderedDict\n)R}b").items.size(), 0u);
}

TEST(Pickle, SharesValuesThroughTheMemo) {
  const Pickle shared = Parsed(std::string("]q\0h\0\x86", 6));
  EXPECT_EQ(shared[shared.root()].items[0], shared[shared.root()].items[1]);
  const Pickle memoized = Parsed(std::string("]\x94h\0\x86", 5));
  EXPECT_EQ(memoized[memoized.root()].items[0], memoized[memoized.root()].items[1]);
}

TEST(Pickle, KeepsCallsAsValues) {
  const Pickle call = Parsed("cm\nf\nK\x07\x85R}b");
  const PickleValue& root = call[call.root()];
  ASSERT_EQ(root.kind, Kind::kCall);
  EXPECT_EQ(call[root.items[0]].text, "m.f");
  EXPECT_EQ(call[root.items[1]].integer, 7);
  EXPECT_EQ(Root("\x8c\x01m\x8c\x01"
                 "f\x93)\x81")
                .kind,
            Kind::kCall);
  EXPECT_EQ(Root("NQ").kind, Kind::kPersistent);
}

TEST(Pickle, RefusesWhatCouldRunCode) {
  EXPECT_EQ(ErrorOf("\x80\x02"
                    "cposix\nsystem\n."),
            "byte 2: 'posix.system' is not allowed: only tensors in plain containers are read");
  EXPECT_THAT(ErrorOf("\x80\x02"
                      "cbuiltins\neval\n."),
              HasSubstr("'builtins.eval'"));
  EXPECT_THAT(ErrorOf("\x80\x02\x8c\x02os\x8c\x06system\x93."), HasSubstr("'os.system'"));
  // INST, OBJ, EXT1, NEWOBJ_EX, and the line-based opcodes of protocol 0.
  EXPECT_EQ(ErrorOf("(ios\nsystem\n."),
            "byte 1: opcode 0x69 'i' is not allowed: only plain data "
            "is read");
  EXPECT_THAT(ErrorOf("(o."), HasSubstr("opcode 0x6F 'o'"));
  EXPECT_THAT(ErrorOf("\x82\x01."), HasSubstr("opcode 0x82 is not allowed"));
  EXPECT_THAT(ErrorOf("\x92."), HasSubstr("opcode 0x92"));
  EXPECT_THAT(ErrorOf("I1\n."), HasSubstr("opcode 0x49 'I'"));
  EXPECT_THAT(ErrorOf("P0\n."), HasSubstr("opcode 0x50 'P'"));
  EXPECT_THAT(ErrorOf("]K\x01\x85R."), HasSubstr("calls what is no function"));
  EXPECT_THAT(ErrorOf("cm\nf\nNR."), HasSubstr("without a tuple"));
  EXPECT_THAT(ErrorOf("cm\nf\n(KKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKtR."), HasSubstr("too many"));
  EXPECT_THAT(ErrorOf("ccollections\nOrderedDict\nN\x85R."), HasSubstr("with arguments"));
}

TEST(Pickle, RefusesBrokenPrograms) {
  EXPECT_EQ(ErrorOf(""), "byte 0: the pickle ends within an opcode");
  EXPECT_EQ(ErrorOf("."), "byte 0: takes a value that is not there");
  EXPECT_EQ(ErrorOf("N"), "byte 1: the pickle ends within an opcode");
  EXPECT_THAT(ErrorOf("\x80\x01N."), HasSubstr("pickle protocol 1, expected 2 to 5"));
  EXPECT_THAT(ErrorOf("X\xff\xff\xff\xffword."), HasSubstr("ends within"));
  EXPECT_THAT(ErrorOf("cm\nf"), HasSubstr("ends within"));
  EXPECT_THAT(ErrorOf("\x8a\x09"
                      "123456789."),
              HasSubstr("more than 64 bits"));
  EXPECT_THAT(ErrorOf("t."), HasSubstr("a mark that is not there"));
  EXPECT_THAT(ErrorOf("K\x01(\x85."), HasSubstr("a value that is not there"));
  EXPECT_THAT(ErrorOf("NNa."), HasSubstr("no such container"));
  EXPECT_THAT(ErrorOf("}(Nu."), HasSubstr("without a value"));
  EXPECT_THAT(ErrorOf("NNb."), HasSubstr("attributes of no object"));
  EXPECT_THAT(ErrorOf("h\x05."), HasSubstr("no memo 5"));
  EXPECT_THAT(ErrorOf("q\x05."), HasSubstr("not there"));
  EXPECT_THAT(ErrorOf("NN."), HasSubstr("left over"));
  EXPECT_THAT(ErrorOf("N(."), HasSubstr("not there"));
}

}  // namespace
}  // namespace tessera
