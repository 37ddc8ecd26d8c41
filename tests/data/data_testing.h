// Small data sets on disk for tests.
#ifndef TESSERA_TESTS_DATA_DATA_TESTING_H_
#define TESSERA_TESTS_DATA_DATA_TESTING_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <opencv2/imgcodecs.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/file_system.h"
#include "data/image.h"
#include "data/source.h"

namespace tessera {

// A folder that is removed at the end of its scope.
class TempFolder {
 public:
  TempFolder() {
    std::string pattern = JoinPath(testing::TempDir(), "tessera-data-XXXXXX");
    CHECK(mkdtemp(pattern.data()) != nullptr) << pattern;
    path_ = pattern;
  }
  TempFolder(const TempFolder&) = delete;
  ~TempFolder() { std::filesystem::remove_all(path_); }

  const std::string& path() const { return path_; }
  std::string operator/(absl::string_view name) const { return JoinPath(path_, name); }

  // Writes a file, and the folders above it.
  void Write(absl::string_view name, absl::string_view contents) const {
    const std::string path = *this / name;
    std::filesystem::create_directories(DirectoryName(path));
    std::ofstream file(path, std::ios::binary);
    file.write(contents.data(), static_cast<std::streamsize>(contents.size()));
    CHECK(file.good()) << path;
  }

 private:
  std::string path_;
};

// A smooth coloured picture that differs by `kind`, encoded as `extension` (".jpg", ".png", ...).
inline std::string EncodedPicture(int height, int width, int kind,
                                  const std::string& extension = ".jpg",
                                  const std::vector<int>& parameters = {}) {
  cv::Mat bgr(height, width, CV_8UC3);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c) {
        bgr.at<cv::Vec3b>(y, x)[c] = static_cast<uint8_t>(
            128 + 60 * std::sin(0.1 * x * (c + 1) + kind) + 60 * std::cos(0.13 * y + kind * c));
      }
    }
  }
  std::vector<uint8_t> bytes;
  CHECK(cv::imencode(extension, bgr, bytes, parameters));
  return std::string(bytes.begin(), bytes.end());
}

inline absl::Span<const uint8_t> AsBytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// One USTAR member: header and padded data.
inline std::string TarMemberBytes(const std::string& name, const std::string& data,
                                  char type = '0') {
  std::string header(512, '\0');
  const auto put = [&header](size_t at, const std::string& text) {
    header.replace(at, text.size(), text);
  };
  put(0, name.substr(0, 100));
  put(100, "0000644");
  put(124, absl::StrFormat("%011o", data.size()));
  put(148, "        ");
  header[156] = type;
  put(257, std::string("ustar\0"
                       "00",
                       8));
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  put(148, absl::StrFormat("%06o", sum));
  header[154] = '\0';
  std::string padded = data;
  padded.resize((data.size() + 511) / 512 * 512);
  return header + padded;
}

inline std::string TarEnd() { return std::string(1024, '\0'); }

// CHECK-fails with the error's message.
template <typename T>
T Unwrap(absl::StatusOr<T> value) {
  CHECK(value.ok()) << value.status();
  return *std::move(value);
}

// A folder ROOT/{train,val}/CLASS/N.jpg with this many pictures, of different sizes.
inline void WriteClassFolders(const TempFolder& folder, int num_train, int num_val) {
  const char* classes[] = {"ant", "bee", "cat"};
  for (int i = 0; i < num_train + num_val; ++i) {
    const std::string split = i < num_train ? "train" : "val";
    folder.Write(absl::StrCat(split, "/", classes[i % 3], "/", i, ".jpg"),
                 EncodedPicture(40 + i % 7, 50 + i % 5, i));
  }
}

}  // namespace tessera

#endif  // TESSERA_TESTS_DATA_DATA_TESTING_H_
