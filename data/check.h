// Reads every picture of a data set once and says what is wrong with it.
#ifndef TESSERA_DATA_CHECK_H_
#define TESSERA_DATA_CHECK_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "data/config.h"
#include "data/decode.h"
#include "data/source.h"

namespace tessera {

struct BadPicture {
  std::string name;
  BadFile kind = BadFile::kUnreadable;
  std::string reason;
};

struct SplitReport {
  std::string name;         // "train" or "val"
  std::string description;  // of the source
  std::string error;        // why the split could not be opened; then nothing below is set
  int64_t num_samples = 0;
  int64_t bytes = 0;
  std::vector<BadPicture> bad;      // all of them, in the order of the source
  std::vector<BadPicture> damaged;  // decoded whole, but the codec complained
  // Samples with the same bytes: (the first one, a later one).
  std::vector<std::pair<std::string, std::string>> duplicates;
  std::vector<std::string> class_names;
  std::vector<int64_t> samples_per_class;
  int64_t min_height = 0;  // of the pictures that are good
  int64_t max_height = 0;
  int64_t min_width = 0;
  int64_t max_width = 0;
};

struct DataReport {
  std::vector<SplitReport> splits;
  std::string class_mismatch;  // between the splits; empty if they agree
  int64_t num_shared = 0;      // evaluation pictures whose bytes are in the training split too

  // False if a split does not open, a picture is bad or the classes differ. Duplicates, damaged
  // pictures and empty classes are told, but can be trained with.
  bool ok() const;
  std::string Text() const;  // for people, several lines
};

// `progress`, if given, is called now and then with the samples done and their number, from one
// thread at a time.
DataReport CheckData(const DataConfig& config, const std::vector<Split>& splits,
                     const std::function<void(int64_t done, int64_t total)>& progress = nullptr);

}  // namespace tessera

#endif  // TESSERA_DATA_CHECK_H_
