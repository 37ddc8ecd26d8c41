#include <algorithm>
#include <cstring>

#include "core/parallel.h"
#include "tensor/ops/fit_map/fit_map.h"

namespace tessera {
namespace {

void FitMapCpu(const FitMapArgs& args) {
  const int64_t pixel = args.channels * static_cast<int64_t>(SizeOf(args.dtype));
  const int64_t row = args.out_width * pixel;
  const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 16) / row);
  ParallelFor(args.batch * args.out_height, grain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t y = r % args.out_height, in_row = r / args.out_height * args.height + y;
      char* to = static_cast<char*>(args.y) + r * row;
      const int64_t kept = y < args.height ? std::min(args.width, args.out_width) * pixel : 0;
      if (kept > 0) {
        std::memcpy(to, static_cast<const char*>(args.x) + in_row * args.width * pixel,
                    static_cast<size_t>(kept));
      }
      std::memset(to + kept, 0, static_cast<size_t>(row - kept));
    }
  });
}

REGISTER_KERNEL(fit_map, Device::kCpu, FitMapCpu);

}  // namespace
}  // namespace tessera
