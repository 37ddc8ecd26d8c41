// The logits of exported graphs, computed by onnxruntime in Python, against ours. Needs an
// interpreter that can import it: $TESSERA_PYTHON, else python3. Without one ctest lists the test
// as skipped.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "core/random.h"
#include "tests/models/onnx_testing.h"

namespace tessera {
namespace {

constexpr int64_t kBatch = 3;

constexpr const char* kScript = R"(
import sys
import numpy, onnxruntime
folder, batch, channels, height, width = sys.argv[1], *map(int, sys.argv[2:])
images = numpy.fromfile(folder + "/images", numpy.float32).reshape(batch, channels, height, width)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(folder + "/model.onnx", options,
                                       providers=["CPUExecutionProvider"])
for first, last in ((0, batch), (1, 2)):
    logits = session.run(None, {"images": images[first:last]})[0]
    logits.tofile(folder + "/logits_%d" % (last - first))
)";

std::string Python() {
  const char* python = std::getenv("TESSERA_PYTHON");
  return python == nullptr ? "python3" : python;
}

bool Succeeds(const std::string& command) { return std::system(command.c_str()) == 0; }

class OnnxRuntime : public ::testing::Test {
 protected:
  OnnxRuntime() {
    std::string pattern = testing::TempDir() + "/tessera-onnx-XXXXXX";
    CHECK(mkdtemp(pattern.data()) != nullptr);
    folder_ = pattern;
  }
  ~OnnxRuntime() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& name, const std::string& bytes) const {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << bytes;
  }
  std::vector<float> ReadFloats(const std::string& name) const {
    std::ifstream file(folder_ + "/" + name, std::ios::binary);
    const std::string bytes(std::istreambuf_iterator<char>(file), {});
    std::vector<float> values(bytes.size() / sizeof(float));
    std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
    return values;
  }

  std::string folder_;
};

// [B, H, W, C] -> [B, C, H, W].
std::string ChannelsFirst(const Tensor& images) {
  std::string bytes;
  const int64_t pixels = images.dim(1) * images.dim(2), channels = images.dim(3);
  for (int64_t i = 0; i < images.dim(0); ++i) {
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t p = 0; p < pixels; ++p) {
        const float value = images.data<float>()[(i * pixels + p) * channels + c];
        bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
      }
    }
  }
  return bytes;
}

void ExpectNear(const std::vector<float>& found, const float* expected, size_t count) {
  ASSERT_EQ(found.size(), count);
  for (size_t i = 0; i < count; ++i) {
    ASSERT_NEAR(found[i], expected[i], 1e-4 * (1 + std::abs(expected[i]))) << i;
  }
}

TEST_F(OnnxRuntime, ComputesTheSameLogits) {
  if (!Succeeds(Python() + " -c 'import numpy, onnxruntime' 2>/dev/null")) {
    GTEST_SKIP() << Python() << " has no onnxruntime; TESSERA_PYTHON can name one that has";
  }
  Write("run.py", kScript);
  for (const OnnxCase& c : OnnxCases()) {
    SCOPED_TRACE(c.name + " " + c.options);
    const OnnxSubject subject(c);
    const Tensor images =
        Tensor::Empty({kBatch, c.height, c.width, subject.model->in_chans()}, DType::kF32);
    RandomStream random(1, Purpose::kTest);
    for (int64_t i = 0; i < images.numel(); ++i) {
      images.data<float>()[i] = static_cast<float>(random.Uniform(-2, 2));
    }
    const Tensor logits = subject.model->Forward(images, ForwardContext());
    Write("model.onnx", subject.Onnx(c));
    Write("images", ChannelsFirst(images));
    ASSERT_TRUE(Succeeds(absl::StrCat(Python(), " ", folder_, "/run.py ", folder_, " ", kBatch, " ",
                                      images.dim(3), " ", c.height, " ", c.width)));
    const int64_t classes = logits.dim(1);
    ExpectNear(ReadFloats("logits_3"), logits.data<float>(), logits.numel());
    ExpectNear(ReadFloats("logits_1"), logits.data<float>() + classes, classes);
  }
}

}  // namespace
}  // namespace tessera
