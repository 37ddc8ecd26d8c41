// Gradients of a whole model, for tests that compare them.
#ifndef TESSERA_TESTS_MODELS_GRADIENTS_TESTING_H_
#define TESSERA_TESTS_MODELS_GRADIENTS_TESTING_H_

#include "autograd/tape.h"
#include "models/image_model.h"
#include "tests/tensor_testing.h"

namespace tessera {

struct ModelGradients {
  Tensor grads;       // as the store's
  int64_t num_nodes;  // on the tape before the backward pass
};

// Of a sum of the outputs with random factors.
inline ModelGradients GradientsOf(const ImageModel& model, ParameterStore& store,
                                  const ForwardContext& context, const Tensor& images) {
  Tape tape;
  store.Watch(tape, false);
  const Tensor y = model.Forward(images, context);
  Tensor loss = Tensor::Zeros({}, DType::kF32);
  Record("loss", {&y}, {&loss},
         [shape = y.shape()](GradContext& g) { g.Add(0, RandomTensor(shape, DType::kF32, 3)); });
  const int64_t num_nodes = tape.num_nodes();
  tape.Backward(loss);
  return {store.grads().Clone(), num_nodes};
}

}  // namespace tessera

#endif  // TESSERA_TESTS_MODELS_GRADIENTS_TESTING_H_
