// An LSTM layer over all its time steps, forward and backward: two CPU targets for XLA's FFI.
//
// Shapes: B rows in the batch, T steps of F features, H hidden units. The gates are i, f, g, o:
//
//     i, f, g, o = x @ weight_ih + bias_ih + h @ weight_hh + bias_hh
//     c = sigmoid(f) * c + sigmoid(i) * tanh(g)
//     h = sigmoid(o) * tanh(c)
//
// The batch is cut into tiles of a few rows, each of which goes through all steps by itself, so
// that what it works on stays near the core. In every step:
//
//   1. Products have the gates of one row in the lanes of vectors: a vector of weights is loaded
//      once for five rows. Columns are interleaved, so that every vector of W lanes holds all four
//      gates of W / 4 units. Features that are zero in all five rows, as at the margin of digits,
//      are left out.
//   2. Cells have units in the lanes, those of one row after those of the row before: four vectors
//      of gates, transposed, are i, f, g and o of W units. Only the tile's last vector is filled
//      up.
//
// Blocks of weights are used for all rows of a tile while they are in the first cache. The backward
// pass goes the other way. It keeps what a few steps have read, and the gradients of their gates,
// and adds the product of these to the tile's own gradients of the weights, of which blocks stay in
// registers. How the batch is cut depends on the shapes alone, and tiles are added up in their
// order: results are the same bits for any number of threads.
//
// This file is compiled for several instruction sets, with LSTM_LEVEL (a name), LSTM_BYTES (of a
// vector) and LSTM_COLUMNS (vectors of sums that a row has in registers); and once with
// LSTM_HANDLERS, for what XLA calls, which picks the best of them for the processor, and with
// LSTM_SOURCE, this file's own SHA-256.

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

#define INLINE __attribute__((always_inline)) inline
#define INLINED __attribute__((always_inline))

namespace lstm {

using Index = std::int64_t;

constexpr Index kGroup = 5;  // Rows that share a loaded vector of weights.

INLINE Index divide_up(Index a, Index b) { return (a + b - 1) / b; }

// What a call is about. Units are padded to a multiple of four, so that rows fill vectors.
template <typename T>
struct Layer {
  Index batch, steps, features, hidden;
  bool reverse;
  const T *inputs, *weight_ih, *weight_hh, *bias_ih, *bias_hh, *h0, *c0;
  T *packed_ih, *packed_hh, *packed_bias;
  bool dense;  // Count inputs that are zero: with infinite weights, they give NaN.

  INLINE Index padded() const { return divide_up(hidden, 4) * 4; }
  INLINE Index columns() const { return 4 * padded(); }
  INLINE bool small() const { return columns() * (features + hidden) <= 6000; }

  // Rows of a tile: more where weights come from the second cache, and where there are many.
  INLINE Index tile_rows() const {
    const Index least = small() ? 2 : 5, share = divide_up(divide_up(batch, kGroup), 64);
    return (least > share ? least : share) * kGroup;
  }
  INLINE Index tiles() const { return divide_up(batch, tile_rows()); }

  // Steps of a tile whose gradients of weights are added up together, in loops that are long.
  INLINE Index window() const { return tile_rows() < 50 ? 50 / tile_rows() : 1; }

  // Elements that the forward pass saves for the backward pass before a tile: in every step i, f,
  // g, o, c and tanh(c) of its units, and a vector more for what fills up its last.
  INLINE Index saved_before(Index tile) const {
    return steps * 6 * tile * (tile_rows() * padded() + 16);
  }
};

template <typename T>
struct Forward : Layer<T> {
  T *hidden_states, *h, *c, *saved;  // The first and the last may be null.
};

template <typename T>
struct Backward : Layer<T> {
  const T *saved, *d_hidden_states, *d_h, *d_c;                    // The second may be null.
  T *d_weight_ih, *d_weight_hh, *d_bias, *d_inputs, *d_h0, *d_c0;  // d_inputs and d_h0 may be null.
  T* partial;  // Of each tile: d_weight_ih, d_weight_hh and d_bias, as weights are packed forwards.

  INLINE Index partial_rows() const { return this->features + this->hidden + 1; }
};

// Elements of working memory that a thread needs, for any instruction set.
template <typename T>
INLINE Index scratch_size(const Layer<T>& layer) {
  const Index rows = layer.tile_rows(), units = rows * layer.padded() + 16;
  return layer.window() * (5 * units + rows * (layer.features + 80)) + 3 * units +
         (rows / kGroup + 2) * (layer.features + 1) + layer.hidden + 64;
}

template <typename T>
struct Routines {
  void (*pack_forward)(const Layer<T>&);
  void (*pack_backward)(const Layer<T>&);
  void (*forward)(const Forward<T>&, Index tile, T* scratch);
  void (*backward)(const Backward<T>&, Index tile, T* scratch);
  void (*add_up)(const Backward<T>&, Index row);
};

struct Level {
  Routines<float> float32;
  Routines<double> float64;  // In the baseline alone.
};

}  // namespace lstm

// --------------------------------------------------------------------- for one instruction set

#ifdef LSTM_LEVEL
namespace lstm::LSTM_LEVEL {
namespace {

template <typename T, int N>
struct VectorOf {
  typedef T type __attribute__((vector_size(N * sizeof(T))));
};
template <typename T, int N>
using Vector = typename VectorOf<T, N>::type;
template <typename T>
constexpr int kLanes = LSTM_BYTES / sizeof(T) < 4 ? 4 : LSTM_BYTES / sizeof(T);
template <typename T>
using Whole = Vector<T, kLanes<T>>;

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

// x, but no less than `least` and no more than `most`; NaN stays what it is.
template <typename V>
INLINE V clamp(V x, V least, V most) {
#ifdef __AVX__
  if constexpr (sizeof(V) == LSTM_BYTES) {  // GCC does not find these by itself.
    asm("vmaxps %1, %2, %0" : "=v"(x) : "v"(x), "v"(least));
    asm("vminps %1, %2, %0" : "=v"(x) : "v"(x), "v"(most));
    return x;
  }
#endif
  x = x < least ? least : x;
  return x > most ? most : x;
}

// exp(kSign x) + kAdd, such that sigmoid and tanh are within 3 ulp, or 5.5 where sigmoid is below
// 1e-7. The exponent is split off by adding a number so large that the sum's last bits are the
// integer; the rest goes through a polynomial (minimax on |r| <= ln(2) / 2). Beyond the bounds,
// sigmoid and tanh have long reached 0 and 1; NaN stays what it is.
template <typename T, int kSign, int kAdd, typename V>
INLINE V exp_plus(V x) {
  if constexpr (sizeof(T) == 8) {  // For tests: exact rather than fast.
    for (int lane = 0; lane < kLanes<T>; lane++)
      x[lane] = std::expm1(kSign * x[lane] > 700 ? 700 : kSign * x[lane]);
    return x + (kAdd + 1);
  } else {
    typedef std::uint32_t Bits __attribute__((vector_size(sizeof(V))));
    x = clamp(x, V{} - 87, V{} + 87);
    const V shifted = x * (kSign * 1.44269504f) + 12582912.0f, n = shifted - 12582912.0f;
#ifdef __FP_FAST_FMAF
    const V r = kSign * x - n * 0.693147182f;
#else  // Without a fused product, ln(2) is taken off in two parts, of which the first is exact.
    const V r = kSign * x - n * 0.693359375f + n * 2.12194440e-4f;
#endif
    V p = r * 0.00138825155f + 0.00836654752f;
    p = p * r + 0.0416672006f;
    p = p * r + 0.166665435f;
    p = p * r + 0.49999997f;
    p = p * (r * r) + r;
    const V power = reinterpret_cast<V>((reinterpret_cast<Bits>(shifted) << 23) + 0x3f800000);
    return power * p + (power + kAdd);  // With -1 and n = 0 just p, exact however small.
  }
}

template <typename T, typename V>
INLINE V sigmoid(V x) {
  return 1 / exp_plus<T, -1, 1>(x);
}

template <typename T, typename V>
INLINE V tanh(V x) {
  const V e = exp_plus<T, 1, -1>(2 * x);
  return e / (e + 2);
}

// Transpose four vectors of four blocks of lanes, in two steps: of each pair the first and third
// blocks, and the second and fourth; of two such the first halves, and the second.
template <typename T, int... kLane>
INLINE void transpose(Whole<T>& a, Whole<T>& b, Whole<T>& c, Whole<T>& d,
                      std::integer_sequence<int, kLane...>) {
  constexpr int W = kLanes<T>, U = W / 4;
#ifdef __clang__
#define SHUFFLE(x, y, lane) __builtin_shufflevector(x, y, (lane)...)
#else
  using Lanes = Vector<std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>, W>;
#define SHUFFLE(x, y, lane) __builtin_shuffle(x, y, Lanes{(lane)...})
#endif
#define EVEN kLane / U / 2 * 2 * U + kLane % U + kLane / U % 2 * W
#define LOW kLane / U % 2 * U + kLane % U + kLane / U / 2 * W
  const Whole<T> ab02 = SHUFFLE(a, b, EVEN), ab13 = SHUFFLE(a, b, EVEN + U);
  const Whole<T> cd02 = SHUFFLE(c, d, EVEN), cd13 = SHUFFLE(c, d, EVEN + U);
  a = SHUFFLE(ab02, cd02, LOW), b = SHUFFLE(ab13, cd13, LOW);
  c = SHUFFLE(ab02, cd02, LOW + 2 * U), d = SHUFFLE(ab13, cd13, LOW + 2 * U);
#undef SHUFFLE
#undef EVEN
#undef LOW
}
template <typename T>
INLINE void transpose(Whole<T>& a, Whole<T>& b, Whole<T>& c, Whole<T>& d) {
  transpose<T>(a, b, c, d, std::make_integer_sequence<int, kLanes<T>>());
}

// How many columns are cut into blocks of vectors; four columns left over are a short vector.
template <typename T>
struct Columns {
  Index vectors, rest, blocks;
  bool tail;

  INLINE explicit Columns(Index columns) {
    const Index left = columns % kLanes<T>;
    tail = left == 4 && kLanes<T> > 4;
    rest = tail || left == 0 ? kLanes<T> : left;
    vectors = (columns - left) / kLanes<T> + (left != 0 && !tail);
    blocks = divide_up(vectors + tail, LSTM_COLUMNS);
  }
  INLINE Index begin(Index block) const { return (vectors + tail) * block / blocks; }
  INLINE Index size() const { return vectors * kLanes<T> + 4 * tail; }
};

// Sums of M rows over N vectors of columns, and four columns more where there is a tail.
template <typename T, int M, int N, bool kTail>
struct Sums {
  using V = Whole<T>;
  using Short = Vector<T, 4>;
  static constexpr int W = kLanes<T>, kWidth = N * W + 4 * kTail;
  V sum[M][N + !N];
  Short short_sum[M];

  INLINE void start(const T* bias) {
    for (int m = 0; m < M; m++) {
      for (int v = 0; v < N; v++) sum[m][v] = bias ? load<V>(bias + v * W) : V{};
      short_sum[m] = Short{};
    }
  }

  // Add a @ weights, over the columns k of a that are listed, or over the first n.
  template <bool kListed>
  INLINE void add(const T* a, Index stride, const std::int32_t* list, Index n, const T* weights) {
    const T* row[M];
    for (int m = 0; m < M; m++) row[m] = a + m * stride;
    for (Index i = 0; i < n; i++) {
      const Index k = kListed ? list[i] : i;
      const T* w = weights + k * kWidth;
      V weight[N + !N];
      Short short_weight;
      for (int v = 0; v < N; v++) weight[v] = load<V>(w + v * W);
      if constexpr (kTail) short_weight = load<Short>(w + N * W);
      for (int m = 0; m < M; m++) {
        const T x = row[m][k];
        for (int v = 0; v < N; v++) sum[m][v] += x * weight[v];
        if constexpr (kTail) short_sum[m] += x * short_weight;
      }
    }
  }

  // Write them; of the last vector so many lanes.
  INLINE void finish(T* out, Index stride, Index rest) const {
    for (int m = 0; m < M; m++) {
      T* to = out + m * stride;
      for (int v = 0; v < N; v++) {
        if (v + 1 < N || rest == W) {
          store(to + v * W, sum[m][v]);
        } else {
          T lanes[W];
          store(lanes, sum[m][v]);
          for (Index lane = 0; lane < rest; lane++) to[v * W + lane] = lanes[lane];
        }
      }
      if constexpr (kTail) store(to + N * W, short_sum[m]);
    }
  }
};

template <int kValue>
struct Constant {
  static constexpr int value = kValue;
};

// Call f with a constant from kLeast to kMost.
template <int kLeast, int kMost, typename F>
INLINE void constant(Index value, F f) {
  if constexpr (kLeast < kMost) {
    if (value < kMost) return constant<kLeast, kMost - 1>(value, f);
  }
  f(Constant<kMost>());
}

// Call f with empty sums of one block, and how many lanes count in its last vector. kWhole: all
// columns fill vectors.
template <typename T, bool kWhole, typename F>
INLINE void with_sums(Index rows, const Columns<T>& columns, Index block, F f) {
  const bool last = block + 1 == columns.blocks;
  const Index vectors = columns.begin(block + 1) - columns.begin(block);
  constant<1, kGroup>(rows, [&](auto m) INLINED {
    if constexpr (!kWhole) {
      if (last && columns.tail) {
        constant<0, LSTM_COLUMNS - 1>(
            vectors - 1, [&](auto n) INLINED { f(Sums<T, m.value, n.value, true>(), kLanes<T>); });
        return;
      }
    }
    constant<1, LSTM_COLUMNS>(vectors, [&](auto n) INLINED {
      f(Sums<T, m.value, n.value, false>(), kWhole || !last ? kLanes<T> : columns.rest);
    });
  });
}

// Call f(first, rows, number) for each group of rows.
template <typename F>
INLINE void for_groups(Index rows, F f) {
  for (Index first = 0, number = 0; first < rows; first += kGroup, number++) {
    f(first, rows - first < kGroup ? rows - first : kGroup, number);
  }
}

// The product of a tile's gradients of gates and packed weights; the columns are those of `out`.
template <typename T>
void multiply(Index rows, const T* d_gates, Index width, const T* packed, const Columns<T>& columns,
              T* out, Index stride) {
  for (Index block = 0; block < columns.blocks; block++) {
    const Index at = columns.begin(block) * kLanes<T>;
    for_groups(rows, [&](Index first, Index group, Index) INLINED {
      with_sums<T, false>(group, columns, block, [&](auto sums, Index rest) INLINED {
        sums.start(nullptr);
        sums.template add<false>(d_gates + first * width, width, nullptr, width,
                                 packed + width * at);
        sums.finish(out + first * stride + at, stride, rest);
      });
    });
  }
}

// The features that are not zero in all of a few rows -> how many. `any` is working memory; the
// next step's features, so far `ahead`, are fetched, which the processor does not do by itself.
template <typename T>
INLINE Index list_features(const Layer<T>& layer, const T* x, Index rows, Index stride,
                           std::int32_t* list, T* any, Index ahead) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  using V = Vector<Bits, kLanes<T>>;
  constexpr Index W = kLanes<T>;
  const Index features = layer.features;
  if (layer.dense || features < W) {
    for (Index k = 0; k < features; k++) list[k] = static_cast<std::int32_t>(k);
    return features;
  }
  for (Index at = 0; at < features; at += W) {
    const Index from = at + W <= features ? at : features - W;
    V bits{};
    for (Index m = 0; m < rows; m++) {
      bits |= load<V>(x + m * stride + from);
      __builtin_prefetch(x + m * stride + ahead + from);
    }
    store(any + from, bits << 1);  // Without the sign.
  }
  Index found = 0;
  for (Index k = 0; k < features; k++) {
    Bits bits;
    std::memcpy(&bits, any + k, sizeof bits);
    list[found] = static_cast<std::int32_t>(k);
    found += bits != 0;
  }
  return found;
}

// The unit and gate of an interleaved column.
template <typename T>
struct Place {
  static constexpr Index U = kLanes<T> / 4;
  Index unit, gate;
  INLINE explicit Place(Index column)
      : unit(column / kLanes<T> * U + column % U), gate(column % kLanes<T> / U) {}
};

// Weights in the order in which the forward products read them.
template <typename T>
void pack_forward(const Layer<T>& layer) {
  constexpr Index W = kLanes<T>, U = W / 4;
  const Index hidden = layer.hidden;
  const Columns<T> columns(layer.columns());
  // Rows of (4H) -> panels of interleaved columns.
  const auto pack = [&](const T* weights, Index rows, T* packed) {
    for (Index block = 0; block < columns.blocks; block++) {
      for (Index k = 0; k < rows; k++) {
        for (Index v = columns.begin(block); v < columns.begin(block + 1); v++) {
          for (Index gate = 0; gate < 4; gate++, packed += U) {
            const T* row = weights + (k * 4 + gate) * hidden;
            if ((v + 1) * U <= hidden) {
              std::memcpy(packed, row + v * U, U * sizeof(T));
            } else {
              for (Index l = 0; l < U; l++) packed[l] = v * U + l < hidden ? row[v * U + l] : T(0);
            }
          }
        }
      }
    }
  };
  pack(layer.weight_ih, layer.features, layer.packed_ih);
  pack(layer.weight_hh, layer.hidden, layer.packed_hh);
  for (Index column = 0; column < layer.columns(); column++) {
    const Place<T> place(column);
    const Index at = place.gate * hidden + place.unit;
    layer.packed_bias[column] = place.unit < hidden ? layer.bias_ih[at] + layer.bias_hh[at] : T(0);
  }
}

// Weights transposed, as the backward products read them: rows are interleaved columns.
template <typename T>
void pack_backward(const Layer<T>& layer) {
  constexpr Index U = kLanes<T> / 4;
  const Index hidden = layer.hidden, width = layer.columns();
  const auto pack = [&](const T* weights, Index rows, Index padded, T* packed) {
    const Columns<T> columns(padded);
    for (Index block = 0; block < columns.blocks; block++) {
      const Index from = columns.begin(block) * kLanes<T>;
      const bool last = block + 1 == columns.blocks;
      const Index size = (last ? columns.size() : columns.begin(block + 1) * kLanes<T>)-from;
      // A few at a time: rows of weights are often a power of two apart, and so in each other's way
      // in the cache.
      for (Index part = 0; part < size; part += 4) {
        const Index first = from + part, found = rows - first < 4 ? rows - first : 4;
        T* to = packed + part;
        for (Index unit = 0; unit < layer.padded(); unit += U) {
          for (Index gate = 0; gate < 4; gate++) {
            for (Index l = 0; l < U; l++, to += size) {
              const T* source = weights + (first * 4 + gate) * hidden + unit + l;
              if (found == 4 && unit + l < hidden) {
                for (Index k = 0; k < 4; k++) to[k] = source[k * 4 * hidden];
              } else {
                for (Index k = 0; k < 4; k++) {
                  to[k] = k < found && unit + l < hidden ? source[k * 4 * hidden] : T(0);
                }
              }
            }
          }
        }
      }
      packed += size * width;
    }
  };
  if (layer.packed_ih) pack(layer.weight_ih, layer.features, layer.features, layer.packed_ih);
  pack(layer.weight_hh, hidden, layer.padded(), layer.packed_hh);
}

// The first row of a tile, how many it has, and vectors of units that hold them.
template <typename T>
struct Tile {
  Index from, rows, vectors;
  INLINE Tile(const Layer<T>& layer, Index tile) : from(tile * layer.tile_rows()) {
    rows = layer.batch - from < layer.tile_rows() ? layer.batch - from : layer.tile_rows();
    vectors = divide_up(rows * layer.padded(), kLanes<T>);
  }
};

// Rows of (H) <-> rows of padded units.
template <typename T>
void widen(const Layer<T>& layer, const T* from, Index rows, T* to) {
  const Index hidden = layer.hidden, padded = layer.padded();
  std::memset(to, 0, divide_up(rows * padded, kLanes<T>) * sizeof(Whole<T>));
  for (Index m = 0; m < rows; m++) {
    std::memcpy(to + m * padded, from + m * hidden, hidden * sizeof(T));
  }
}

template <typename T>
void narrow(const Layer<T>& layer, const T* from, Index rows, T* to, Index stride) {
  for (Index m = 0; m < rows; m++) {
    std::memcpy(to + m * stride, from + m * layer.padded(), layer.hidden * sizeof(T));
  }
}

// Whether a tile begins with hidden states that are zero, so that products with them are.
template <typename T>
bool begins_with_zeros(const Layer<T>& layer, const Tile<T>& tile) {
  const T* h0 = layer.h0 + tile.from * layer.hidden;
  bool zeros = !layer.dense;
  for (Index i = 0; zeros && i < tile.rows * layer.hidden; i++) zeros = h0[i] == 0;
  return zeros;
}

// All steps of a tile.
template <typename T>
void forward(const Forward<T>& layer, Index tile, T* scratch) {
  using V = Whole<T>;
  constexpr Index W = kLanes<T>;
  const Index steps = layer.steps, features = layer.features, hidden = layer.hidden;
  const Index padded = layer.padded(), width = layer.columns();
  const auto [from, rows, vectors] = Tile<T>(layer, tile);
  const Index units = vectors * W;
  const Index x_stride = steps * features;
  const bool zeros = begins_with_zeros(layer, Tile<T>(layer, tile));
  const Columns<T> columns(width);
  T *gates = scratch, *h = gates + 4 * units, *c = h + units, *any = c + units;
  auto* listed = reinterpret_cast<std::int32_t*>(any + features);
  auto* lists = listed + layer.tile_rows() / kGroup;
  T* saved = layer.saved ? layer.saved + layer.saved_before(tile) : nullptr;
  std::memset(gates, 0, 4 * units * sizeof(T));
  widen(layer, layer.h0 + from * hidden, rows, h);
  widen(layer, layer.c0 + from * hidden, rows, c);

  for (Index step = 0; step < steps; step++) {
    const Index t = layer.reverse ? steps - 1 - step : step;
    const T* x = layer.inputs + (from * steps + t) * features;
    for_groups(rows, [&](Index first, Index group, Index number) INLINED {
      listed[number] =
          list_features(layer, x + first * x_stride, group, x_stride, lists + number * features,
                        any, layer.reverse ? -features : features);
    });
    const Index read = step == 0 && zeros ? 0 : hidden;
    for (Index block = 0; block < columns.blocks; block++) {
      const Index at = columns.begin(block) * W;
      for_groups(rows, [&](Index first, Index group, Index number) INLINED {
        with_sums<T, true>(group, columns, block, [&](auto sums, Index rest) INLINED {
          sums.start(layer.packed_bias + at);
          sums.template add<true>(x + first * x_stride, x_stride, lists + number * features,
                                  listed[number], layer.packed_ih + features * at);
          sums.template add<false>(h + first * padded, padded, nullptr, read,
                                   layer.packed_hh + hidden * at);
          sums.finish(gates + first * width + at, width, rest);
        });
      });
    }
    for (Index v = 0; v < vectors; v++) {
      V i = load<V>(gates + 4 * v * W), f = load<V>(gates + (4 * v + 1) * W);
      V g = load<V>(gates + (4 * v + 2) * W), o = load<V>(gates + (4 * v + 3) * W);
      transpose<T>(i, f, g, o);
      i = sigmoid<T>(i), f = sigmoid<T>(f), g = tanh<T>(g), o = sigmoid<T>(o);
      const V cell = f * load<V>(c + v * W) + i * g, tanh_cell = tanh<T>(cell);
      store(c + v * W, cell);
      store(h + v * W, o * tanh_cell);
      if (saved) {
        store(saved, i), store(saved + W, f), store(saved + 2 * W, g), store(saved + 3 * W, o);
        store(saved + 4 * W, cell), store(saved + 5 * W, tanh_cell);
        saved += 6 * W;
      }
    }
    if (layer.hidden_states) {
      narrow(layer, h, rows, layer.hidden_states + (from * steps + t) * hidden, steps * hidden);
    }
  }
  narrow(layer, h, rows, layer.h + from * hidden, hidden);
  narrow(layer, c, rows, layer.c + from * hidden, hidden);
}

// Add a.T @ d to M rows of `out`, which are listed as columns of a, and stay in registers.
template <typename T, int M, int N>
INLINE void add_outer(Index rows, const T* a, Index stride, const std::int32_t* list, const T* d,
                      T* out) {
  using V = Whole<T>;
  constexpr Index W = kLanes<T>;
  V sum[M][N];
  for (int m = 0; m < M; m++) {
    for (int v = 0; v < N; v++) sum[m][v] = load<V>(out + (list[m] * N + v) * W);
  }
  for (Index row = 0; row < rows; row++, a += stride, d += N * W) {
    V delta[N];
    for (int v = 0; v < N; v++) delta[v] = load<V>(d + v * W);
    for (int m = 0; m < M; m++) {
      const T x = a[list[m]];
      for (int v = 0; v < N; v++) sum[m][v] += x * delta[v];
    }
  }
  for (int m = 0; m < M; m++) {
    for (int v = 0; v < N; v++) store(out + (list[m] * N + v) * W, sum[m][v]);
  }
}

// What the steps of a window read, row after row, and the gradients of the weights that it meets.
template <typename T>
struct Reads {
  const T* a;
  Index columns, stride;
  const std::int32_t* list;  // Of the columns that count.
  Index listed;
  T* d_weights;
};

// Add a window's products to a tile's gradients. The panel is working memory.
template <typename T>
void add_window(Index rows, const T* d_gates, const Columns<T>& columns, T* panel, T* d_bias,
                const Reads<T>& inputs, const Reads<T>& states) {
  using V = Whole<T>;
  constexpr Index W = kLanes<T>;
  for (Index block = 0; block < columns.blocks; block++) {
    const Index begin = columns.begin(block), size = columns.begin(block + 1) - begin;
    constant<1, LSTM_COLUMNS>(size, [&](auto n) INLINED {
      constexpr int N = n.value;
      // Rows of gates are often a power of two apart, and so in each other's way in the cache.
      V total[N];
      for (int v = 0; v < N; v++) total[v] = load<V>(d_bias + (begin + v) * W);
      for (Index row = 0; row < rows; row++) {
        for (int v = 0; v < N; v++) {
          const V d = load<V>(d_gates + (row * columns.vectors + begin + v) * W);
          store(panel + (row * N + v) * W, d);
          total[v] += d;
        }
      }
      for (int v = 0; v < N; v++) store(d_bias + (begin + v) * W, total[v]);
      for (const Reads<T>* reads : {&inputs, &states}) {
        for_groups(reads->listed, [&](Index first, Index group, Index) INLINED {
          constant<1, kGroup>(group, [&](auto m) INLINED {
            add_outer<T, m.value, N>(rows, reads->a, reads->stride, reads->list + first, panel,
                                     reads->d_weights + reads->columns * begin * W);
          });
        });
      }
    });
  }
}

// All steps of a tile, from the last to the first.
template <typename T>
void backward(const Backward<T>& layer, Index tile, T* scratch) {
  using V = Whole<T>;
  constexpr Index W = kLanes<T>;
  const Index steps = layer.steps, features = layer.features, hidden = layer.hidden;
  const Index padded = layer.padded(), width = layer.columns();
  const auto [from, rows, vectors] = Tile<T>(layer, tile);
  const Index units = vectors * W, most = layer.window() * rows;
  const bool zeros = begins_with_zeros(layer, Tile<T>(layer, tile));
  const Columns<T> columns(width), x_columns(features), h_columns(padded);
  T *d_gates = scratch, *h = d_gates + 4 * layer.window() * units;
  T *d_h = h + layer.window() * units, *d_c = d_h + units, *c0 = d_c + units, *x = c0 + units;
  T *panel = x + most * features, *any = panel + most * LSTM_COLUMNS * W;
  auto* list = reinterpret_cast<std::int32_t*>(any + features);
  auto* all = list + features;
  const T* saved = layer.saved + layer.saved_before(tile);
  T* partial = layer.partial + tile * layer.partial_rows() * width;
  T *d_weight_hh = partial + features * width, *d_bias = d_weight_hh + hidden * width;
  std::memset(partial, 0, layer.partial_rows() * width * sizeof(T));
  for (Index k = 0; k < hidden; k++) all[k] = static_cast<std::int32_t>(k);
  widen(layer, layer.d_h + from * hidden, rows, d_h);
  widen(layer, layer.d_c + from * hidden, rows, d_c);
  widen(layer, layer.c0 + from * hidden, rows, c0);

  Index kept = 0;  // Rows in the window.
  for (Index step = steps - 1; step >= 0; step--) {
    const Index t = layer.reverse ? steps - 1 - step : step;
    if (layer.d_hidden_states) {
      for (Index m = 0; m < rows; m++) {
        const T* d = layer.d_hidden_states + ((from + m) * steps + t) * hidden;
        for (Index unit = 0; unit < hidden; unit++) d_h[m * padded + unit] += d[unit];
      }
    }
    T *d_now = d_gates + kept * width, *h_now = h + kept * padded;
    for (Index v = 0; v < vectors; v++) {
      const T* now = saved + (step * vectors + v) * 6 * W;
      const T* before = now - vectors * 6 * W;
      const V i = load<V>(now), f = load<V>(now + W), g = load<V>(now + 2 * W);
      const V o = load<V>(now + 3 * W), tanh_cell = load<V>(now + 5 * W);
      const V c = step ? load<V>(before + 4 * W) : load<V>(c0 + v * W);
      const V d = load<V>(d_h + v * W);
      const V d_cell = load<V>(d_c + v * W) + d * o * (1 - tanh_cell * tanh_cell);
      V d_i = d_cell * g * i * (1 - i), d_f = d_cell * c * f * (1 - f);
      V d_g = d_cell * i * (1 - g * g), d_o = d * tanh_cell * o * (1 - o);
      store(d_c + v * W, d_cell * f);
      transpose<T>(d_i, d_f, d_g, d_o);
      store(d_now + 4 * v * W, d_i), store(d_now + (4 * v + 1) * W, d_f);
      store(d_now + (4 * v + 2) * W, d_g), store(d_now + (4 * v + 3) * W, d_o);
      // The hidden state that this step read.
      if (step) store(h_now + v * W, load<V>(before + 3 * W) * load<V>(before + 5 * W));
    }
    if (!step) widen(layer, layer.h0 + from * hidden, rows, h_now);
    for (Index m = 0; m < rows; m++) {
      const T* row = layer.inputs + ((from + m) * steps + t) * features;
      std::memcpy(x + (kept + m) * features, row, features * sizeof(T));
      __builtin_prefetch(row + (layer.reverse ? features : -features));
    }
    kept += rows;
    if (kept == most || step == 0 || (step == 1 && zeros)) {
      const Index x_listed = list_features(layer, x, kept, features, list, any, 0);
      const Index h_listed = step == 0 && zeros ? 0 : hidden;
      add_window(kept, d_gates, columns, panel, d_bias,
                 {x, features, features, list, x_listed, partial},
                 {h, hidden, padded, all, h_listed, d_weight_hh});
      kept = 0;
    }
    if (step || layer.d_h0) multiply(rows, d_now, width, layer.packed_hh, h_columns, d_h, padded);
    if (layer.d_inputs) {
      T* d_x = layer.d_inputs + (from * steps + t) * features;
      multiply(rows, d_now, width, layer.packed_ih, x_columns, d_x, steps * features);
    }
  }
  if (layer.d_h0) narrow(layer, d_h, rows, layer.d_h0 + from * hidden, hidden);
  narrow(layer, d_c, rows, layer.d_c0 + from * hidden, hidden);
}

// Add up one row of all tiles' gradients, and put its columns in their order.
template <typename T>
void add_up(const Backward<T>& layer, Index row) {
  using V = Whole<T>;
  constexpr Index W = kLanes<T>, U = W / 4;
  const Index width = layer.columns(), hidden = layer.hidden, tiles = layer.tiles();
  // Of three matrices, the one that the row is in, its first row and how many it has.
  Index first = 0, rows = layer.features;
  T* to = layer.d_weight_ih;
  if (row >= rows) first = rows, rows = hidden, to = layer.d_weight_hh;
  if (row >= first + rows) first += rows, rows = 1, to = layer.d_bias;
  to += (row - first) * 4 * hidden;
  const Columns<T> columns(width);
  Index block = 0, begin = 0, end = columns.begin(1);
  for (Index v = 0; v < columns.vectors; v += 4) {
    V gates[4]{};
    for (Index k = v; k < v + 4 && k < columns.vectors; k++) {
      if (k == end) block++, begin = end, end = columns.begin(block + 1);
      const Index at = first * columns.vectors + rows * begin + (row - first) * (end - begin);
      const T* from = layer.partial + (at + k - begin) * W;
      for (Index tile = 0; tile < tiles; tile++) {
        gates[k - v] += load<V>(from + tile * layer.partial_rows() * width);
      }
    }
    transpose<T>(gates[0], gates[1], gates[2], gates[3]);
    const Index unit = v * U, left = hidden - unit < W ? hidden - unit : W;
    for (Index gate = 0; gate < 4; gate++) {
      if (left == W) {
        store(to + gate * hidden + unit, gates[gate]);
      } else {
        std::memcpy(to + gate * hidden + unit, &gates[gate], left * sizeof(T));
      }
    }
  }
}

template <typename T>
constexpr Routines<T> kRoutines{pack_forward<T>, pack_backward<T>, forward<T>, backward<T>,
                                add_up<T>};

}  // namespace

extern const Level level;
#ifdef LSTM_HANDLERS
const Level level{kRoutines<float>, kRoutines<double>};
#else
const Level level{kRoutines<float>, {}};
#endif

}  // namespace lstm::LSTM_LEVEL
#endif

// -------------------------------------------------------------------------- what XLA calls

#ifdef LSTM_HANDLERS
#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "xla/ffi/api/ffi.h"

#ifdef __linux__
#include <sched.h>
#endif

namespace lstm {

namespace baseline {
extern const Level level;
}
#ifdef LSTM_X86
namespace avx2 {
extern const Level level;
}
namespace avx512 {
extern const Level level;
}
#endif

namespace {

namespace ffi = xla::ffi;

// The best instruction set of the processor, or the one that was asked for, if it is no better.
const char* chosen = nullptr;

const Level& choose() {
#ifdef LSTM_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl");
  const char* asked = std::getenv("RNN_MNIST_LSTM_LEVEL");
  const std::string most = asked ? asked : "avx512";
  if (avx512 && most == "avx512") return chosen = "avx512", avx512::level;
  if (avx2 && (most == "avx512" || most == "avx2")) return chosen = "avx2", avx2::level;
#endif
  return chosen = "baseline", baseline::level;
}

const Level& level() {
  static const Level& best = choose();
  return best;
}

template <typename T>
const Routines<T>& routines() {
  if constexpr (sizeof(T) == 4) {
    return level().float32;
  } else {
    return baseline::level.float64;  // For tests, which need no speed.
  }
}

// Memory that begins a cache line and is not set to anything.
template <typename T>
class Memory {
 public:
  explicit Memory(Index size)
      : start_(
            static_cast<T*>(::operator new(size * sizeof(T), std::align_val_t(64), std::nothrow))) {
  }
  ~Memory() { ::operator delete(start_, std::align_val_t(64)); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  T* get() const { return start_; }

 private:
  T* start_;
};

// Systems may wake a thread on the core of the one that woke it and leave it there, waiting, for
// many milliseconds while another core has nothing to do.
int this_core() {
#ifdef __linux__
  return sched_getcpu();
#else
  return -1;
#endif
}

// Move this thread away from a core, if it is there and may go elsewhere.
void leave_core([[maybe_unused]] int core) {
#ifdef __linux__
  cpu_set_t before;
  if (core < 0 || core != sched_getcpu() || sched_getaffinity(0, sizeof before, &before)) return;
  cpu_set_t others = before;
  CPU_CLR(core, &others);
  if (CPU_COUNT(&others) && !sched_setaffinity(0, sizeof others, &others))
    sched_setaffinity(0, sizeof before, &before);
#endif
}

// Call f(item, worker) for all items, on this thread and on those of the pool that are free.
//
// This thread takes items as well, and in the end waits for those only that another has begun: with
// several CPU devices, the callers are the pool's own threads, and nobody else would begin any.
template <typename F>
void spread(ffi::ThreadPool& pool, Index items, Index workers, const F& f) noexcept {
  struct Shared {
    std::atomic<Index> next{0}, done{0}, begun{0};
    const int core = this_core();
  };
  const auto shared = std::make_shared<Shared>();
  const Index helpers = std::min(workers, items) - 1;
  const auto work = [shared, items, helpers, &f](Index worker) {
    for (Index item; (item = shared->next.fetch_add(1)) < items;) {  // f is there while this holds.
      f(item, worker);
      shared->done.fetch_add(1, std::memory_order_release);
      // One that has not begun may be waiting for this core.
      if (worker == 0 && shared->begun.load(std::memory_order_relaxed) < helpers)
        std::this_thread::yield();
    }
  };
  for (Index worker = 1; worker <= helpers; worker++) {
    pool.Schedule([work, worker, shared] {
      shared->begun.fetch_add(1, std::memory_order_relaxed);
      leave_core(shared->core);
      work(worker);
    });
  }
  work(0);
  while (shared->done.load(std::memory_order_acquire) < items) std::this_thread::yield();
}

// Several models, under vmap: axes before those that the shapes above have. Arrays that are the
// same for all along an axis have size 1 there.
class Models {
 public:
  Models(ffi::AnyBuffer::Dimensions whole, std::size_t own)
      : axes_(whole.begin(), whole.end() - own) {}

  Index count() const {
    Index count = 1;
    for (Index size : axes_) count *= size;
    return count;
  }

  // Where an array's part for a model begins, in elements.
  template <typename Buffer>
  Index offset(const Buffer& buffer, Index model) const {
    const auto dimensions = buffer.dimensions();
    Index stride = 1, offset = 0;
    for (std::size_t axis = axes_.size(); axis < dimensions.size(); axis++)
      stride *= dimensions[axis];
    for (std::size_t axis = axes_.size(); axis-- > 0; model /= axes_[axis]) {
      if (dimensions[axis] != 1) offset += model % axes_[axis] * stride;
      stride *= dimensions[axis];
    }
    return offset;
  }

  template <typename T>
  const T* at(const ffi::AnyBuffer& buffer, Index model) const {
    return static_cast<const T*>(buffer.untyped_data()) + offset(buffer, model);
  }
  // Null for an array without elements, which is not asked for.
  template <typename T>
  T* at(ffi::Result<ffi::AnyBuffer>& buffer, Index model) const {
    if (buffer->element_count() == 0) return nullptr;
    return static_cast<T*>(buffer->untyped_data()) + offset(*buffer, model);
  }

 private:
  std::vector<Index> axes_;
};

ffi::Error no_memory() {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                    "RESOURCE_EXHAUSTED: no memory for the LSTM");
}

// By the largest of the bits without the sign, of which compilers make vectors.
template <typename T>
bool finite(const T* x, Index count) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  const T infinity = std::numeric_limits<T>::infinity();
  Bits most = 0, limit;
  std::memcpy(&limit, &infinity, sizeof limit);
  for (Index i = 0; i < count; i++) {
    Bits bits;
    std::memcpy(&bits, x + i, sizeof bits);
    most = std::max<Bits>(most, bits & std::numeric_limits<Bits>::max());
  }
  return most < limit;
}

// Sizes and inputs of a model.
template <typename T>
Layer<T> make_layer(const Models& models, Index model, bool reverse, const ffi::AnyBuffer& inputs,
                    const ffi::AnyBuffer& weight_ih, const ffi::AnyBuffer& weight_hh,
                    const ffi::AnyBuffer& h0, const ffi::AnyBuffer& c0) {
  Layer<T> layer{};
  const auto sizes = inputs.dimensions().last(3);
  layer.batch = sizes[0], layer.steps = sizes[1], layer.features = sizes[2];
  layer.hidden = h0.dimensions().back();
  layer.reverse = reverse;
  layer.inputs = models.at<T>(inputs, model);
  layer.weight_ih = models.at<T>(weight_ih, model),
  layer.weight_hh = models.at<T>(weight_hh, model);
  layer.h0 = models.at<T>(h0, model), layer.c0 = models.at<T>(c0, model);
  const Index columns = 4 * layer.hidden;
  layer.dense = !finite(layer.weight_ih, layer.features * columns) ||
                !finite(layer.weight_hh, layer.hidden * columns);
  return layer;
}

// Threads that are worth waking: none for what takes less than about 10 us.
template <typename T>
Index count_workers(const ffi::ThreadPool& pool, const Layer<T>& layer, Index items) {
  const double work =
      1.0 * layer.batch * layer.steps * layer.columns() * (layer.features + layer.hidden);
  return work * items / layer.tiles() < 3e5
             ? 1
             : std::max<Index>(1, std::min<Index>(items, pool.num_threads()));
}

template <typename T>
ffi::Error forward(ffi::ThreadPool& pool, bool reverse, const ffi::AnyBuffer& weight_ih,
                   const ffi::AnyBuffer& weight_hh, const ffi::AnyBuffer& bias_ih,
                   const ffi::AnyBuffer& bias_hh, const ffi::AnyBuffer& inputs,
                   const ffi::AnyBuffer& h0, const ffi::AnyBuffer& c0,
                   ffi::Result<ffi::AnyBuffer>& hidden_states, ffi::Result<ffi::AnyBuffer>& h,
                   ffi::Result<ffi::AnyBuffer>& c, ffi::Result<ffi::AnyBuffer>& saved) {
  const Models models(h->dimensions(), 2);
  std::vector<Forward<T>> layers(models.count());
  for (Index model = 0; model < models.count(); model++) {
    Forward<T>& layer = layers[model];
    static_cast<Layer<T>&>(layer) =
        make_layer<T>(models, model, reverse, inputs, weight_ih, weight_hh, h0, c0);
    layer.bias_ih = models.at<T>(bias_ih, model), layer.bias_hh = models.at<T>(bias_hh, model);
    layer.hidden_states = models.at<T>(hidden_states, model),
    layer.saved = models.at<T>(saved, model);
    layer.h = models.at<T>(h, model), layer.c = models.at<T>(c, model);
  }
  if (layers.empty() || h->element_count() == 0) return ffi::Error::Success();
  const Layer<T>& first = layers[0];
  const Index tiles = first.tiles(), items = tiles * models.count();
  const Index workers = count_workers(pool, first, items);
  const Index rows = first.features + first.hidden + 1, size = rows * first.columns();
  const Index scratch_each = divide_up(scratch_size(first), 16) * 16;
  const Memory<T> packed(size * models.count()), scratch(scratch_each * workers);
  if (!packed.get() || !scratch.get()) return no_memory();
  const Routines<T>& run = routines<T>();
  spread(pool, models.count(), workers, [&](Index model, Index) {
    Layer<T>& layer = layers[model];
    layer.packed_ih = packed.get() + size * model;
    layer.packed_hh = layer.packed_ih + layer.features * layer.columns();
    layer.packed_bias = layer.packed_hh + layer.hidden * layer.columns();
    run.pack_forward(layer);
  });
  spread(pool, items, workers, [&](Index item, Index worker) {
    run.forward(layers[item / tiles], item % tiles, scratch.get() + scratch_each * worker);
  });
  return ffi::Error::Success();
}

template <typename T>
ffi::Error backward(ffi::ThreadPool& pool, bool reverse, const ffi::AnyBuffer& weight_ih,
                    const ffi::AnyBuffer& weight_hh, const ffi::AnyBuffer& inputs,
                    const ffi::AnyBuffer& h0, const ffi::AnyBuffer& c0, const ffi::AnyBuffer& saved,
                    const ffi::AnyBuffer& d_hidden_states, const ffi::AnyBuffer& d_h,
                    const ffi::AnyBuffer& d_c, ffi::Result<ffi::AnyBuffer>& d_weight_ih,
                    ffi::Result<ffi::AnyBuffer>& d_weight_hh, ffi::Result<ffi::AnyBuffer>& d_bias,
                    ffi::Result<ffi::AnyBuffer>& d_inputs, ffi::Result<ffi::AnyBuffer>& d_h0,
                    ffi::Result<ffi::AnyBuffer>& d_c0) {
  const Models models(d_c0->dimensions(), 2);
  std::vector<Backward<T>> layers(models.count());
  for (Index model = 0; model < models.count(); model++) {
    Backward<T>& layer = layers[model];
    static_cast<Layer<T>&>(layer) =
        make_layer<T>(models, model, reverse, inputs, weight_ih, weight_hh, h0, c0);
    layer.saved = models.at<T>(saved, model);
    layer.d_hidden_states =
        d_hidden_states.element_count() ? models.at<T>(d_hidden_states, model) : nullptr;
    layer.d_h = models.at<T>(d_h, model), layer.d_c = models.at<T>(d_c, model);
    layer.d_weight_ih = models.at<T>(d_weight_ih, model),
    layer.d_weight_hh = models.at<T>(d_weight_hh, model);
    layer.d_bias = models.at<T>(d_bias, model), layer.d_inputs = models.at<T>(d_inputs, model);
    layer.d_h0 = models.at<T>(d_h0, model), layer.d_c0 = models.at<T>(d_c0, model);
  }
  if (layers.empty()) return ffi::Error::Success();
  const Backward<T>& first = layers[0];
  const Index tiles = first.tiles(), items = tiles * models.count();
  const Index workers = count_workers<T>(pool, first, items);
  // Weights for each model, with columns that fill the widest vectors; gradients for each tile.
  const Index size_ih = first.d_inputs ? divide_up(first.features, 16) * 16 * first.columns() : 0;
  const Index size = size_ih + divide_up(first.hidden, 16) * 16 * first.columns();
  const Index partial_size = first.partial_rows() * first.columns();
  const Index scratch_each = divide_up(scratch_size<T>(first), 16) * 16;
  const Memory<T> packed(size * models.count()), scratch(scratch_each * workers),
      partial(partial_size * items);
  if (!packed.get() || !scratch.get() || !partial.get()) return no_memory();
  const Routines<T>& run = routines<T>();
  spread(pool, models.count(), workers, [&](Index model, Index) {
    Backward<T>& layer = layers[model];
    layer.packed_ih = size_ih ? packed.get() + size * model : nullptr;
    layer.packed_hh = packed.get() + size * model + size_ih;
    layer.partial = partial.get() + partial_size * tiles * model;
    run.pack_backward(layer);
  });
  spread(pool, items, workers, [&](Index item, Index worker) {
    run.backward(layers[item / tiles], item % tiles, scratch.get() + scratch_each * worker);
  });
  // A small network's gradients are added up before another thread is awake.
  const Index rows = first.partial_rows();
  spread(pool, models.count() * rows, models.count() == 1 && first.small() ? 1 : workers,
         [&](Index item, Index) { run.add_up(layers[item / rows], item % rows); });
  return ffi::Error::Success();
}

ffi::Error forward_any(ffi::ThreadPool pool, ffi::AnyBuffer weight_ih, ffi::AnyBuffer weight_hh,
                       ffi::AnyBuffer bias_ih, ffi::AnyBuffer bias_hh, ffi::AnyBuffer inputs,
                       ffi::AnyBuffer h0, ffi::AnyBuffer c0,
                       ffi::Result<ffi::AnyBuffer> hidden_states, ffi::Result<ffi::AnyBuffer> h,
                       ffi::Result<ffi::AnyBuffer> c, ffi::Result<ffi::AnyBuffer> saved,
                       bool reverse) {
  const auto run = inputs.element_type() == ffi::F64 ? forward<double> : forward<float>;
  try {
    return run(pool, reverse, weight_ih, weight_hh, bias_ih, bias_hh, inputs, h0, c0, hidden_states,
               h, c, saved);
  } catch (const std::bad_alloc&) {
    return no_memory();
  }
}

ffi::Error backward_any(ffi::ThreadPool pool, ffi::AnyBuffer weight_ih, ffi::AnyBuffer weight_hh,
                        ffi::AnyBuffer inputs, ffi::AnyBuffer h0, ffi::AnyBuffer c0,
                        ffi::AnyBuffer saved, ffi::AnyBuffer d_hidden_states, ffi::AnyBuffer d_h,
                        ffi::AnyBuffer d_c, ffi::Result<ffi::AnyBuffer> d_weight_ih,
                        ffi::Result<ffi::AnyBuffer> d_weight_hh, ffi::Result<ffi::AnyBuffer> d_bias,
                        ffi::Result<ffi::AnyBuffer> d_inputs, ffi::Result<ffi::AnyBuffer> d_h0,
                        ffi::Result<ffi::AnyBuffer> d_c0, bool reverse) {
  const auto run = inputs.element_type() == ffi::F64 ? backward<double> : backward<float>;
  try {
    return run(pool, reverse, weight_ih, weight_hh, inputs, h0, c0, saved, d_hidden_states, d_h,
               d_c, d_weight_ih, d_weight_hh, d_bias, d_inputs, d_h0, d_c0);
  } catch (const std::bad_alloc&) {
    return no_memory();
  }
}

}  // namespace
}  // namespace lstm

// All else is hidden.
#define VISIBLE extern "C" __attribute__((visibility("default")))
VISIBLE XLA_FFI_Error* rnn_mnist_lstm_forward(XLA_FFI_CallFrame*);
VISIBLE XLA_FFI_Error* rnn_mnist_lstm_backward(XLA_FFI_CallFrame*);

using xla::ffi::AnyBuffer;

// By this, Python knows which version of this file the library was compiled from.
VISIBLE const char* rnn_mnist_lstm_source() { return LSTM_SOURCE; }

VISIBLE const char* rnn_mnist_lstm_level() {
  lstm::level();
  return lstm::chosen;
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(rnn_mnist_lstm_forward, lstm::forward_any,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<AnyBuffer>()  // weight_ih (F, 4H)
                                  .Arg<AnyBuffer>()  // weight_hh (H, 4H)
                                  .Arg<AnyBuffer>()  // bias_ih (4H)
                                  .Arg<AnyBuffer>()  // bias_hh (4H)
                                  .Arg<AnyBuffer>()  // inputs (B, T, F)
                                  .Arg<AnyBuffer>()  // h0 (B, H)
                                  .Arg<AnyBuffer>()  // c0 (B, H)
                                  .Ret<AnyBuffer>()  // hidden states (B, T or 0, H)
                                  .Ret<AnyBuffer>()  // h (B, H)
                                  .Ret<AnyBuffer>()  // c (B, H)
                                  .Ret<AnyBuffer>()  // saved (B, T or 0, 6 (P + 16))
                                  .Attr<bool>("reverse"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(rnn_mnist_lstm_backward, lstm::backward_any,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<AnyBuffer>()  // weight_ih
                                  .Arg<AnyBuffer>()  // weight_hh
                                  .Arg<AnyBuffer>()  // inputs
                                  .Arg<AnyBuffer>()  // h0
                                  .Arg<AnyBuffer>()  // c0
                                  .Arg<AnyBuffer>()  // saved
                                  .Arg<AnyBuffer>()  // gradient of hidden states (B, T or 0, H)
                                  .Arg<AnyBuffer>()  // of h
                                  .Arg<AnyBuffer>()  // of c
                                  .Ret<AnyBuffer>()  // of weight_ih
                                  .Ret<AnyBuffer>()  // of weight_hh
                                  .Ret<AnyBuffer>()  // of each bias
                                  .Ret<AnyBuffer>()  // of inputs (B, T or 0, F)
                                  .Ret<AnyBuffer>()  // of h0 (B or 0, H)
                                  .Ret<AnyBuffer>()  // of c0
                                  .Attr<bool>("reverse"));
#endif
