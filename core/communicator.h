// The processes of one run, its ranks, and what they exchange.
#ifndef TESSERA_CORE_COMMUNICATOR_H_
#define TESSERA_CORE_COMMUNICATOR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace tessera {

// All ranks call the same functions in the same order, each with as many elements, from one thread.
// A rank that is alone gets back what it gave. A rank that is lost ends the others: MPI sees to
// that.
class Communicator {
 public:
  // The processes that mpirun started together, or this one alone, which then does not touch MPI.
  // The first call waits for all of them.
  static const Communicator& World();

  // This process without others, whatever started it.
  static const Communicator& Alone();

  int64_t rank() const { return rank_; }
  int64_t size() const { return size_; }
  bool is_first() const { return rank_ == 0; }
  // Ranks on this machine, which share its memory.
  int64_t size_here() const { return size_here_; }

  // Every element becomes its sum over the ranks: the same bits on all of them.
  void AllReduceSum(absl::Span<float> values) const;
  void AllReduceSum(absl::Span<double> values) const;
  double Mean(double value) const;
  // True if it is so on any rank.
  bool Any(bool value) const;
  // What each rank gave, in their order. At most 2 GB in all.
  std::vector<std::string> AllGather(absl::string_view bytes) const;
  // Returns when all ranks have called it.
  void Barrier() const;
  // Ends all ranks, if there are others, and the program with them.
  void AbortOthers(int exit_code) const;

 private:
  Communicator() = default;
  static Communicator Join();

  int64_t rank_ = 0;
  int64_t size_ = 1;
  int64_t size_here_ = 1;
};

}  // namespace tessera

#endif  // TESSERA_CORE_COMMUNICATOR_H_
