// Whether a run may continue under a configuration.
#ifndef TESSERA_TRAIN_RESUME_CHECK_H_
#define TESSERA_TRAIN_RESUME_CHECK_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace tessera::train {

// Both are resolved configurations in YAML. ConfigError naming every key whose change would make
// the run's steps differ from what they were; where things are stored, how often they are saved and
// how many threads load may change.
absl::Status CheckResumable(absl::string_view saved, absl::string_view now);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_RESUME_CHECK_H_
