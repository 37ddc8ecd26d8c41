// The structure of exported graphs, by the checker and the shape inference of the format's authors.
#include <gtest/gtest.h>
#include <onnx/checker.h>
#include <onnx/onnx_pb.h>
#include <onnx/shape_inference/implementation.h>

#include "tests/models/onnx_testing.h"

namespace tessera {
namespace {

onnx::ModelProto Exported(const OnnxSubject& subject, const OnnxCase& c) {
  onnx::ModelProto model;
  CHECK(model.ParseFromString(subject.Onnx(c)));
  return model;
}

std::vector<int64_t> DimsOf(const onnx::ValueInfoProto& value) {
  std::vector<int64_t> dims;
  for (const auto& dim : value.type().tensor_type().shape().dim()) {
    dims.push_back(dim.has_dim_value() ? dim.dim_value() : -1);
  }
  return dims;
}

TEST(Onnx, GraphsAreValidAndKeepTheirShapes) {
  for (const OnnxCase& c : OnnxCases()) {
    SCOPED_TRACE(c.name + " " + c.options);
    const OnnxSubject subject(c);
    onnx::ModelProto model = Exported(subject, c);
    EXPECT_NO_THROW(onnx::checker::check_model(model));
    EXPECT_EQ(model.opset_import(0).version(), 17);
    EXPECT_EQ(DimsOf(model.graph().input(0)),
              (std::vector<int64_t>{-1, subject.model->in_chans(), c.height, c.width}));
    EXPECT_EQ(model.graph().input(0).type().tensor_type().shape().dim(0).dim_param(), "batch");
    const std::vector<int64_t> stated = DimsOf(model.graph().output(0));
    ASSERT_EQ(stated.size(), 2u);
    EXPECT_EQ(stated[0], -1);
    // Inferred once more without what the graph says of its output.
    model.mutable_graph()->mutable_output(0)->mutable_type()->mutable_tensor_type()->clear_shape();
    const onnx::ShapeInferenceOptions strict(/*check_type=*/true, /*strict_mode=*/1,
                                             /*enable_data_propagation=*/true);
    EXPECT_NO_THROW(
        onnx::shape_inference::InferShapes(model, onnx::OpSchemaRegistry::Instance(), strict));
    EXPECT_EQ(DimsOf(model.graph().output(0)), stated);
  }
}

TEST(OnnxDeathTest, AForgottenWeightIsFound) {
  class Forgetful : public ImageModel {
   public:
    Forgetful() { AddParameter("forgotten", {1}, Init::Ones()); }
    Tensor Forward(const Tensor& images, const ForwardContext&) const override { return images; }
    absl::StatusOr<OnnxValue> ToOnnx(OnnxGraph& graph, const OnnxValue& images) const override {
      return graph.Mean(images, {2, 3});
    }
    int64_t num_classes() const override { return 3; }
    int64_t in_chans() const override { return 3; }
    std::vector<StageCost> Costs(int64_t, int64_t) const override { return {}; }
    ConfigNode Options() const override { return {}; }
  };
  Forgetful model;
  const ParameterStore store(model, 0, false);
  EXPECT_DEATH(ExportOnnx(model, "m", store, 8, 8).IgnoreError(), "forgotten is not in its ONNX");
}

TEST(Onnx, OtherModelsAreAnError) {
  class Other : public ImageModel {
    Tensor Forward(const Tensor& images, const ForwardContext&) const override { return images; }
    int64_t num_classes() const override { return 1; }
    int64_t in_chans() const override { return 3; }
    std::vector<StageCost> Costs(int64_t, int64_t) const override { return {}; }
    ConfigNode Options() const override { return {}; }
  };
  Other other;
  const ParameterStore store(other, 0, false);
  EXPECT_EQ(ExportOnnx(other, "other", store, 8, 8).status().code(),
            absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace tessera
