// What XLA calls: the LSTM's forward and backward pass, shared among the threads of XLA's pool.
//
// This file is compiled once, with LSTM_X86 where layout.h and arithmetic.cc are also compiled for
// AVX2 and AVX-512, and with LSTM_SOURCES, a digest of all source files.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "layout.h"
#include "xla/ffi/api/ffi.h"

namespace lstm {

namespace baseline {
extern const Level level;
}
namespace avx2 {
extern const Level level;
}
namespace avx512 {
extern const Level level;
}

namespace {

namespace ffi = xla::ffi;

template <typename T>
using Buffer = ffi::Buffer<sizeof(T) == 4 ? ffi::F32 : ffi::F64>;
template <typename T>
using Result = ffi::Result<Buffer<T>>;

// ------------------------------------------------------------------------- instruction sets

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

const Level& level() {
  static const Level& chosen = choose_level();
  return chosen;
}

// ---------------------------------------------------------------------------------- threads

// Threads that are worth waking: only one for what takes less than about 10 us.
template <typename T>
Index count_workers(const ffi::ThreadPool& pool, const Layer<T>& layer, Index models) {
  const double products =
      1.0 * layer.batch * layer.steps * layer.columns() * (layer.features + layer.hidden);
  if (products * models < 3e5) return 1;
  return std::max<Index>(1, std::min<Index>(layer.tiles() * models, pool.num_threads()));
}

// Call f(item, worker) for all items, on this thread and on those of the pool that are free.
//
// This thread takes items too. At the end it waits only for items that another thread has begun: if
// there are several CPU devices, the callers are the pool's own threads, and no thread is left to
// begin others.
template <typename F>
void spread(ffi::ThreadPool& pool, Index items, Index workers, const F& f) noexcept {
  struct Shared {
    std::atomic<Index> next{0}, done{0};
  };
  const auto shared = std::make_shared<Shared>();
  const auto work = [shared, items, &f](Index worker) {
    for (Index item; (item = shared->next.fetch_add(1)) < items;) {  // Until then, f exists.
      f(item, worker);
      shared->done.fetch_add(1, std::memory_order_release);
    }
  };
  for (Index worker = 1; worker < std::min(workers, items); worker++) {
    pool.Schedule([work, worker] { work(worker); });
  }
  work(0);
  while (shared->done.load(std::memory_order_acquire) < items) std::this_thread::yield();
}

// --------------------------------------------------------------------------------- arguments

// The models of a `vmap`. Their axes come first in every array. Where all models along an axis
// share an array, its size there is 1.
class Models {
 public:
  // From the shape of an array that has two axes without `vmap`, and differs for all models.
  explicit Models(ffi::AnyBuffer::Dimensions shape) : axes_(shape.begin(), shape.end() - 2) {}

  Index count() const {
    Index count = 1;
    for (Index size : axes_) count *= size;
    return count;
  }

  // A model's part of an array.
  template <typename B>
  auto* part(const B& buffer, Index model) const {
    const auto shape = buffer.dimensions();
    Index stride = 1, offset = 0;
    for (std::size_t axis = axes_.size(); axis < shape.size(); axis++) stride *= shape[axis];
    for (std::size_t axis = axes_.size(); axis-- > 0; model /= axes_[axis]) {
      if (shape[axis] != 1) offset += model % axes_[axis] * stride;
      stride *= shape[axis];
    }
    return buffer.typed_data() + offset;
  }

  // The same, or null for an array without elements, which nobody wants.
  template <typename B>
  auto* wanted(const B& buffer, Index model) const {
    return buffer.element_count() ? part(buffer, model) : nullptr;
  }

 private:
  std::vector<Index> axes_;
};

template <typename T>
bool finite(const T* x, Index count) {
  int found = 0;  // Compilers make vectors of a number, but not of a bool.
  for (Index i = 0; i < count; i++) found |= !(std::abs(x[i]) <= std::numeric_limits<T>::max());
  return found == 0;
}

// The layers of all models, with the sizes and arguments that both passes have.
template <typename T>
std::vector<Layer<T>> make_layers(const Models& models, bool reverse, const Buffer<T>& weight_ih,
                                  const Buffer<T>& weight_hh, const Buffer<T>& inputs,
                                  const Buffer<T>& h0, const Buffer<T>& c0) {
  std::vector<Layer<T>> layers(models.count());
  for (Index model = 0; model < models.count(); model++) {
    Layer<T>& layer = layers[model];
    const auto sizes = inputs.dimensions().last(3);
    layer.batch = sizes[0], layer.steps = sizes[1], layer.features = sizes[2];
    layer.hidden = h0.dimensions().back();
    layer.reverse = reverse;
    layer.weight_ih = models.part(weight_ih, model);
    layer.weight_hh = models.part(weight_hh, model);
    layer.inputs = models.part(inputs, model);
    layer.h0 = models.part(h0, model), layer.c0 = models.part(c0, model);
    layer.dense = !finite(layer.weight_ih, layer.features * 4 * layer.hidden) ||
                  !finite(layer.weight_hh, layer.hidden * 4 * layer.hidden);
    layer.zeros = !layer.dense && std::all_of(layer.h0, layer.h0 + layer.batch * layer.hidden,
                                              [](T x) { return x == 0; });
  }
  return layers;
}

// --------------------------------------------------------------------------------- handlers

// A cache line, so that arrays of lines begin one.
struct alignas(64) Line {
  char bytes[64];
};

// Run one pass of all models.
template <typename T>
void run(ffi::ThreadPool& pool, std::vector<Layer<T>>& layers, bool backward) {
  const Layer<T>& first = layers[0];
  const Index models = layers.size(), tiles = first.tiles(), rows = first.weight_rows();
  const Index workers = count_workers(pool, first, models);
  const Index packed_size = first.packed_size(), scratch_size = first.scratch_size();
  const Index partial_size = backward ? tiles * rows * first.columns() : 0;
  const Index size = models * (packed_size + partial_size) + workers * scratch_size;
  const std::unique_ptr<Line[]> lines(new Line[divide_up(size * sizeof(T), sizeof(Line))]);
  T* const packed = reinterpret_cast<T*>(lines.get());
  T* const partial = packed + models * packed_size;
  T* const scratch = partial + models * partial_size;
  const Routines<T>& routines =
      std::get<Routines<T>>((sizeof(T) == 4 ? level() : baseline::level).routines);
  spread(pool, models, workers, [&](Index model, Index) {
    Layer<T>& layer = layers[model];
    layer.packed_ih = packed + model * packed_size;
    layer.packed_hh = layer.packed_ih + layer.packed_ih_size();
    layer.packed_bias = layer.packed_hh + layer.packed_hh_size();
    layer.partial = partial + model * partial_size;
    (backward ? routines.pack_backward : routines.pack_forward)(layer);
  });
  spread(pool, models * tiles, workers, [&](Index item, Index worker) {
    const auto pass = backward ? routines.backward : routines.forward;
    pass(layers[item / tiles], item % tiles, scratch + worker * scratch_size);
  });
  if (!backward) return;
  // One small network's gradients are added up before another thread is awake.
  spread(pool, models * rows, models == 1 && first.small() ? 1 : workers,
         [&](Index item, Index) { routines.add_up(layers[item / rows], item % rows); });
}

ffi::Error no_memory() {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                    "RESOURCE_EXHAUSTED: no memory for the LSTM");
}

// Shapes are without the axes of `vmap`. A size "or 0" is 0 where nobody wants the array.
template <typename T>
ffi::Error forward(ffi::ThreadPool pool,
                   Buffer<T> weight_ih,      // (F, 4H)
                   Buffer<T> weight_hh,      // (H, 4H)
                   Buffer<T> bias_ih,        // (4H)
                   Buffer<T> bias_hh,        // (4H)
                   Buffer<T> inputs,         // (B, T, F)
                   Buffer<T> h0,             // (B, H)
                   Buffer<T> c0,             // (B, H)
                   Result<T> hidden_states,  // (B, T or 0, H)
                   Result<T> h,              // (B, H)
                   Result<T> c,              // (B, H)
                   Result<T> saved,          // (B, T or 0, 6 (padded H + 16))
                   bool reverse) try {
  if (h->element_count() == 0) return ffi::Error::Success();
  const Models models(h->dimensions());
  auto layers = make_layers<T>(models, reverse, weight_ih, weight_hh, inputs, h0, c0);
  for (Index model = 0; model < models.count(); model++) {
    Layer<T>& layer = layers[model];
    layer.bias_ih = models.part(bias_ih, model), layer.bias_hh = models.part(bias_hh, model);
    layer.hidden_states = models.wanted(*hidden_states, model);
    layer.h = models.part(*h, model), layer.c = models.part(*c, model);
    layer.saved = models.wanted(*saved, model);
  }
  run(pool, layers, false);
  return ffi::Error::Success();
} catch (const std::bad_alloc&) {
  return no_memory();
}

// Gradients have the shapes of the arrays that they belong to, or 0 in place of B or T.
template <typename T>
ffi::Error backward(ffi::ThreadPool pool, Buffer<T> weight_ih, Buffer<T> weight_hh,
                    Buffer<T> inputs, Buffer<T> h0, Buffer<T> c0, Buffer<T> saved,
                    Buffer<T> d_hidden_states, Buffer<T> d_h, Buffer<T> d_c, Result<T> d_weight_ih,
                    Result<T> d_weight_hh, Result<T> d_bias, Result<T> d_inputs, Result<T> d_h0,
                    Result<T> d_c0, bool reverse) try {
  const Models models(d_c0->dimensions());
  if (models.count() == 0) return ffi::Error::Success();
  auto layers = make_layers<T>(models, reverse, weight_ih, weight_hh, inputs, h0, c0);
  for (Index model = 0; model < models.count(); model++) {
    Layer<T>& layer = layers[model];
    layer.saved = models.part(saved, model);
    layer.d_hidden_states = models.wanted(d_hidden_states, model);
    layer.d_h = models.part(d_h, model), layer.d_c = models.part(d_c, model);
    layer.d_weight_ih = models.part(*d_weight_ih, model);
    layer.d_weight_hh = models.part(*d_weight_hh, model);
    layer.d_bias = models.part(*d_bias, model);
    layer.d_inputs = models.wanted(*d_inputs, model);
    layer.d_h0 = models.wanted(*d_h0, model), layer.d_c0 = models.part(*d_c0, model);
  }
  run(pool, layers, true);
  return ffi::Error::Success();
} catch (const std::bad_alloc&) {
  return no_memory();
}

// A binding that takes some arrays and gives some arrays.
template <typename T, int kArguments, int kResults, typename Binding>
auto bind(Binding binding) {
  if constexpr (kArguments > 0) {
    return bind<T, kArguments - 1, kResults>(std::move(binding).template Arg<Buffer<T>>());
  } else if constexpr (kResults > 0) {
    return bind<T, 0, kResults - 1>(std::move(binding).template Ret<Buffer<T>>());
  } else {
    return std::move(binding).template Attr<bool>("reverse");
  }
}

}  // namespace
}  // namespace lstm

// The library shows only these names.
#define VISIBLE extern "C" __attribute__((visibility("default")))
#define HANDLER(name, run, T, arguments, results)                    \
  VISIBLE XLA_FFI_Error* name(XLA_FFI_CallFrame*);                   \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(                                     \
      name, lstm::run<T>, (lstm::bind<T, arguments, results>(        \
                              xla::ffi::Ffi::Bind().Ctx<xla::ffi::ThreadPool>())))

HANDLER(rnn_mnist_lstm_forward_float32, forward, float, 7, 4);
HANDLER(rnn_mnist_lstm_forward_float64, forward, double, 7, 4);
HANDLER(rnn_mnist_lstm_backward_float32, backward, float, 9, 6);
HANDLER(rnn_mnist_lstm_backward_float64, backward, double, 9, 6);

// Python searches the library for this digest of the sources that it was compiled from.
VISIBLE const char* rnn_mnist_lstm_sources() { return LSTM_SOURCES; }

VISIBLE const char* rnn_mnist_lstm_level() { return lstm::level().name; }
