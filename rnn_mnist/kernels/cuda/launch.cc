// What Python and XLA call on a GPU: load a compiled lstm.cu into the driver, and launch its kernels.
//
// The driver is opened when it is first needed, so this file needs neither CUDA's headers nor its
// libraries. The declarations of the driver's functions follow cuda.h; a handle is a pointer.

#include <dlfcn.h>

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using Handle = void*;

// The driver's functions. Each returns 0, or the number of an error.
struct Driver {
  int (*cuInit)(unsigned);
  int (*cuGetErrorString)(int, const char**);
  int (*cuDeviceGet)(int*, int);
  int (*cuDeviceGetAttribute)(int*, int, int);
  int (*cuDevicePrimaryCtxRetain)(Handle*, int);
  int (*cuCtxGetCurrent)(Handle*);
  int (*cuCtxPushCurrent_v2)(Handle);
  int (*cuCtxPopCurrent_v2)(Handle*);
  int (*cuCtxSynchronize)();
  int (*cuModuleLoadData)(Handle*, const void*);
  int (*cuModuleGetFunction)(Handle*, Handle, const char*);
  int (*cuFuncSetAttribute)(Handle, int, int);
  int (*cuLaunchKernel)(Handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                        Handle, void**, void**);

  Driver() {
    Handle library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library) throw std::runtime_error(dlerror());
    const auto find = [library](auto& function, const char* name) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
      if (!function) throw std::runtime_error(std::string("the driver has no ") + name);
    };
#define FIND(name) find(name, #name)
    FIND(cuInit), FIND(cuGetErrorString), FIND(cuDeviceGet), FIND(cuDeviceGetAttribute);
    FIND(cuDevicePrimaryCtxRetain), FIND(cuCtxGetCurrent), FIND(cuCtxPushCurrent_v2), FIND(cuCtxPopCurrent_v2);
    FIND(cuCtxSynchronize), FIND(cuModuleLoadData), FIND(cuModuleGetFunction);
    FIND(cuFuncSetAttribute), FIND(cuLaunchKernel);
#undef FIND
    check(cuInit(0), "cuInit");
  }

  void check(int status, const char* call) const {
    if (status == 0) return;
    const char* text = nullptr;
    cuGetErrorString(status, &text);
    throw std::runtime_error(std::string(call) + ": " + (text ? text : "error ") +
                             (text ? "" : std::to_string(status)));
  }
};

const Driver& driver() {
  static const Driver driver;  // If this throws, the next call tries again.
  return driver;
}
#define CHECKED(call, ...) driver().check(driver().call(__VA_ARGS__), #call)

using Kernels = std::array<Handle, 2>;  // forward, backward
std::mutex mutex;
// The loaded kernels, by the device's context and the number that Python gave them.
std::map<std::pair<Handle, std::int64_t>, Kernels> loaded;

void launch(Handle kernel, const std::array<unsigned, 2>& blocks, unsigned threads, unsigned shared,
            Handle stream, std::vector<void*>& arguments) {
  CHECKED(cuLaunchKernel, kernel, blocks[0], blocks[1], 1, threads, 1, 1, shared, stream,
          arguments.data(), nullptr);
}

// Load a cubin on a device under a number, and launch its kernels once without any sequence.
void load(int ordinal, const void* cubin, std::int64_t number, int threads, int shared) {
  int device;
  Handle context, module;
  Kernels kernels;
  CHECKED(cuDeviceGet, &device, ordinal);
  CHECKED(cuDevicePrimaryCtxRetain, &context, device);  // JAX's own context, never released.
  const std::lock_guard<std::mutex> lock(mutex);
  if (loaded.count({context, number})) return;
  CHECKED(cuCtxPushCurrent_v2, context);
  struct Pop { ~Pop() { Handle popped; driver().cuCtxPopCurrent_v2(&popped); } } pop;
  CHECKED(cuModuleLoadData, &module, cubin);
  CHECKED(cuModuleGetFunction, &kernels[0], module, "forward");
  CHECKED(cuModuleGetFunction, &kernels[1], module, "backward");
  constexpr int kMaxDynamicSharedSizeBytes = 8;
  constexpr std::array<int, 2> kArrays = {11, 10};
  for (int pass = 0; pass < 2; pass++) {
    CHECKED(cuFuncSetAttribute, kernels[pass], kMaxDynamicSharedSizeBytes, shared);
    void* nothing = nullptr;
    int zero = 0;
    std::vector<void*> arguments(kArrays[pass], &nothing);
    arguments.insert(arguments.end(), {&zero, &zero, &zero});
    launch(kernels[pass], {1, 1}, threads, shared, nullptr, arguments);
  }
  CHECKED(cuCtxSynchronize);
  loaded[{context, number}] = kernels;
}

// Launch a kernel over arrays, which may have axes of `vmap` in front.
//
// `elements` is the size of the last result without these axes: (B, H), never empty.
ffi::Error run(Handle stream, ffi::RemainingArgs inputs, ffi::RemainingRets results,
               std::int64_t number, std::int32_t pass, std::int32_t blocks, std::int32_t threads,
               std::int32_t shared, std::int64_t elements, std::int32_t batch, std::int32_t steps,
               bool reverse) try {
  std::vector<void*> pointers;
  const auto add = [&](const auto& buffer) {
    pointers.push_back(buffer.element_count() ? buffer.untyped_data() : nullptr);
  };
  for (std::size_t i = 0; i < inputs.size(); i++) add(inputs.get<ffi::AnyBuffer>(i).value());
  for (std::size_t i = 0; i < results.size(); i++) add(*results.get<ffi::AnyBuffer>(i).value());
  auto last = results.get<ffi::AnyBuffer>(results.size() - 1).value();
  const std::int64_t models = last->element_count() / elements;
  if (models == 0) return ffi::Error::Success();
  if (models > 65535) throw std::runtime_error("more than 65535 models");
  Handle context, kernel;
  CHECKED(cuCtxGetCurrent, &context);
  {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = loaded.find({context, number});
    if (found == loaded.end()) throw std::runtime_error("the kernel was not loaded on this device");
    kernel = found->second[pass];
  }
  int backwards = reverse;
  std::vector<void*> arguments;
  for (void*& pointer : pointers) arguments.push_back(&pointer);
  arguments.insert(arguments.end(), {&batch, &steps, &backwards});
  launch(kernel, {unsigned(blocks), unsigned(models)}, threads, shared, stream, arguments);
  return ffi::Error::Success();
} catch (const std::exception& error) {
  return ffi::Error(ffi::ErrorCode::kInternal, std::string("the LSTM's kernel: ") + error.what());
}

}  // namespace

#define VISIBLE extern "C" __attribute__((visibility("default")))

VISIBLE XLA_FFI_Error* rnn_mnist_lstm_cuda(XLA_FFI_CallFrame* frame) {
  static const auto* const handler = ffi::Ffi::Bind()
                                         .Ctx<ffi::PlatformStream<Handle>>()
                                         .RemainingArgs()
                                         .RemainingRets()
                                         .Attr<std::int64_t>("number")
                                         .Attr<std::int32_t>("kernel")
                                         .Attr<std::int32_t>("blocks")
                                         .Attr<std::int32_t>("threads")
                                         .Attr<std::int32_t>("shared")
                                         .Attr<std::int64_t>("elements")
                                         .Attr<std::int32_t>("batch")
                                         .Attr<std::int32_t>("steps")
                                         .Attr<bool>("reverse")
                                         .To(run, {ffi::Traits::kCmdBufferCompatible})
                                         .release();
  return handler->Call(frame);
}

// A call of f: null, or one line that says what failed.
template <typename F>
static const char* line_of(const F& f) try {
  f();
  return nullptr;
} catch (const std::exception& error) {
  static thread_local std::string line;
  line = error.what();
  return line.c_str();
}

// Load a cubin on a device.
VISIBLE const char* rnn_mnist_lstm_cuda_load(int ordinal, const void* cubin, std::int64_t number,
                                             int threads, int shared) {
  return line_of([&] { load(ordinal, cubin, number, threads, shared); });
}

// Read a device's attribute.
VISIBLE const char* rnn_mnist_lstm_cuda_attribute(int ordinal, int attribute, int* value) {
  return line_of([&] {
    int device;
    CHECKED(cuDeviceGet, &device, ordinal);
    CHECKED(cuDeviceGetAttribute, value, attribute, device);
  });
}
