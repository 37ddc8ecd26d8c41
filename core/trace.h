// Where the time of a step goes: scopes around operations, summed by name and, if wanted, kept one
// by one for a picture in chrome://tracing or ui.perfetto.dev.
//
//   Tensor LayerNorm(...) {
//     TRACE_OP("layer_norm", 8 * x.numel(), 2 * x.bytes());
//     ...
//   }
// While tracing is off a scope costs one relaxed load. Thread-safe; scopes nest per thread.
#ifndef TESSERA_CORE_TRACE_H_
#define TESSERA_CORE_TRACE_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/file_system.h"
#include "core/status.h"

// TRACE_OP(name), TRACE_OP(name, flops, bytes): traces from here to the end of the block. `name` is
// a string literal.
#define TRACE_OP(...) \
  const ::tessera::TraceScope TESSERA_CONCAT_(trace_scope_, __LINE__)(__VA_ARGS__)

namespace tessera {

enum class TraceMode { kOff, kSummary, kEvents };

namespace internal {
inline std::atomic<TraceMode> trace_mode{TraceMode::kOff};
}  // namespace internal

inline bool TracingOn() {
  return internal::trace_mode.load(std::memory_order_relaxed) != TraceMode::kOff;
}

class TraceScope {
 public:
  explicit TraceScope(const char* name, double flops = 0, double bytes = 0) {
    if (TracingOn()) [[unlikely]] {
      Begin(name, flops, bytes);
    }
  }
  ~TraceScope() {
    if (name_ != nullptr) [[unlikely]] {
      End();
    }
  }
  TraceScope(const TraceScope&) = delete;
  TraceScope& operator=(const TraceScope&) = delete;

 private:
  void Begin(const char* name, double flops, double bytes);
  void End();

  const char* name_ = nullptr;  // null when tracing was off at the beginning
  TraceScope* parent_ = nullptr;
  int64_t start_ns_ = 0;
  int64_t inner_ns_ = 0;  // spent in scopes inside this one
  double flops_ = 0;
  double bytes_ = 0;
};

// Forgets what was collected and collects from now on. kOff: stops collecting and keeps what there
// is.
void SetTraceMode(TraceMode mode);

struct TraceRow {
  std::string name;
  int64_t calls = 0;
  double total_ms = 0;  // summed over threads, inner scopes included
  double self_ms = 0;   // without inner scopes
  double flops = 0;
  double bytes = 0;
};

// One row per name, the largest self_ms first.
std::vector<TraceRow> TraceSummary();

// The events collected in mode kEvents, in Chrome's trace event format (JSON). At most
// kMaxTraceEvents per thread are kept, the first ones.
inline constexpr int64_t kMaxTraceEvents = int64_t{1} << 20;
absl::Status WriteChromeTrace(FileSystem& fs, const std::string& path);

}  // namespace tessera

#endif  // TESSERA_CORE_TRACE_H_
