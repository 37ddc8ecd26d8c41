#include "core/trace.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <thread>

#include "core/json.h"
#include "tests/core/faulty_file_system.h"

namespace tessera {
namespace {

std::map<std::string, TraceRow> RowsByName() {
  std::map<std::string, TraceRow> rows;
  for (const TraceRow& row : TraceSummary()) rows[row.name] = row;
  return rows;
}

TEST(Trace, CollectsNothingWhileOff) {
  SetTraceMode(TraceMode::kSummary);
  SetTraceMode(TraceMode::kOff);
  { TRACE_OP("off", 1, 1); }
  EXPECT_TRUE(TraceSummary().empty());
}

TEST(Trace, SumsCallsFlopsAndBytesOverThreads) {
  SetTraceMode(TraceMode::kSummary);
  const auto work = [] {
    for (int i = 0; i < 1000; ++i) {
      TRACE_OP("sum", 3, 5);
    }
  };
  std::thread first(work), second(work);
  work();
  first.join();
  second.join();
  SetTraceMode(TraceMode::kOff);
  const TraceRow row = RowsByName()["sum"];
  EXPECT_EQ(row.calls, 3000);
  EXPECT_EQ(row.flops, 9000);
  EXPECT_EQ(row.bytes, 15000);
}

TEST(Trace, TimeInsideInnerScopesBelongsToThem) {
  SetTraceMode(TraceMode::kSummary);
  {
    TRACE_OP("outer");
    TRACE_OP("inner");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  SetTraceMode(TraceMode::kOff);
  auto rows = RowsByName();
  EXPECT_GE(rows["inner"].self_ms, 20);
  EXPECT_GE(rows["outer"].total_ms, rows["inner"].total_ms);
  EXPECT_NEAR(rows["outer"].self_ms, rows["outer"].total_ms - rows["inner"].total_ms, 1e-9);
  EXPECT_EQ(TraceSummary().front().name, "inner");
}

TEST(Trace, AScopeThatOutlivesTheTraceIsDropped) {
  SetTraceMode(TraceMode::kSummary);
  {
    TRACE_OP("long");
    SetTraceMode(TraceMode::kOff);
  }
  EXPECT_TRUE(TraceSummary().empty());
}

TEST(Trace, WritesEventsAsJsonThatChromeReads) {
  SetTraceMode(TraceMode::kEvents);
  {
    TRACE_OP("a \"quoted\" name");
    TRACE_OP("b");
  }
  SetTraceMode(TraceMode::kOff);
  FaultyFileSystem fs;
  ASSERT_TRUE(WriteChromeTrace(fs, "/trace.json").ok());
  const auto json = ParseJson(*fs.ReadFile("/trace.json"), "trace");
  ASSERT_TRUE(json.ok()) << json.status();
  const Json& events = (*json)["traceEvents"];
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0]["name"], "b");
  EXPECT_EQ(events[1]["name"], "a \"quoted\" name");
  EXPECT_EQ(events[0]["ph"], "X");
  EXPECT_GE(events[0]["ts"].get<double>(), events[1]["ts"].get<double>());
  EXPECT_LE(events[0]["dur"].get<double>(), events[1]["dur"].get<double>());
}

}  // namespace
}  // namespace tessera
