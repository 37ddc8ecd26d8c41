#include "autograd/tape.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/trace.h"

namespace tessera {
namespace {

Tensor Scalar(float value) { return Tensor::From<float>({}, std::vector<float>{value}); }

// y = a * b for scalars.
Tensor Multiply(const Tensor& a, const Tensor& b) {
  Tensor y = Scalar(*a.data<float>() * *b.data<float>());
  Record("multiply", {&a, &b}, {&y}, [a = a.Detach(), b = b.Detach()](GradContext& g) {
    const float dy = *g.out().data<float>();
    if (g.wants(0)) g.Add(0, Scalar(dy * *b.data<float>()));
    if (g.wants(1)) g.Add(1, Scalar(dy * *a.data<float>()));
  });
  return y;
}

// y = a + b; both inputs receive the same gradient tensor.
Tensor Plus(const Tensor& a, const Tensor& b) {
  Tensor y = Scalar(*a.data<float>() + *b.data<float>());
  Record("plus", {&a, &b}, {&y}, [](GradContext& g) {
    g.Add(0, g.out());
    g.Add(1, g.out());
  });
  return y;
}

TEST(Tape, DifferentiatesAGraphWithSharedInputs) {
  Tensor x = Scalar(3.0f), y = Scalar(5.0f), dx = Scalar(-1.0f), dy = Scalar(-1.0f);
  Tape tape;
  tape.Watch(x, dx, false);
  tape.Watch(y, dy, false);
  const Tensor xy = Multiply(x, y);
  const Tensor z = Plus(Plus(xy, x), Multiply(xy, xy));  // xy + x + (xy)^2
  tape.Backward(z);
  EXPECT_EQ(*dx.data<float>(), 5 + 1 + 2 * 15 * 5);
  EXPECT_EQ(*dy.data<float>(), 3 + 2 * 15 * 3);
  EXPECT_EQ(tape.num_nodes(), 0);
}

TEST(Tape, TracesBackwardNodesByName) {
  Tensor x = Scalar(2.0f), dx = Scalar(0.0f);
  Tape tape;
  tape.Watch(x, dx, false);
  const Tensor loss = Plus(Multiply(x, x), Multiply(x, x));
  SetTraceMode(TraceMode::kEvents);
  tape.Backward(loss);
  SetTraceMode(TraceMode::kOff);
  int64_t calls = 0;
  for (const TraceRow& row : TraceSummary()) {
    if (row.name == "multiply") calls = row.calls;
  }
  EXPECT_EQ(calls, 2);
}

TEST(Tape, AccumulatesIntoALeafWhenAsked) {
  Tensor x = Scalar(2.0f), dx = Scalar(10.0f);
  Tape tape;
  tape.Watch(x, dx, true);
  tape.Backward(Multiply(x, x));
  EXPECT_EQ(*dx.data<float>(), 14.0f);
}

TEST(Tape, GivesZeroToALeafThatIsNotReached) {
  Tensor x = Scalar(2.0f), unused = Scalar(1.0f), dx = Scalar(7.0f), du = Scalar(7.0f);
  Tape tape;
  tape.Watch(x, dx, false);
  tape.Watch(unused, du, false);
  tape.Backward(Multiply(x, Scalar(4.0f)));
  EXPECT_EQ(*dx.data<float>(), 4.0f);
  EXPECT_EQ(*du.data<float>(), 0.0f);
}

TEST(Tape, RecordsNothingWhilePausedOrForUnwatchedInputs) {
  Tensor x = Scalar(2.0f), dx = Scalar(0.0f);
  Tape tape;
  Multiply(x, x);
  tape.Watch(x, dx, false);
  {
    PauseTape pause;
    Multiply(x, x);
  }
  EXPECT_EQ(tape.num_nodes(), 0);
}

TEST(Tape, IgnoresSlotsOfAnEarlierTape) {
  Tensor stale = Scalar(2.0f), d = Scalar(0.0f);
  {
    Tape tape;
    tape.Watch(stale, d, false);
    tape.Backward(Multiply(stale, stale));
  }
  Tensor x = Scalar(3.0f), dx = Scalar(0.0f);
  Tape tape;
  tape.Watch(x, dx, false);
  *d.data<float>() = 99.0f;
  tape.Backward(Multiply(stale, x));
  EXPECT_EQ(*dx.data<float>(), 2.0f);
  EXPECT_EQ(*d.data<float>(), 99.0f);
}

TEST(ObserveOps, ShowsOutputsAndGradientsInTheOrderInWhichTheyAreMade) {
  for (const bool checkpoint : {false, true}) {
    Tensor x = Scalar(3.0f), dx = Scalar(0.0f);
    Tape tape;
    tape.Watch(x, dx, false);
    std::vector<std::string> seen;
    {
      const ObserveOps observe([&](const OpResult& result) {
        const bool of_x =
            std::find(result.inputs.begin(), result.inputs.end(), x.slot()) != result.inputs.end();
        seen.push_back(absl::StrCat(result.op, result.backward ? "'" : "", of_x ? " of x" : "", " ",
                                    *result.value.data<float>()));
      });
      const auto square = [](const Tensor& t) { return Multiply(t, t); };
      const Tensor y = checkpoint ? Checkpoint(x, square) : square(x);
      tape.Backward(Plus(y, y));
    }
    std::vector<std::string> expected = {"multiply of x 9", "plus 18", "plus' 2", "plus' 2"};
    if (checkpoint) expected.push_back("multiply of x 9");
    // Both inputs are x, whose gradient is shown once for each.
    expected.insert(expected.end(), {"multiply' of x 12", "multiply' of x 12"});
    if (checkpoint)
      seen.erase(std::remove(seen.begin(), seen.end(), "checkpoint' of x 12"), seen.end());
    EXPECT_EQ(seen, expected) << checkpoint;
    Multiply(x, x);  // shown to nobody
  }
}

TEST(Checkpoint, GivesTheSameGradientsAsRecording) {
  Tensor x = Scalar(3.0f), w = Scalar(0.5f);
  const auto block = [&w](const Tensor& t) { return Plus(Multiply(t, w), Multiply(t, t)); };
  std::vector<float> grads;
  for (const bool checkpoint : {false, true}) {
    Tensor dx = Scalar(0.0f), dw = Scalar(0.0f);
    Tape tape;
    tape.Watch(x, dx, false);
    tape.Watch(w, dw, false);
    Tensor y = checkpoint ? Checkpoint(x, block) : block(x);
    y = checkpoint ? Checkpoint(y, block) : block(y);
    EXPECT_EQ(tape.num_nodes(), checkpoint ? 2 : 6);
    tape.Backward(Multiply(y, y));
    grads.push_back(*dx.data<float>());
    grads.push_back(*dw.data<float>());
  }
  EXPECT_EQ(grads[0], grads[2]);
  EXPECT_EQ(grads[1], grads[3]);
}

}  // namespace
}  // namespace tessera
