# Compiler settings of every target, and tessera_library(): one folder becomes one library.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_INSTALL_RPATH "\$ORIGIN/../${CMAKE_INSTALL_LIBDIR}" "\$ORIGIN")
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
# Paths relative to the sources let all build folders share what was compiled once.
find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(ccache ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${CCACHE_PROGRAM})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${ccache})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${ccache})
endif()

if(TESSERA_CUDA)
  find_program(CMAKE_CUDA_COMPILER nvcc PATHS /usr/local/cuda/bin)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real)
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
  set(CMAKE_INSTALL_RPATH_USE_LINK_PATH ON)
  enable_language(CUDA)
  # CMake 3.25 does not know yet that nvcc reads C++20.
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  endif()
  # Not find_package(CUDAToolkit): that of CMake 3.25 stops at CUDA 13, which has no nvToolsExt any more.
  get_filename_component(cuda_bin ${CMAKE_CUDA_COMPILER} DIRECTORY)
  find_library(TESSERA_CUDART cudart HINTS ${cuda_bin}/../lib64 REQUIRED)
  find_library(TESSERA_CUBLASLT cublasLt HINTS ${cuda_bin}/../lib64 REQUIRED)
endif()

# -fno-math-errno and -fno-trapping-math change no result; they let loops with sqrt or a compare vectorise.
add_library(tessera_flags INTERFACE)
target_compile_options(tessera_flags INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Werror;-Wno-unknown-pragmas;-Wno-missing-field-initializers>"
  "$<$<COMPILE_LANGUAGE:CXX>:-fno-math-errno;-fno-trapping-math>"
  "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Werror;-Werror=all-warnings>")
if(TESSERA_SANITIZE)
  target_compile_options(tessera_flags INTERFACE
    -fsanitize=${TESSERA_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(tessera_flags INTERFACE -fsanitize=${TESSERA_SANITIZE})
endif()

# tessera_library(NAME LINK deps...): every *.cc, and with TESSERA_CUDA every *.cu, below NAME/ becomes the shared
# library tessera_NAME. Its headers are reached as "NAME/..." through an include folder that holds a link to this one
# folder alone. Libraries are shared and linked --no-as-needed, because kernels, attentions and models register
# themselves from static objects.
function(tessera_library name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${name}/*.cc)
  list(FILTER sources EXCLUDE REGEX "/main\\.cc$")
  if(TESSERA_CUDA)
    file(GLOB_RECURSE cuda_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${name}/*.cu)
  endif()
  set(include_dir ${CMAKE_BINARY_DIR}/include/${name})
  file(MAKE_DIRECTORY ${include_dir})
  file(CREATE_LINK ${CMAKE_SOURCE_DIR}/${name} ${include_dir}/${name} SYMBOLIC)
  add_library(tessera_${name} SHARED ${sources} ${cuda_sources})
  add_library(tessera::${name} ALIAS tessera_${name})
  set_target_properties(tessera_${name} PROPERTIES EXPORT_NAME ${name}
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
  set_property(GLOBAL APPEND PROPERTY TESSERA_LIBRARIES ${name})
  target_compile_features(tessera_${name} PUBLIC cxx_std_20)
  target_include_directories(tessera_${name} PUBLIC
    $<BUILD_INTERFACE:${include_dir}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/tessera>)
  target_link_libraries(tessera_${name} PUBLIC ${ARG_LINK} PRIVATE $<BUILD_INTERFACE:tessera_flags>)
  if(cuda_sources)
    target_link_libraries(tessera_${name} PRIVATE ${TESSERA_CUDART} ${TESSERA_CUBLASLT})
  endif()
  target_link_options(tessera_${name} PUBLIC -Wl,--no-as-needed PRIVATE -Wl,-Bsymbolic-functions)
endfunction()
