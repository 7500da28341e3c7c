// What XLA calls: the LSTM's forward and backward pass, shared among the threads of XLA's pool.
//
// This file is compiled once, with LSTM_X86 where layout.h and arithmetic.cc are also compiled for
// AVX2 and AVX-512, and with LSTM_SOURCES, a digest of all source files.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <numeric>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "layout.h"
#include "xla/ffi/api/ffi.h"

namespace lstm {

namespace baseline { extern const Level level; }
namespace avx2 { extern const Level level; }
namespace avx512 { extern const Level level; }

namespace {

namespace ffi = xla::ffi;

template <typename T>
using Buffer = ffi::Buffer<sizeof(T) == 4 ? ffi::F32 : ffi::F64>;

// The processor's best instruction set, or a lower one that RNN_MNIST_LSTM_LEVEL names.
const Level& choose_level() {
#ifdef LSTM_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl");
  const char* asked = std::getenv("RNN_MNIST_LSTM_LEVEL");
  const std::string most = asked ? asked : "avx512";
  if (avx512 && most == "avx512") return avx512::level;
  if (avx2 && (most == "avx512" || most == "avx2")) return avx2::level;
#endif
  return baseline::level;
}

// Call f(item, place) for all items, on this thread and on those of the pool that are free.
//
// Each worker has a place, and takes the items of its place before those of others. A thread takes
// the place of its last call, if it can: its core's cache may still hold what these items read and
// write. Moving that between cores can take longer than the arithmetic.
//
// This thread takes items too. At the end it waits only for items that another thread has begun: if
// there are several CPU devices, the callers are the pool's own threads, and no thread is left to
// begin others.
template <typename F>
void spread(ffi::ThreadPool& pool, Index items, Index workers, const F& f) noexcept {
  workers = std::min(workers, items);
  if (workers < 2) {
    for (Index item = 0; item < items; item++) f(item, 0);
    return;
  }
  struct alignas(64) Place {
    std::atomic<bool> taken{false};
    std::atomic<Index> next;
    Index end;
  };
  struct Shared {
    std::vector<Place> places;
    std::atomic<Index> done{0};
    explicit Shared(Index workers) : places(workers) {}
  };
  const auto shared = std::make_shared<Shared>(workers);
  for (Index at = 0; at < workers; at++) {
    shared->places[at].next = items * at / workers;
    shared->places[at].end = items * (at + 1) / workers;
  }
  const auto work = [shared, workers, &f] {
    thread_local Index last = 0;
    Index own = last % workers;
    while (shared->places[own].taken.exchange(true)) own = (own + 1) % workers;
    last = own;
    for (Index turn = 0; turn < workers; turn++) {
      Place& place = shared->places[(own + turn) % workers];
      for (Index item; (item = place.next.fetch_add(1)) < place.end;) {  // Until then, f exists.
        f(item, own);
        shared->done.fetch_add(1, std::memory_order_release);
      }
    }
  };
  for (Index worker = 1; worker < workers; worker++) pool.Schedule([work] { work(); });
  work();
  while (shared->done.load(std::memory_order_acquire) < items) std::this_thread::yield();
}

// A model's part of an array, or null for an array without elements. The axes are those of `vmap`;
// they come first in every array. Where all models along an axis share an array, its size is 1.
template <typename T>
T* part(const std::vector<Index>& axes, const Buffer<T>& buffer, Index model) {
  const auto shape = buffer.dimensions();
  Index stride = 1, offset = 0;
  for (std::size_t axis = axes.size(); axis < shape.size(); axis++) stride *= shape[axis];
  for (std::size_t axis = axes.size(); axis-- > 0; model /= axes[axis]) {
    if (shape[axis] != 1) offset += model % axes[axis] * stride;
    stride *= shape[axis];
  }
  return buffer.element_count() ? buffer.typed_data() + offset : nullptr;
}
template <typename T>
T* part(const std::vector<Index>& axes, ffi::Result<Buffer<T>>& result, Index model) {
  return part<T>(axes, *result, model);
}

template <typename T>
bool finite(const T* x, Index count) {
  int found = 0;  // Compilers make vectors of a number, but not of a bool.
  for (Index i = 0; i < count; i++) found |= !(std::abs(x[i]) <= std::numeric_limits<T>::max());
  return found == 0;
}

// Ask for large pages for an array that XLA has just allocated. With small pages, a long sequence
// spends a quarter to a third of its time on page faults.
template <typename T>
void advise_large_pages([[maybe_unused]] T* array, [[maybe_unused]] Index count) {
#ifdef MADV_HUGEPAGE
  constexpr std::uintptr_t kPage = 2 << 20;
  const auto address = reinterpret_cast<std::uintptr_t>(array);
  const std::uintptr_t begin = (address + kPage - 1) / kPage * kPage;
  const std::uintptr_t end = (address + count * sizeof(T)) / kPage * kPage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

// A cache line, so that arrays of lines begin one.
struct alignas(64) Line { char bytes[64]; };

// Run one pass of all models.
template <typename T>
void run(ffi::ThreadPool& pool, std::vector<Layer<T>>& layers, bool backward) {
  const Layer<T>& first = layers[0];
  const Index models = layers.size(), tiles = first.tiles(), items = models * tiles;
  const Index rows = first.weight_rows();
  const double products =
      1.0 * models * first.batch * first.steps * first.columns() * (first.features + first.hidden);
  // Other threads are not worth waking for what takes less than about 10 us.
  const Index workers = products < 3e5 ? 1 : std::clamp<Index>(pool.num_threads(), 1, items);
  const Index packed_size = first.packed_size(), scratch_size = first.scratch_size();
  const Index partial_size = backward ? tiles * rows * first.columns() : 0;
  const Index size = models * (packed_size + partial_size) + workers * scratch_size;
  const std::unique_ptr<Line[]> lines(new Line[divide_up(size * sizeof(T), sizeof(Line))]);
  T* const packed = reinterpret_cast<T*>(lines.get());
  T* const partial = packed + models * packed_size;
  T* const scratch = partial + models * partial_size;
  static const Level& level = sizeof(T) == 4 ? choose_level() : baseline::level;
  const auto& routines = std::get<Routines<T>>(level.routines);
  spread(pool, models, workers, [&](Index model, Index) {
    Layer<T>& layer = layers[model];
    layer.packed_ih = packed + model * packed_size;
    layer.packed_hh = layer.packed_ih + layer.packed_ih_size();
    layer.packed_bias = layer.packed_hh + layer.packed_hh_size();
    layer.partial = partial + model * partial_size;
    (backward ? routines.pack_backward : routines.pack_forward)(layer);
  });
  spread(pool, items, workers, [&](Index item, Index place) {
    const auto pass = backward ? routines.backward : routines.forward;
    pass(layers[item / tiles], item % tiles, scratch + place * scratch_size);
  });
  if (!backward) return;
  // One small network's gradients are added up before another thread is awake.
  spread(pool, models * rows, models == 1 && first.small() ? 1 : workers,
         [&](Index item, Index) { routines.add_up(layers[item / rows], item % rows); });
}

// The arrays of a pass after `inputs` and `h0`, in XLA's order: arguments, then results. Shapes are
// without the axes of `vmap`. A size "or 0" is 0 where nobody wants the array.
template <typename T, bool kBack>
constexpr auto kArrays = std::tuple{
    &Layer<T>::c0,                                // (B, H)
    &Layer<T>::weight_ih, &Layer<T>::weight_hh,   // (F, 4H), (H, 4H)
    &Layer<T>::bias_ih, &Layer<T>::bias_hh,       // (4H), (4H)
    &Layer<T>::saved, &Layer<T>::hidden_states,   // (B, T or 0, 6 (padded H + 16)), (B, T or 0, H)
    &Layer<T>::h, &Layer<T>::c};                  // (B, H), (B, H)
template <typename T>
constexpr auto kArrays<T, true> = std::tuple{
    &Layer<T>::c0, &Layer<T>::weight_ih, &Layer<T>::weight_hh, &Layer<T>::saved,
    &Layer<T>::d_hidden_states, &Layer<T>::d_h, &Layer<T>::d_c,
    &Layer<T>::d_weight_ih, &Layer<T>::d_weight_hh, &Layer<T>::d_bias,
    &Layer<T>::d_inputs, &Layer<T>::d_h0,         // (B, T or 0, F), (B or 0, H)
    &Layer<T>::d_c0};

// Point the layer of each model to the model's parts of all arrays, and run a pass.
template <typename T, bool kBack, typename... Arrays>
ffi::Error handle(ffi::ThreadPool pool, bool reverse, bool share, Buffer<T> inputs, Buffer<T> h0,
                  Arrays... arrays) try {
  // The last result (B, H) has all axes of `vmap`.
  const auto shape = std::get<sizeof...(arrays) - 1>(std::tie(arrays...))->dimensions();
  const std::vector<Index> axes(shape.begin(), shape.end() - 2);
  const Index models = std::accumulate(axes.begin(), axes.end(), Index{1}, std::multiplies<>());
  std::vector<Layer<T>> layers(models);
  for (Index model = 0; model < models; model++) {
    Layer<T>& layer = layers[model];
    const auto sizes = inputs.dimensions().last(3);
    layer.batch = sizes[0], layer.steps = sizes[1], layer.features = sizes[2];
    layer.hidden = h0.dimensions().back();
    layer.reverse = reverse;
    layer.inputs = part<T>(axes, inputs, model), layer.h0 = part<T>(axes, h0, model);
    const auto point = [&](auto... member) {
      ((layer.*member = part<T>(axes, arrays, model)), ...);
    };
    std::apply(point, kArrays<T, kBack>);
    if (!kBack && layer.saved) advise_large_pages(layer.saved, layer.saved_size());
    layer.dense = !finite(layer.weight_ih, layer.features * 4 * layer.hidden) ||
                  !finite(layer.weight_hh, layer.hidden * 4 * layer.hidden);
    const auto zeros = [count = layer.batch * layer.hidden](const T* x) {
      int found = 0;  // As in `finite`.
      for (Index i = 0; i < count; i++) found |= x[i] != 0;
      return found == 0;
    };
    layer.zeros = !layer.dense && zeros(layer.h0);
    layer.share = share && layer.zeros && zeros(layer.c0);
  }
  if (!layers.empty()) run(pool, layers, kBack);
  return ffi::Error::Success();
} catch (const std::bad_alloc&) {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                    "RESOURCE_EXHAUSTED: no memory for the LSTM");
}

// The handler of a pass, from a binding that still lacks arguments and results.
template <typename T, bool kBack, int kArguments, int kResults, typename Binding>
auto bind(Binding binding) {
  if constexpr (kArguments > 0) {
    return bind<T, kBack, kArguments - 1, kResults>(std::move(binding).template Arg<Buffer<T>>());
  } else if constexpr (kResults > 0) {
    return bind<T, kBack, 0, kResults - 1>(std::move(binding).template Ret<Buffer<T>>());
  } else {
    return std::move(binding).To([](auto... all) { return handle<T, kBack>(all...); }).release();
  }
}

}  // namespace
}  // namespace lstm

// The library shows only these names.
#define VISIBLE extern "C" __attribute__((visibility("default")))
#define HANDLER(name, T, is_backward, arguments, results)                                  \
  VISIBLE XLA_FFI_Error* name(XLA_FFI_CallFrame* frame) {                                  \
    static const auto* const handler = lstm::bind<T, is_backward, arguments, results>(     \
        xla::ffi::Ffi::Bind().Ctx<xla::ffi::ThreadPool>().Attr<bool>("reverse").Attr<bool>( \
            "share"));                                                                     \
    return handler->Call(frame);                                                           \
  }

HANDLER(rnn_mnist_lstm_forward_float32, float, false, 7, 4)
HANDLER(rnn_mnist_lstm_forward_float64, double, false, 7, 4)
HANDLER(rnn_mnist_lstm_backward_float32, float, true, 9, 6)
HANDLER(rnn_mnist_lstm_backward_float64, double, true, 9, 6)

// Python searches the library for this digest of the sources that it was compiled from.
VISIBLE const char* rnn_mnist_lstm_sources() { return LSTM_SOURCES; }

VISIBLE const char* rnn_mnist_lstm_level() { return lstm::choose_level().name; }
