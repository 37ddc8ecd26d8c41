// A picture of what a classifier takes for what.
#ifndef TESSERA_TRAIN_CONFUSION_MATRIX_H_
#define TESSERA_TRAIN_CONFUSION_MATRIX_H_

#include <string>
#include <vector>

#include "train/evaluate.h"

namespace tessera::train {

// A PNG file of at most some 1000 x 1000 pixels: a row for each class, a column for what its
// samples were taken for, coloured by their share of the row. Up to 25 classes have names and
// numbers.
std::string ConfusionMatrixPng(const Evaluation& evaluation,
                               const std::vector<std::string>& class_names);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_CONFUSION_MATRIX_H_
