// Tests of faults run a few cases each, or all of them under tests/faults/full.sh, which collects
// the rows that they report.
#ifndef TESSERA_TESTS_FAULTS_FAULTS_H_
#define TESSERA_TESTS_FAULTS_FAULTS_H_

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>

namespace tessera::faults {

inline bool AllCases() { return std::getenv("TESSERA_FAULTS_TABLE") != nullptr; }

// How many cases to run.
inline int64_t Cases(int64_t few, int64_t all) { return AllCases() ? all : few; }

// Adds a row to the table of results.
inline void Report(const std::string& fault, int64_t cases, const std::string& result) {
  if (!AllCases()) return;
  std::ofstream(std::getenv("TESSERA_FAULTS_TABLE"), std::ios::app)
      << "| " << fault << " | " << cases << " | " << result << " |\n";
}

}  // namespace tessera::faults

#endif  // TESSERA_TESTS_FAULTS_FAULTS_H_
