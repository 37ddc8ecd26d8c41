// The emulator itself: that its operations do what the device's do, and that each kind of broken
// kernel is reported.
#include <gtest/gtest.h>

#include <functional>
#include <numeric>
#include <vector>

#include "core/allocator.h"
#include "core/cuda/device.h"
#include "core/cuda/launch.h"
#include "core/device_runtime.h"

namespace tessera {
namespace {

using emulator::Order;
using emulator::SetOrder;

constexpr Order kOrders[] = {Order::kAscending, Order::kDescending, Order::kRandom};

template <typename T>
std::vector<T> Counting(int n) {
  std::vector<T> v(n);
  std::iota(v.begin(), v.end(), T(0));
  return v;
}

// ---- Kernels that are right.

KERNEL(256) WriteIndices(int* out) {
  const int64_t block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const int64_t thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const int64_t i = block * blockDim.x * blockDim.y * blockDim.z + thread;
  out[i] = static_cast<int>(i);
}

// The sum of each block's 128 numbers by a tree in shared memory; kBroken leaves out one barrier.
template <bool kBroken>
KERNEL(128)
TreeSum(const int* in, int* out) {
  SHARED_ARRAY(int, sums, 128);
  const int t = static_cast<int>(threadIdx.x);
  sums[t] = in[blockIdx.x * 128 + t];
  BLOCK_SYNC();
  for (int half = 64; half > 0; half /= 2) {
    if (t < half) sums[t] += sums[t + half];
    if (!kBroken || half != 16) BLOCK_SYNC();
  }
  if (t == 0) out[blockIdx.x] = sums[0];
}

KERNEL(64) ReverseDynamic(const int* in, int* out) {
  SHARED_DYNAMIC(int, values);
  values[threadIdx.x] = in[threadIdx.x];
  BLOCK_SYNC();
  out[threadIdx.x] = values[63 - threadIdx.x];
}

KERNEL(32) Shuffles(int* out) {
  const int lane = Lane();
  out[lane] = Shuffle(100 + lane, (lane * 7) % 32);
  out[32 + lane] = ShuffleXor(lane, 5);
  out[64 + lane] = ShuffleDown(lane, 3);
  out[96 + lane] = ShuffleUp(lane, 3);
  out[128 + lane] = static_cast<int>(Ballot(lane % 3 == 0));
  out[160 + lane] = WarpSum(lane);
}

KERNEL(64) BlockSums(float* out) {
  const float first = BlockSum<64>(static_cast<float>(threadIdx.x));
  const float second = BlockSum<64>(1.0f);
  out[threadIdx.x] = first + 1000 * second + BlockMax<64>(-static_cast<float>(threadIdx.x));
}

// out[m][n] = sum over k of a[m][k] b[k][n], with b given as [k][n] or, transposed, as [n][k].
template <bool kTransposed>
KERNEL(32)
Product(const BF16* a, const BF16* b, float* out) {
  SHARED_ARRAY(uint16_t, a_tile, 16 * 16);
  SHARED_ARRAY(uint16_t, b_tile, 16 * 8);
  const int lane = Lane();
  CopyAsync16(a_tile + lane * 8, a + lane * 8, true);
  CopyAsyncCommit();
  if (lane < 16) CopyAsync16(b_tile + lane * 8, b + lane * 8, true);
  CopyAsyncCommit();
  CopyAsyncWait<0>();
  BLOCK_SYNC();
  uint32_t a_fragment[4], b_fragment[2];
  LoadMatrix(a_fragment, a_tile + lane % 16 * 16 + lane / 16 * 8);
  if (kTransposed) {
    LoadMatrix(b_fragment, b_tile + lane % 8 * 16 + lane / 8 % 2 * 8);
  } else {
    LoadMatrixTransposed(b_fragment, b_tile + lane % 16 * 8);
  }
  float d[4] = {1, 1, 1, 1};
  Mma16816(d, a_fragment, b_fragment);
  for (int i = 0; i < 4; ++i) out[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
}

KERNEL(32) ConditionalCopies(const float* in, float* out) {
  SHARED_ARRAY(float, values, 32 * 4);
  CopyAsync16(values + Lane() * 4, in + Lane() * 4, Lane() % 2 == 0);
  CopyAsyncCommit();
  CopyAsyncWait<0>();
  WARP_SYNC();
  for (int i = 0; i < 4; ++i) out[Lane() + 32 * i] = values[Lane() + 32 * i];
}

template <typename Fn>
void InEveryOrder(const Fn& fn) {
  for (const Order order : kOrders) {
    SetOrder(order);
    fn();
  }
  SetOrder(Order::kAscending);
}

TEST(Emulator, GivesEveryThreadItsPlace) {
  InEveryOrder([] {
    std::vector<int> out(3 * 5 * 2 * 8 * 4 * 2, -1);
    Launch<WriteIndices>({3, 5, 2}, {8, 4, 2}, 0, nullptr, out.data());
    EXPECT_EQ(out, Counting<int>(static_cast<int>(out.size())));
  });
}

TEST(Emulator, RunsBarriersAndSharedMemory) {
  InEveryOrder([] {
    const std::vector<int> in = Counting<int>(5 * 128);
    std::vector<int> out(5);
    Launch<TreeSum<false>>({.x = 5}, {.x = 128}, 0, nullptr, in.data(), out.data());
    for (int b = 0; b < 5; ++b) EXPECT_EQ(out[b], 128 * (128 * b) + 127 * 64);
    std::vector<int> reversed(64);
    Launch<ReverseDynamic>({}, {.x = 64}, 256, nullptr, in.data(), reversed.data());
    for (int i = 0; i < 64; ++i) EXPECT_EQ(reversed[i], 63 - i);
  });
}

TEST(Emulator, ExchangesRegistersOfAWarp) {
  InEveryOrder([] {
    std::vector<int> out(192);
    Launch<Shuffles>({}, {.x = 32}, 0, nullptr, out.data());
    for (int lane = 0; lane < 32; ++lane) {
      EXPECT_EQ(out[lane], 100 + lane * 7 % 32);
      EXPECT_EQ(out[32 + lane], lane ^ 5);
      EXPECT_EQ(out[64 + lane], lane < 29 ? lane + 3 : lane);
      EXPECT_EQ(out[96 + lane], lane >= 3 ? lane - 3 : lane);
      EXPECT_EQ(out[128 + lane], 0x49249249);
      EXPECT_EQ(out[160 + lane], 496);
    }
    std::vector<float> sums(64);
    Launch<BlockSums>({}, {.x = 64}, 0, nullptr, sums.data());
    for (const float sum : sums) EXPECT_EQ(sum, 2016 + 64000);
  });
}

TEST(Emulator, MultipliesMatricesAsPlainLoopsDo) {
  InEveryOrder([] {
    std::vector<BF16> a(16 * 16), b(16 * 8), b_transposed(8 * 16);
    for (int i = 0; i < 256; ++i) a[i] = BF16(static_cast<float>(i % 13 - 6));
    for (int k = 0; k < 16; ++k) {
      for (int n = 0; n < 8; ++n) {
        b[k * 8 + n] = b_transposed[n * 16 + k] =
            BF16(static_cast<float>((k * 5 + n * 3) % 11 - 4));
      }
    }
    std::vector<float> out(128), out_transposed(128);
    Launch<Product<false>>({}, {.x = 32}, 0, nullptr, a.data(), b.data(), out.data());
    Launch<Product<true>>({}, {.x = 32}, 0, nullptr, a.data(), b_transposed.data(),
                          out_transposed.data());
    for (int m = 0; m < 16; ++m) {
      for (int n = 0; n < 8; ++n) {
        float sum = 1;
        for (int k = 0; k < 16; ++k) sum += float(a[m * 16 + k]) * float(b[k * 8 + n]);
        EXPECT_EQ(out[m * 8 + n], sum);
        EXPECT_EQ(out_transposed[m * 8 + n], sum);
      }
    }
  });
}

TEST(Emulator, CopiesZerosWhereACopyIsNotValid) {
  alignas(16) float in[128], out[128];
  std::iota(in, in + 128, 1.0f);
  Launch<ConditionalCopies>({}, {.x = 32}, 0, nullptr, in, out);
  for (int i = 0; i < 128; ++i) EXPECT_EQ(out[i], i / 4 % 2 == 0 ? in[i] : 0);
}

// ---- Broken kernels, each with the report that it must cause.

KERNEL(64) OverrunsGlobal(float* out) { out[threadIdx.x + 1] = 1; }
KERNEL(64) OverrunsShared(float* out) {
  SHARED_ARRAY(float, values, 63);
  values[threadIdx.x] = 1;
  BLOCK_SYNC();
  out[threadIdx.x] = values[0];
}
KERNEL(64) OverrunsDynamic(float* out) {
  SHARED_DYNAMIC(float, values);
  values[threadIdx.x] = 1;
  BLOCK_SYNC();
  out[threadIdx.x] = values[0];
}
KERNEL(64) BarrierForHalf(float* out) {
  if (threadIdx.x < 32) BLOCK_SYNC();
  out[threadIdx.x] = 1;
}
KERNEL(64) TwoBarriers(float* out) {
  if (threadIdx.x < 32) {
    BLOCK_SYNC();
  } else {
    out[threadIdx.x] = 1;
    BLOCK_SYNC();
  }
}
KERNEL(32) ShuffleForHalf(float* out) {
  float v = 1;
  if (threadIdx.x < 16) v = ShuffleXor(v, 1);
  out[threadIdx.x] = v;
}
KERNEL(32) DivergentShuffles(float* out) {
  float v = 1;
  if (threadIdx.x < 16) {
    v = ShuffleXor(v, 1);
  } else {
    v = ShuffleXor(v, 2);
  }
  out[threadIdx.x] = v;
}
KERNEL(32) Misaligned(float* out) { StoreWords<4>(out + 1, Words<4>{}); }
KERNEL(32) ForgetsItsCopies(const float* in) {
  SHARED_ARRAY(float, values, 4 * 32);
  CopyAsync16(values + Lane() * 4, in, true);
}
KERNEL(32) ReadsCopiesTooEarly(const float* in, float* out) {
  SHARED_ARRAY(float, values, 4 * 32);
  CopyAsync16(values + Lane() * 4, in, true);
  CopyAsyncCommit();
  CopyAsyncWait<1>();
  out[Lane()] = values[Lane() * 4];
  CopyAsyncWait<0>();
}
KERNEL(32) ReadsUnsetShared(float* out) {
  SHARED_ARRAY(float, values, 32);
  out[Lane()] = values[Lane()];
}
KERNEL(64) ForgetsTheLast(float* out) {
  if (threadIdx.x < 63) out[threadIdx.x] = 1;
}
// Depends on who writes last, with no race inside of a warp's turn.
KERNEL(64) LastOneWins(int* out) { *out = static_cast<int>(threadIdx.x); }
KERNEL(32) BlocksOverlap(int* out) {
  out[blockIdx.x * 31 + threadIdx.x] = static_cast<int>(blockIdx.x);
}
KERNEL(32) NoWarpBarrier(int* out) {
  SHARED_ARRAY(int, values, 32);
  values[Lane()] = Lane();
  out[Lane()] = values[31 - Lane()];
}
KERNEL(32) WarpBarrierIsThere(int* out) {
  SHARED_ARRAY(int, values, 32);
  values[Lane()] = Lane();
  WARP_SYNC();
  out[Lane()] = values[31 - Lane()];
}
KERNEL(32) ShuffleInsteadOfBarrier(int* out) {
  SHARED_ARRAY(int, values, 32);
  values[Lane()] = Lane();
  const int zero = ShuffleXor(0, 1);
  out[Lane()] = values[31 - Lane()] + zero;
}

class EmulatorDeathTest : public testing::Test {
 protected:
  std::vector<float> out_ = std::vector<float>(64);
  alignas(16) float aligned_[128] = {};
  std::vector<int> ints_ = std::vector<int>(128);
};

TEST_F(EmulatorDeathTest, DivergenceAtABarrierIsReported) {
  EXPECT_DEATH(Launch<BarrierForHalf>({}, {.x = 64}, 0, nullptr, out_.data()),
               "BarrierForHalf: the threads of a block wait for each other for ever"
               ".*\n.*waits at the barrier.*emulator_test.cc.*\n.*has ended");
  EXPECT_DEATH(
      Launch<TwoBarriers>({}, {.x = 64}, 0, nullptr, out_.data()),
      "thread \\(0, 0, 0\\) of block.*waits at the barrier.*\n.*TwoBarriers: a thread is at "
      "another barrier.*thread \\(32, 0, 0\\)");
}

TEST_F(EmulatorDeathTest, DivergenceInsideOfAWarpIsReported) {
  EXPECT_DEATH(Launch<ShuffleForHalf>({}, {.x = 32}, 0, nullptr, out_.data()),
               "waits for its warp");
  EXPECT_DEATH(Launch<DivergentShuffles>({}, {.x = 32}, 0, nullptr, out_.data()),
               "a lane is at another warp operation than the rest of its warp");
}

TEST_F(EmulatorDeathTest, MisalignedVectorsAreReported) {
  EXPECT_DEATH(Launch<Misaligned>({}, {.x = 32}, 0, nullptr, aligned_), "misaligned address");
}

TEST_F(EmulatorDeathTest, CopiesThatAreNotWaitedForAreReported) {
  EXPECT_DEATH(Launch<ForgetsItsCopies>({}, {.x = 32}, 0, nullptr, aligned_),
               "a thread ended before its copies did");
}

TEST_F(EmulatorDeathTest, SizesThatTheDeviceRefusesAreReported) {
  EXPECT_DEATH(Launch<LastOneWins>({}, {.x = 33}, 0, nullptr, ints_.data()), "whole warps");
  EXPECT_DEATH(Launch<LastOneWins>({}, {.x = 2048}, 0, nullptr, ints_.data()), "1 to 1024 threads");
  EXPECT_DEATH(Launch<LastOneWins>({1, 65536}, {.x = 32}, 0, nullptr, ints_.data()), "65535");
  EXPECT_DEATH(Launch<LastOneWins>({}, {.x = 32}, 228 << 10, nullptr, ints_.data()), "227 KB");
}

TEST_F(EmulatorDeathTest, OutOfBoundsAccessesAreReportedByAddressSanitizer) {
#ifndef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "needs AddressSanitizer";
#endif
  EXPECT_DEATH(Launch<OverrunsGlobal>({}, {.x = 64}, 0, nullptr, out_.data()),
               "heap-buffer-overflow(.|\n)*OverrunsGlobal");
  const Workspace<float> between_blocks(64);
  EXPECT_DEATH(Launch<OverrunsGlobal>({}, {.x = 64}, 0, nullptr, between_blocks.data()),
               "use-after-poison(.|\n)*OverrunsGlobal");
  // The undefined-behaviour sanitizer, where it is there too, sees what leaves an array first.
  EXPECT_DEATH(Launch<OverrunsShared>({}, {.x = 64}, 0, nullptr, out_.data()),
               "use-after-poison(.|\n)*OverrunsShared|index 63 out of bounds");
  EXPECT_DEATH(Launch<OverrunsDynamic>({}, {.x = 64}, 63 * 4, nullptr, out_.data()),
               "use-after-poison(.|\n)*OverrunsDynamic");
}

TEST_F(EmulatorDeathTest, HostFunctionsThatTouchDeviceMemoryEndTheProgram) {
  const Workspace<float> memory(64);
  Launch<OverrunsGlobal>({}, {.x = 32}, 0, nullptr, memory.data());
  EXPECT_DEATH(memory.data()[0] = 1, "");
  float value = 0;
  RuntimeOf(Device::kCuda).Copy(&value, memory.data() + 1, sizeof(value), CopyKind::kToHost);
  EXPECT_EQ(value, 1);
}

TEST_F(EmulatorDeathTest, AddressesOfTheHostInArgumentsAreReported) {
  EXPECT_DEATH(
      {
        emulator::ForbidHostPointers();
        Launch<LastOneWins>({}, {.x = 64}, 0, nullptr, ints_.data());
      },
      "LastOneWins: an argument holds the host's address");
}

void RunTreeSum(bool broken) {
  const std::vector<int> in = Counting<int>(128);
  int out = 0;
  broken ? Launch<TreeSum<true>>({}, {.x = 128}, 0, nullptr, in.data(), &out)
         : Launch<TreeSum<false>>({}, {.x = 128}, 0, nullptr, in.data(), &out);
}

TEST_F(EmulatorDeathTest, RacesAreReportedByThreadSanitizer) {
#ifndef __SANITIZE_THREAD__
  GTEST_SKIP() << "needs ThreadSanitizer";
#endif
  // A report does not end the program at once; its exit code does.
  const auto reports = [](const std::function<void()>& fn) {
    EXPECT_EXIT((fn(), std::exit(0)), [](int status) { return status != 0; }, "data race");
  };
  reports([] { RunTreeSum(true); });
  reports([&] { Launch<BlocksOverlap>({.x = 4}, {.x = 32}, 0, nullptr, ints_.data()); });
  reports([&] { Launch<LastOneWins>({}, {.x = 64}, 0, nullptr, ints_.data()); });
  reports([&] { Launch<NoWarpBarrier>({}, {.x = 32}, 0, nullptr, ints_.data()); });
  reports([&] { Launch<ShuffleInsteadOfBarrier>({}, {.x = 32}, 0, nullptr, ints_.data()); });
  RunTreeSum(false);
  Launch<WarpBarrierIsThere>({}, {.x = 32}, 0, nullptr, ints_.data());
}

// Races are wrong results in some order of the threads, seen without any sanitizer.
TEST(EmulatorOrders, ShowDependenceOnTheOrder) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "reported as races";
#endif
  std::vector<int> last, sums, overlaps;
  for (const Order order : kOrders) {
    SetOrder(order);
    int out = -1;
    Launch<LastOneWins>({}, {.x = 64}, 0, nullptr, &out);
    last.push_back(out);
    std::vector<int> values(4 * 32);
    Launch<BlocksOverlap>({.x = 4}, {.x = 32}, 0, nullptr, values.data());
    overlaps.push_back(values[31]);
    const std::vector<int> in = Counting<int>(128);
    Launch<TreeSum<true>>({}, {.x = 128}, 0, nullptr, in.data(), &out);
    sums.push_back(out);
  }
  SetOrder(Order::kAscending);
  EXPECT_NE(last[0], last[1]);
  EXPECT_NE(overlaps[0], overlaps[1]);
  EXPECT_TRUE(sums[0] != 127 * 64 || sums[1] != 127 * 64 || sums[2] != 127 * 64);
}

TEST(EmulatorPoison, UnwrittenOutputIsNan) {
  SetPoisonMemory(true);
  MemoryBlock* const block = Allocate(64 * sizeof(float), Device::kCpu);
  float* const out = reinterpret_cast<float*>(block->data);
  Launch<ForgetsTheLast>({}, {.x = 64}, 0, nullptr, out);
  EXPECT_EQ(out[62], 1);
  EXPECT_TRUE(std::isnan(out[63]));
  Deallocate(block, Device::kCpu);
  SetPoisonMemory(false);
}

TEST(EmulatorPoison, UnsetDataIsNan) {
  std::vector<float> out(32);
  Launch<ReadsUnsetShared>({}, {.x = 32}, 0, nullptr, out.data());
  for (const float v : out) EXPECT_TRUE(std::isnan(v));
  alignas(16) float in[4] = {1, 2, 3, 4};
  Launch<ReadsCopiesTooEarly>({}, {.x = 32}, 0, nullptr, in, out.data());
  for (const float v : out) EXPECT_TRUE(std::isnan(v));
}

}  // namespace
}  // namespace tessera
