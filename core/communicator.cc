#include "core/communicator.h"

#include <mpi.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>

#include "core/check.h"

namespace tessera {
namespace {

// MPI counts in ints.
constexpr size_t kMaxElements = size_t{1} << 30;

// Set by Open MPI's mpirun, and by srun where it speaks PMIx.
bool IsStartedWithOthers() {
  return std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr || std::getenv("PMIX_RANK") != nullptr;
}

template <typename T>
void Sum(absl::Span<T> values, MPI_Datatype type) {
  for (size_t i = 0; i < values.size(); i += kMaxElements) {
    const int count = static_cast<int>(std::min(kMaxElements, values.size() - i));
    MPI_Allreduce(MPI_IN_PLACE, values.data() + i, count, type, MPI_SUM, MPI_COMM_WORLD);
  }
}

}  // namespace

Communicator Communicator::Join() {
  Communicator world;
  if (!IsStartedWithOthers()) return world;
  // The default error handler ends all ranks, with a message.
  int provided = 0, rank = 0, size = 1, size_here = 1;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
  CHECK_GE(provided, MPI_THREAD_FUNNELED) << "this MPI does not allow threads";
  std::atexit([] { MPI_Finalize(); });
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Comm here;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &here);
  MPI_Comm_size(here, &size_here);
  MPI_Comm_free(&here);
  world.rank_ = rank;
  world.size_ = size;
  world.size_here_ = size_here;
  return world;
}

const Communicator& Communicator::World() {
  static const Communicator world = Join();
  return world;
}

const Communicator& Communicator::Alone() {
  static const Communicator alone;
  return alone;
}

void Communicator::AllReduceSum(absl::Span<float> values) const {
  if (size_ > 1) Sum(values, MPI_FLOAT);
}

void Communicator::AllReduceSum(absl::Span<double> values) const {
  if (size_ > 1) Sum(values, MPI_DOUBLE);
}

double Communicator::Mean(double value) const {
  AllReduceSum(absl::MakeSpan(&value, 1));
  return value / static_cast<double>(size_);
}

bool Communicator::Any(bool value) const {
  double count = value ? 1 : 0;
  AllReduceSum(absl::MakeSpan(&count, 1));
  return count > 0;
}

std::vector<std::string> Communicator::AllGather(absl::string_view bytes) const {
  if (size_ == 1) return {std::string(bytes)};
  const int own = static_cast<int>(bytes.size());
  std::vector<int> sizes(size_), begins(size_);
  MPI_Allgather(&own, 1, MPI_INT, sizes.data(), 1, MPI_INT, MPI_COMM_WORLD);
  std::exclusive_scan(sizes.begin(), sizes.end(), begins.begin(), 0);
  std::string all(begins.back() + sizes.back(), '\0');
  MPI_Allgatherv(bytes.data(), own, MPI_BYTE, all.data(), sizes.data(), begins.data(), MPI_BYTE,
                 MPI_COMM_WORLD);
  std::vector<std::string> parts;
  for (int64_t r = 0; r < size_; ++r) parts.push_back(all.substr(begins[r], sizes[r]));
  return parts;
}

void Communicator::Barrier() const {
  if (size_ > 1) MPI_Barrier(MPI_COMM_WORLD);
}

void Communicator::AbortOthers(int exit_code) const {
  if (size_ > 1) MPI_Abort(MPI_COMM_WORLD, exit_code);
}

}  // namespace tessera
