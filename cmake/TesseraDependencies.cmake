# The packages that the libraries link: read by this build, and by the installed package for whoever links the
# libraries.

include(CMakeFindDependencyMacro)
find_dependency(absl)
find_dependency(glog)
find_dependency(OpenMP)
find_dependency(yaml-cpp)
find_dependency(nlohmann_json)
find_dependency(hwy)
find_dependency(dnnl)
find_dependency(OpenCV COMPONENTS core imgproc imgcodecs)
find_dependency(LibArchive)
find_dependency(JPEG)
find_dependency(Protobuf)
find_dependency(ONNX)
find_dependency(CLI11)
