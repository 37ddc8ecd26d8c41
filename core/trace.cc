#include "core/trace.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "core/json.h"

namespace tessera {
namespace {

struct Totals {
  int64_t calls = 0;
  int64_t total_ns = 0;
  int64_t self_ns = 0;
  double flops = 0;
  double bytes = 0;
};

struct Event {
  const char* name;
  int64_t start_ns;
  int64_t duration_ns;
};

// What one thread has collected. Its mutex is contended only while a summary is made.
struct ThreadLog {
  std::mutex mutex;
  std::unordered_map<const char*, Totals> totals;
  std::vector<Event> events;
};

struct Logs {
  std::mutex mutex;
  std::vector<std::shared_ptr<ThreadLog>> threads;  // those that ended included
};

Logs& AllLogs() {
  static auto* const logs = new Logs();
  return *logs;
}

std::vector<std::shared_ptr<ThreadLog>> ThreadLogs() {
  const std::lock_guard lock(AllLogs().mutex);
  return AllLogs().threads;
}

ThreadLog& LogOfThisThread() {
  thread_local const std::shared_ptr<ThreadLog> log = [] {
    auto created = std::make_shared<ThreadLog>();
    const std::lock_guard lock(AllLogs().mutex);
    AllLogs().threads.push_back(created);
    return created;
  }();
  return *log;
}

int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

thread_local TraceScope* innermost = nullptr;

}  // namespace

void TraceScope::Begin(const char* name, double flops, double bytes) {
  name_ = name;
  flops_ = flops;
  bytes_ = bytes;
  parent_ = innermost;
  innermost = this;
  start_ns_ = NowNs();
}

void TraceScope::End() {
  const int64_t duration_ns = NowNs() - start_ns_;
  innermost = parent_;
  if (parent_ != nullptr) parent_->inner_ns_ += duration_ns;
  const TraceMode mode = internal::trace_mode.load(std::memory_order_relaxed);
  if (mode == TraceMode::kOff) return;
  ThreadLog& log = LogOfThisThread();
  const std::lock_guard lock(log.mutex);
  Totals& totals = log.totals[name_];
  ++totals.calls;
  totals.total_ns += duration_ns;
  totals.self_ns += duration_ns - inner_ns_;
  totals.flops += flops_;
  totals.bytes += bytes_;
  if (mode == TraceMode::kEvents && static_cast<int64_t>(log.events.size()) < kMaxTraceEvents) {
    log.events.push_back({name_, start_ns_, duration_ns});
  }
}

void SetTraceMode(TraceMode mode) {
  if (mode != TraceMode::kOff) {
    {
      const std::lock_guard lock(AllLogs().mutex);
      std::erase_if(AllLogs().threads, [](const auto& log) { return log.use_count() == 1; });
    }
    for (const auto& log : ThreadLogs()) {
      const std::lock_guard lock(log->mutex);
      log->totals.clear();
      log->events.clear();
    }
  }
  internal::trace_mode.store(mode, std::memory_order_relaxed);
}

std::vector<TraceRow> TraceSummary() {
  std::map<std::string, TraceRow> by_name;
  for (const auto& log : ThreadLogs()) {
    const std::lock_guard lock(log->mutex);
    for (const auto& [name, totals] : log->totals) {
      TraceRow& row = by_name[name];
      row.name = name;
      row.calls += totals.calls;
      row.total_ms += 1e-6 * static_cast<double>(totals.total_ns);
      row.self_ms += 1e-6 * static_cast<double>(totals.self_ns);
      row.flops += totals.flops;
      row.bytes += totals.bytes;
    }
  }
  std::vector<TraceRow> rows;
  for (auto& [name, row] : by_name) rows.push_back(std::move(row));
  std::stable_sort(rows.begin(), rows.end(),
                   [](const TraceRow& a, const TraceRow& b) { return a.self_ms > b.self_ms; });
  return rows;
}

absl::Status WriteChromeTrace(FileSystem& fs, const std::string& path) {
  constexpr size_t kFlushBytes = size_t{1} << 20;
  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(fs, path));
  std::string text = "{\"traceEvents\":[";
  absl::string_view separator = "\n";
  const auto logs = ThreadLogs();
  for (size_t thread = 0; thread < logs.size(); ++thread) {
    const std::lock_guard lock(logs[thread]->mutex);
    for (const Event& event : logs[thread]->events) {
      absl::StrAppendFormat(
          &text, "%s{\"name\":%s,\"ph\":\"X\",\"pid\":0,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f}",
          separator, Json(event.name).dump(), thread, 1e-3 * static_cast<double>(event.start_ns),
          1e-3 * static_cast<double>(event.duration_ns));
      separator = ",\n";
      if (text.size() < kFlushBytes) continue;
      RETURN_IF_ERROR(file.Append(text));
      text.clear();
    }
  }
  text += "\n]}\n";
  RETURN_IF_ERROR(file.Append(text));
  return file.Commit();
}

}  // namespace tessera
