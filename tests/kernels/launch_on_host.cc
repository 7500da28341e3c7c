// launch.cc without a GPU: the driver is the library that the environment variable DRIVER names,
// and the stream, which XLA on a CPU does not have, is number 42.

#include <dlfcn.h>

#include <cstdlib>
#include <optional>

#include "xla/ffi/api/ffi.h"

namespace xla::ffi {
template <typename T>
struct FixedStream {};

template <typename T>
struct CtxDecoding<FixedStream<T>> {
  using Type = T;
  static std::optional<T> Decode(const XLA_FFI_Api*, XLA_FFI_ExecutionContext*, DiagnosticEngine&) {
    return reinterpret_cast<T>(42);
  }
};
}  // namespace xla::ffi

#define PlatformStream FixedStream
#define dlopen(name, flags) dlopen(std::getenv("DRIVER"), flags)
#include "launch.cc"
