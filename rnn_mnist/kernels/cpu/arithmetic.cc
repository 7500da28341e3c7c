// The arithmetic of an LSTM layer in vectors: all steps of a tile, forward and backward.
//
// This file is compiled once for each instruction set, with LSTM_LEVEL (its name), LSTM_BYTES (of a
// vector) and LSTM_COLUMNS (the vectors of sums that a row has in registers). LSTM_FLOAT64 adds
// float64.

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "layout.h"

#define INLINED __attribute__((always_inline))

namespace lstm::LSTM_LEVEL {
namespace {

template <typename T, int N>
struct VectorOf {
  typedef T type __attribute__((vector_size(N * sizeof(T))));
};
template <typename T>
using Vector = typename VectorOf<T, kLanes<T>>::type;
template <typename T>
using Bits = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;

template <typename V, typename T>
INLINE V load(const T* from) {
  V vector;
  std::memcpy(&vector, from, sizeof vector);
  return vector;
}

template <typename T, typename V>
INLINE void store(T* to, V vector) {
  std::memcpy(to, &vector, sizeof vector);
}

// exp(kSign x) + kAdd, so exact that sigmoid and tanh are within 3 ulp, or within 5.5 ulp where
// sigmoid is below 1e-7. Adding a large number rounds the exponent to an integer in the sum's last
// bits; a polynomial (minimax on |r| <= ln(2) / 2) gives the rest. Beyond the bounds, sigmoid and
// tanh have reached 0 and 1. NaN stays NaN.
template <typename T, int kSign, int kAdd, typename V>
INLINE V exp_plus(V x) {
  if constexpr (sizeof(T) == 8) {  // For tests: exact rather than fast.
    for (int lane = 0; lane < kLanes<T>; lane++)
      x[lane] = std::expm1(kSign * x[lane] > 700 ? 700 : kSign * x[lane]);
    return x + (kAdd + 1);
  } else {
    typedef std::uint32_t Unsigned __attribute__((vector_size(sizeof(V))));
    const V least = V{} - 87, most = V{} + 87;
#ifdef __AVX__  // GCC does not use these instructions by itself.
    asm("vmaxps %1, %2, %0" : "=v"(x) : "v"(x), "v"(least));
    asm("vminps %1, %2, %0" : "=v"(x) : "v"(x), "v"(most));
#else
    x = x < least ? least : x;
    x = x > most ? most : x;
#endif
    const V shifted = x * (kSign * 1.44269504f) + 12582912.0f, n = shifted - 12582912.0f;
#ifdef __FP_FAST_FMAF
    const V r = kSign * x - n * 0.693147182f;
#else  // Without fused products, subtract ln(2) in two parts; the product with the first is exact.
    const V r = kSign * x - n * 0.693359375f + n * 2.12194440e-4f;
#endif
    V p = r * 0.00138825155f + 0.00836654752f;
    p = p * r + 0.0416672006f;
    p = p * r + 0.166665435f;
    p = p * r + 0.49999997f;
    p = p * (r * r) + r;
    const V power = reinterpret_cast<V>((reinterpret_cast<Unsigned>(shifted) << 23) + 0x3f800000);
    return power * p + (power + kAdd);  // For kAdd = -1 and n = 0 this is p, exact near zero.
  }
}

template <typename T>
INLINE Vector<T> sigmoid(Vector<T> x) {
  return 1 / exp_plus<T, -1, 1>(x);
}

template <typename T>
INLINE Vector<T> tanh(Vector<T> x) {
  const Vector<T> e = exp_plus<T, 1, -1>(2 * x);
  return e / (e + 2);
}

// The lanes of a, followed by those of b, in another order.
template <typename T, int... kLane>
INLINE Vector<T> shuffle(Vector<T> a, Vector<T> b) {
#ifdef __clang__
  return __builtin_shufflevector(a, b, kLane...);
#else
  return __builtin_shuffle(a, b, typename VectorOf<Bits<T>, kLanes<T>>::type{kLane...});
#endif
}

template <int kCount>
using Integers = std::make_integer_sequence<int, kCount>;

// Transpose four vectors of four blocks of lanes. The first step takes the first and third blocks
// of two vectors, and the second and fourth. The second step takes the first halves of two such
// vectors, and the second halves.
template <typename T, int... kLane>
INLINE void transpose(Vector<T>& a, Vector<T>& b, Vector<T>& c, Vector<T>& d,
                      std::integer_sequence<int, kLane...>) {
  constexpr int W = kLanes<T>, U = W / 4;
  const auto blocks = [](auto x, auto y, auto at) INLINED {
    return shuffle<T, (at.value + kLane / U / 2 * 2 * U + kLane % U + kLane / U % 2 * W)...>(x, y);
  };
  const auto halves = [](auto x, auto y, auto at) INLINED {
    return shuffle<T, (at.value + kLane / U % 2 * U + kLane % U + kLane / U / 2 * W)...>(x, y);
  };
  constexpr std::integral_constant<int, 0> start;
  constexpr std::integral_constant<int, U> block;
  constexpr std::integral_constant<int, 2 * U> half;
  const Vector<T> ab02 = blocks(a, b, start), ab13 = blocks(a, b, block);
  const Vector<T> cd02 = blocks(c, d, start), cd13 = blocks(c, d, block);
  a = halves(ab02, cd02, start), b = halves(ab13, cd13, start);
  c = halves(ab02, cd02, half), d = halves(ab13, cd13, half);
}
template <typename T>
INLINE void transpose(Vector<T>& a, Vector<T>& b, Vector<T>& c, Vector<T>& d) {
  transpose<T>(a, b, c, d, Integers<kLanes<T>>());
}

// Call f with `value`, which is between 1 and kMost, as a constant.
template <int kMost, typename F>
INLINE void constant(Index value, F f) {
  if constexpr (kMost > 1) {
    if (value < kMost) return constant<kMost - 1>(value, f);
  }
  f(std::integral_constant<int, kMost>());
}

// Call f(first, rows, vectors) for each group of rows, the last two as constants. With one vector,
// a group has up to kNarrow rows, as a processor needs about ten sums that do not wait for others.
template <int kNarrow = kGroup, typename F>
INLINE void for_groups(Index rows, Index vectors, F f) {
  constant<LSTM_COLUMNS>(vectors, [&](auto vectors) INLINED {
    constexpr int kMost = vectors.value == 1 ? kNarrow : kGroup;
    for (Index first = 0; first < rows; first += kMost) {
      constant<kMost>(rows - first < kMost ? rows - first : kMost,
                      [&](auto group) INLINED { f(first, group, vectors); });
    }
  });
}

// Sums of M rows over N vectors of columns, in registers.
template <typename T, int M, int N>
struct Sums {
  using V = Vector<T>;
  static constexpr int W = kLanes<T>;
  V sum[M][N];

  // From rows in memory, or zeros.
  INLINE Sums(const T* from, Index stride) {
    for (int m = 0; m < M; m++) {
      for (int v = 0; v < N; v++) sum[m][v] = from ? load<V>(from + m * stride + v * W) : V{};
    }
  }

  INLINE void write(T* to, Index stride) const {
    for (int m = 0; m < M; m++) {
      for (int v = 0; v < N; v++) store(to + m * stride + v * W, sum[m][v]);
    }
  }

  // Add a @ weights over some columns of a. Its rows and columns have strides.
  INLINE void add(const T* a, Index row, Index column, Index begin, Index end, const T* weights) {
    for (Index k = begin; k < end; k++) {
      V weight[N];
      for (int v = 0; v < N; v++) weight[v] = load<V>(weights + (k * N + v) * W);
      for (int m = 0; m < M; m++) {
        for (int v = 0; v < N; v++) sum[m][v] += a[m * row + k * column] * weight[v];
      }
    }
  }
};

// Products of rows with packed weights: out = bias + what add(sums, first, at) adds to the sums of
// the group of rows that begins with `first`, for the block of columns that begins with `at`.
//
// Rows of `out` may be shorter than their vectors, and padding is stored over what follows. The
// order of rows and blocks puts the values there later. Room for a vector must follow `out`.
template <typename T, int kNarrow = kGroup, typename F>
INLINE void multiply(Index rows, const Columns<T>& columns, const T* bias, T* out, Index stride,
                     F add) {
  for (Index block = columns.blocks - 1; block >= 0; block--) {
    const Index begin = columns.begin(block), at = begin * kLanes<T>;
    const Index vectors = columns.begin(block + 1) - begin;
    for_groups<kNarrow>(rows, vectors, [&](Index first, auto m, auto n) INLINED {
      Sums<T, m.value, n.value> sums(bias ? bias + at : nullptr, 0);
      add(sums, first, at);
      sums.write(out + first * stride + at, stride);
    });
  }
}

// The kUnit-th lane of each of four blocks, in all lanes of its block.
template <typename T, int kUnit, int... kLane>
INLINE Vector<T> repeat_unit(Vector<T> x, std::integer_sequence<int, kLane...>) {
  constexpr int U = kLanes<T> / 4;
  return shuffle<T, (kLane / U * U + kUnit)...>(x, x);
}

// The sum of four blocks of lanes, in each block.
template <typename T, int... kLane>
INLINE Vector<T> add_blocks(Vector<T> x, std::integer_sequence<int, kLane...>) {
  constexpr int W = kLanes<T>;
  x += shuffle<T, ((kLane + W / 2) % W)...>(x, x);
  return x + shuffle<T, ((kLane + W / 4) % W)...>(x, x);
}

// The last columns of a product of M rows of gates with packed weights. They fill a quarter of a
// vector. The other lanes are the same columns for other gates, and are added up at the end.
template <typename T, int M, int... kUnit>
INLINE void multiply_last(const T* d_gates, Index width, const T* packed, T* out, Index stride,
                          std::integer_sequence<int, kUnit...>) {
  using V = Vector<T>;
  constexpr int W = kLanes<T>, U = W / 4;
  constexpr Integers<W> lanes;
  V sum[M]{};
  for (Index at = 0; at < width; at += W, packed += U * W) {
    const auto add = [&](auto unit) INLINED {
      const V weight = load<V>(packed + unit.value * W);
      for (int m = 0; m < M; m++) {
        const V gates = load<V>(d_gates + m * width + at);
        sum[m] += repeat_unit<T, unit.value>(gates, lanes) * weight;
      }
    };
    (add(std::integral_constant<int, kUnit>()), ...);
  }
  for (int m = 0; m < M; m++) {
    const V all = add_blocks<T>(sum[m], lanes);
    std::memcpy(out + m * stride, &all, U * sizeof(T));
  }
}

// A tile's gradients of gates times packed weights.
template <typename T>
void multiply_gates(Index rows, const T* d_gates, Index width, const T* packed, Index columns,
                    T* out) {
  constexpr int kNarrow = 2 * kGroup;
  const Index last = last_columns<T>(columns), full = columns - last;
  if (last) {  // Before the others, as in `multiply`.
    for_groups<kNarrow>(rows, 1, [&](Index first, auto m, auto) INLINED {
      multiply_last<T, m.value>(d_gates + first * width, width, packed + full * width,
                                out + first * columns + full, columns, Integers<kLanes<T> / 4>());
    });
  }
  const auto add = [&](auto& sums, Index first, Index at) INLINED {
    sums.add(d_gates + first * width, width, 1, 0, width, packed + width * at);
  };
  multiply<T, kNarrow>(rows, Columns<T>(full), nullptr, out, columns, add);
}

// Features from `begin`, without `end`.
struct Range {
  std::int32_t begin, end;
};

// One bit for each lane that is not zero.
template <typename V>
INLINE std::uint32_t nonzero_lanes(V x) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask(reinterpret_cast<__m512i>(x), reinterpret_cast<__m512i>(x));
#elif defined(__AVX2__)
  return _mm256_movemask_ps(reinterpret_cast<__m256>(x != 0));
#else
  std::uint32_t bits = 0;
  for (std::size_t lane = 0; lane < sizeof x / sizeof x[0]; lane++) bits |= (x[lane] != 0) << lane;
  return bits;
#endif
}

// The features from the first to the last that is not zero in all of the rows. The rows that are
// `ahead` are fetched, which the processor does not do by itself.
template <typename T>
INLINE Range find_features(const Layer<T>& layer, const T* x, Index rows, Index stride,
                           Index ahead) {
  using V = typename VectorOf<Bits<T>, kLanes<T>>::type;
  constexpr int W = kLanes<T>;
  const auto features = static_cast<std::int32_t>(layer.features);
  if (layer.dense || features < W) return {0, features};
  Range range{features, 0};
  for (std::int32_t at = 0; at < features; at += W) {
    const std::int32_t from = at + W <= features ? at : features - W;
    V bits{};
    for (Index m = 0; m < rows; m++) {
      bits |= load<V>(x + m * stride + from);
      __builtin_prefetch(x + m * stride + ahead + from);
    }
    // Without branches, because the processor could not predict them.
    const std::uint32_t found = nonzero_lanes(bits << 1);  // Without the sign.
    const std::int32_t first = found ? from + std::countr_zero(found) : features;
    const std::int32_t last = found ? from + 32 - std::countl_zero(found) : 0;
    range.begin = first < range.begin ? first : range.begin;
    range.end = last > range.end ? last : range.end;
  }
  return range.begin < range.end ? range : Range{0, 0};
}

// The first steps in which no row of a tile has any input. The last step is not counted.
//
// If the carry is zero, too, all rows have the same state after these steps.
template <typename T>
Index steps_without_input(const Layer<T>& layer, Index tile) {
  const Index steps = layer.steps, features = layer.features, stride = steps * features;
  const T* first = layer.inputs + tile * layer.tile_rows() * stride;
  for (Index step = 0; layer.share && step + 1 < steps; step++) {
    const T* x = first + (layer.reverse ? steps - 1 - step : step) * features;
    int found = 0;  // Compilers make vectors of a number, but not of a bool.
    for (Index m = 0; m < layer.rows_of(tile); m++, x += stride) {
      for (Index k = 0; k < features; k++) found |= x[k] != 0;
    }
    if (found) return step;
  }
  return layer.share ? steps - 1 : 0;
}

// Give all rows the values of the first one.
template <typename T>
void repeat_row(Index rows, Index size, T* values) {
  for (Index m = 1; m < rows; m++) std::memcpy(values + m * size, values, size * sizeof(T));
}

// Put the sum of all rows into the first one.
template <typename T>
void add_rows(Index rows, Index size, T* values) {
  for (Index m = 1; m < rows; m++) {
    for (Index i = 0; i < size; i++) values[i] += values[m * size + i];
  }
}

// The cells of a tile after one step: new c and h, and saved values, if they are wanted.
//
// tanh(c) has a loop of its own: a processor overlaps short iterations better than long ones.
template <typename T>
INLINE void update_cells(Index vectors, const T* gates, T* c, T* h, T* saved) {
  using V = Vector<T>;
  constexpr Index W = kLanes<T>;
  for (Index v = 0; v < vectors; v++) {
    const T* at = gates + 4 * v * W;
    V i = load<V>(at), f = load<V>(at + W), g = load<V>(at + 2 * W), o = load<V>(at + 3 * W);
    transpose<T>(i, f, g, o);
    i = sigmoid<T>(i), f = sigmoid<T>(f), g = tanh<T>(g), o = sigmoid<T>(o);
    const V cell = f * load<V>(c + v * W) + i * g;
    store(c + v * W, cell);
    store(h + v * W, o);
    if (saved) {
      T* to = saved + 6 * v * W;
      store(to, i), store(to + W, f), store(to + 2 * W, g), store(to + 3 * W, o);
      store(to + 4 * W, cell);
    }
  }
  for (Index v = 0; v < vectors; v++) {
    const V tanh_cell = tanh<T>(load<V>(c + v * W));
    store(h + v * W, load<V>(h + v * W) * tanh_cell);
    if (saved) store(saved + (6 * v + 5) * W, tanh_cell);
  }
}

// All steps of a tile. One row stands for all during the steps without input.
template <typename T>
void forward(const Layer<T>& layer, Index tile, T* scratch) {
  const Index steps = layer.steps, features = layer.features, hidden = layer.hidden;
  const Index padded = layer.padded(), width = layer.columns(), stride = steps * features;
  const Index from = tile * layer.tile_rows(), all = layer.rows_of(tile);
  const Index units = round_up(all * padded, kLanes<T>);
  const Index shared = steps_without_input(layer, tile);
  const Columns<T> columns(width);
  T *gates = scratch, *h = gates + 4 * units, *c = h + units;
  auto* ranges = reinterpret_cast<Range*>(c + units);  // Of each group.
  std::memset(gates, 0, 4 * units * sizeof(T));
  widen(layer, layer.h0 + from * hidden, all, h);
  widen(layer, layer.c0 + from * hidden, all, c);

  for (Index step = 0; step < steps; step++) {
    if (shared && step == shared) repeat_row(all, padded, h), repeat_row(all, padded, c);
    const Index rows = step < shared ? 1 : all, vectors = divide_up(rows * padded, kLanes<T>);
    const Index t = layer.reverse ? steps - 1 - step : step;
    const T* x = layer.inputs + (from * steps + t) * features;
    const Index read = step == 0 && layer.zeros ? 0 : hidden;
    for (Index first = 0; first < rows; first += kGroup) {
      const Index group = rows - first < kGroup ? rows - first : kGroup;
      ranges[first / kGroup] = find_features(layer, x + first * stride, group, stride,
                                             layer.reverse ? -features : features);
    }
    const auto add = [&](auto& sums, Index first, Index at) INLINED {
      const auto [begin, end] = ranges[first / kGroup];
      sums.add(x + first * stride, stride, 1, begin, end, layer.packed_ih + features * at);
      sums.add(h + first * padded, padded, 1, 0, read, layer.packed_hh + hidden * at);
    };
    multiply<T>(rows, columns, layer.packed_bias, gates, width, add);
    T* saved = layer.saved ? layer.saved + layer.saved_before(tile) + step * 6 * units : nullptr;
    update_cells(vectors, gates, c, h, saved);
    if (layer.hidden_states) {
      T* to = layer.hidden_states + (from * steps + t) * hidden;
      copy_rows(all, hidden, h, step < shared ? 0 : padded, to, steps * hidden);
    }
  }
  copy_rows(all, hidden, h, padded, layer.h + from * hidden, hidden);
  copy_rows(all, hidden, c, padded, layer.c + from * hidden, hidden);
}

// The gradients of a tile's gates in one step, the gradient of c before it, and h before it. `now`
// and `before` are saved values of this step and of the step before. The first step has none before
// it, but c0.
template <typename T>
INLINE void cell_gradients(Index vectors, const T* now, const T* before, const T* c0, const T* d_h,
                           T* d_c, T* d_gates, T* h) {
  using V = Vector<T>;
  constexpr Index W = kLanes<T>;
  for (Index v = 0; v < vectors; v++, now += 6 * W, d_gates += 4 * W) {
    const T* last = before + 6 * v * W;
    const V i = load<V>(now), f = load<V>(now + W), g = load<V>(now + 2 * W);
    const V o = load<V>(now + 3 * W), tanh_cell = load<V>(now + 5 * W);
    const V c = before ? load<V>(last + 4 * W) : load<V>(c0 + v * W), d = load<V>(d_h + v * W);
    const V d_cell = load<V>(d_c + v * W) + d * o * (1 - tanh_cell * tanh_cell);
    V d_i = d_cell * g * i * (1 - i), d_f = d_cell * c * f * (1 - f);
    V d_g = d_cell * i * (1 - g * g), d_o = d * tanh_cell * o * (1 - o);
    store(d_c + v * W, d_cell * f);
    transpose<T>(d_i, d_f, d_g, d_o);
    store(d_gates, d_i), store(d_gates + W, d_f);
    store(d_gates + 2 * W, d_g), store(d_gates + 3 * W, d_o);
    if (before) store(h + v * W, load<V>(last + 3 * W) * load<V>(last + 5 * W));
  }
}

// What a window's rows read, and the gradients of the weights that it meets.
template <typename T>
struct Read {
  const T* a;
  Index stride, columns;
  T* d_weights;
};

// Add a window's products a.T @ d_gates to a tile's gradients. `panel` is working memory.
template <typename T>
void add_window(Index rows, const T* d_gates, Index width, T* panel, const Read<T> (&reads)[3]) {
  const Columns<T> blocks(width);
  for (Index block = 0; block < blocks.blocks; block++) {
    const Index begin = blocks.begin(block), vectors = blocks.begin(block + 1) - begin;
    const Index at = begin * kLanes<T>, size = vectors * kLanes<T>;
    // Rows that are a power of two apart evict each other from the cache.
    if (size < width) copy_rows(rows, size, d_gates + at, width, panel, size);
    for (const Read<T>& read : reads) {
      for_groups(read.columns, vectors, [&](Index first, auto m, auto n) INLINED {
        T* out = read.d_weights + first * width + at;
        Sums<T, m.value, n.value> sums(out, width);
        sums.add(read.a + first, 1, read.stride, 0, rows, size < width ? panel : d_gates);
        sums.write(out, width);
      });
    }
  }
}

// A row's c and h after a step, from what the step saved of this row alone.
template <typename T>
void saved_carry(Index size, const T* saved, T* c, T* h) {
  constexpr Index W = kLanes<T>;
  for (Index unit = 0; unit < size; unit++) {
    const T* at = saved + unit / W * 6 * W + unit % W;
    c[unit] = at[4 * W], h[unit] = at[3 * W] * at[5 * W];
  }
}

// All steps of a tile, from the last to the first. During the steps without input, one row has the
// sum of all rows' gradients: the rows have the same state, and gradients are linear.
template <typename T>
void backward(const Layer<T>& layer, Index tile, T* scratch) {
  constexpr Index W = kLanes<T>;
  const Index steps = layer.steps, features = layer.features, hidden = layer.hidden;
  const Index padded = layer.padded(), width = layer.columns();
  const Index from = tile * layer.tile_rows(), all = layer.rows_of(tile);
  const Index units = round_up(all * padded, W), shared = steps_without_input(layer, tile);
  const Index window = layer.window(), most = window * all;  // In steps and in rows.
  T *d_gates = scratch, *h = d_gates + 4 * window * units, *d_h = h + window * units;
  T *d_c = d_h + units + W, *c0 = d_c + units, *x = c0 + units, *d_x = x + most * features;
  T *panel = d_x + all * features + W;
  T* partial = layer.partial + tile * layer.weight_rows() * width;
  std::memset(partial, 0, layer.weight_rows() * width * sizeof(T));
  const T one = 1;
  widen(layer, layer.d_h + from * hidden, all, d_h);
  widen(layer, layer.d_c + from * hidden, all, d_c);

  Index kept = 0;  // Rows in the window.
  for (Index step = steps - 1; step >= 0; step--) {
    const Index rows = step < shared ? 1 : all, vectors = divide_up(rows * padded, W);
    const Index t = layer.reverse ? steps - 1 - step : step, at = from * steps + t;
    if (step + 1 == shared) add_rows(all, padded, d_h), add_rows(all, padded, d_c);
    for (Index m = 0; m < all && layer.d_hidden_states; m++) {
      const T* d = layer.d_hidden_states + (at + m * steps) * hidden;
      T* to = d_h + (step < shared ? 0 : m * padded);
      for (Index unit = 0; unit < hidden; unit++) to[unit] += d[unit];
    }
    const T* saved = layer.saved + layer.saved_before(tile) + step * 6 * units;
    const T* before = step == 0 || step == shared ? nullptr : saved - 6 * units;
    T *d_now = d_gates + kept * width, *h_now = h + kept * padded;
    if (step == 0) {
      widen(layer, layer.h0 + from * hidden, rows, h_now);
      widen(layer, layer.c0 + from * hidden, rows, c0);
    } else if (step == shared) {
      saved_carry(padded, saved - 6 * units, c0, h_now);
      repeat_row(rows, padded, c0), repeat_row(rows, padded, h_now);
    }
    cell_gradients(vectors, saved, before, c0, d_h, d_c, d_now, h_now);
    const T* read = layer.inputs + at * features;
    copy_rows(rows, features, read, steps * features, x + kept * features, features);
    kept += rows;
    if (kept + rows > most || step == 0 || (step == 1 && layer.zeros)) {
      const auto [begin, end] = find_features(layer, x, kept, features, 0);
      T *d_weight_hh = partial + features * width, *d_bias = d_weight_hh + hidden * width;
      add_window(kept, d_gates, width, panel,
                 {{x + begin, features, end - begin, partial + begin * width},
                  {h, padded, step == 0 && layer.zeros ? 0 : hidden, d_weight_hh},
                  {&one, 0, 1, d_bias}});
      kept = 0;
    }
    if (step || layer.d_h0) multiply_gates(rows, d_now, width, layer.packed_hh, padded, d_h);
    if (layer.d_inputs) {
      multiply_gates(rows, d_now, width, layer.packed_ih, features, d_x);
      copy_rows(rows, features, d_x, features, layer.d_inputs + at * features, steps * features);
    }
  }
  if (layer.d_h0) copy_rows(all, hidden, d_h, padded, layer.d_h0 + from * hidden, hidden);
  // After shared steps, only the sum of these rows has a meaning; nobody wants them then.
  copy_rows(all, hidden, d_c, padded, layer.d_c0 + from * hidden, hidden);
}

// Add up one row of all tiles' gradients, and put its columns in the order of the weights.
template <typename T>
void add_up(const Layer<T>& layer, Index row) {
  using V = Vector<T>;
  constexpr Index W = kLanes<T>;
  const Index width = layer.columns(), features = layer.features, hidden = layer.hidden;
  const Index size = layer.weight_rows() * width, tiles = layer.tiles();
  T* to = row < features            ? layer.d_weight_ih + row * 4 * hidden
          : row < features + hidden ? layer.d_weight_hh + (row - features) * 4 * hidden
                                    : layer.d_bias;
  for (Index at = 0; at < width; at += 4 * W) {
    V gates[4]{};
    for (Index v = 0; v < 4 && at + v * W < width; v++) {
      const T* from = layer.partial + row * width + at + v * W;
      for (Index tile = 0; tile < tiles; tile++) gates[v] += load<V>(from + tile * size);
    }
    transpose<T>(gates[0], gates[1], gates[2], gates[3]);
    const Index unit = at / 4, left = hidden - unit < W ? hidden - unit : W;
    for (Index gate = 0; gate < 4; gate++) {
      std::memcpy(to + gate * hidden + unit, &gates[gate], left * sizeof(T));
    }
  }
}

template <typename T>
constexpr Routines<T> kRoutines{pack_forward<T>, pack_backward<T>, forward<T>, backward<T>,
                                add_up<T>};

#define QUOTED(name) #name
#define NAME(name) QUOTED(name)

}  // namespace

extern const Level level;
#ifdef LSTM_FLOAT64
const Level level{NAME(LSTM_LEVEL), {kRoutines<float>, kRoutines<double>}};
#else
const Level level{NAME(LSTM_LEVEL), {kRoutines<float>, {}}};
#endif

}  // namespace lstm::LSTM_LEVEL
