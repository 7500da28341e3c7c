const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const { classes, noun, steps, word, bidirectional } = data;
const SIDE = 28, BOX = 20; // MNIST scaled its digits to 20x20 pixels and put them in 28x28.
const SIZE = 280, PEN = 22; // The drawing and the pen, as thick as the strokes of MNIST.
const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const sum = (values) => values.reduce((a, b) => a + b, 0);

// The network: PyTorch's LSTM and Linear, in doubles. ------------------------------------------

const tensors = {}, { buffer } = bytes(data.weights);
let offset = 0;
for (const [name, shape] of data.tensors) {
  tensors[name] = new Float32Array(buffer, offset, shape.reduce((a, b) => a * b));
  offset += tensors[name].byteLength;
}

/** Add the product of the matrix (out.length, x.length) and x to `out`. */
function addProduct(out, matrix, x) {
  for (let row = 0, at = 0; row < out.length; row++) {
    let total = out[row];
    for (let k = 0; k < x.length; k++) total += matrix[at++] * x[k];
    out[row] = total;
  }
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** Compute the hidden states of a layer in one direction, for a sequence of vectors. */
function lstm(stack, name, sequence) {
  const [ih, hh, biasIh, biasHh] = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"].map(
    (kind) => tensors[`${stack}.${kind}_${name}`]);
  const size = biasIh.length / 4, gates = new Float64Array(4 * size);
  const bias = Float64Array.from(biasIh, (value, k) => value + biasHh[k]);
  const cell = new Float64Array(size);
  let hidden = new Float64Array(size);
  return sequence.map((x) => {
    gates.set(bias);
    addProduct(gates, ih, x);
    addProduct(gates, hh, hidden);
    hidden = hidden.map((_, k) => {
      const [i, f, g, o] = [gates[k], gates[k + size], gates[k + 2 * size], gates[k + 3 * size]];
      cell[k] = sigmoid(f) * cell[k] + sigmoid(i) * Math.tanh(g);
      return sigmoid(o) * Math.tanh(cell[k]);
    });
    return hidden;
  });
}

/** Compute the hidden states of a layer. Those of both directions are side by side. */
function layer(stack, number, sequence, bothWays) {
  const forward = lstm(stack, `l${number}`, sequence);
  const back = bothWays ? lstm(stack, `l${number}_reverse`, [...sequence].reverse()).reverse() : [];
  return forward.map((hidden, t) => Float64Array.of(...hidden, ...(back[t] ?? [])));
}

/** Compute the hidden states of the top layer. */
function layers(sequence) {
  for (let k = 0; k < data.numLayers; k++) sequence = layer("lstm", k, sequence, bidirectional);
  return sequence;
}

/** Let an inner network, if there is one, read the parts of each step: columns, then rows. */
function readInner(sequence) {
  const size = data.innerValues;
  if (!size) return sequence;
  const places = [...Array(sequence[0].length / size).keys()];
  const columns = places.map((k) => layer(
    "inner", 0, sequence.map((values) => values.subarray(k * size, (k + 1) * size)), true));
  return sequence.map((_, t) => Float64Array.from(
    layer("inner", 1, columns.map((column) => column[t]), true).flatMap((hidden) => [...hidden])));
}

/** Compute the probabilities of the classes: the linear layer and softmax. */
function head(hidden) {
  const logits = Float64Array.from(tensors["hidden2digits.bias"]);
  addProduct(logits, tensors["hidden2digits.weight"], hidden);
  const most = Math.max(...logits), shares = logits.map((logit) => Math.exp(logit - most));
  const total = sum(shares);
  return shares.map((share) => share / total);
}

/** The states that the linear layer reads: the last hidden state of each direction. */
function lastStates(hidden) {
  if (!bidirectional) return hidden.at(-1);
  const half = hidden[0].length / 2;
  return Float64Array.of(...hidden.at(-1).slice(0, half), ...hidden[0].slice(half));
}

const { likeness } = data; // Its arrays are a kernel, biases and weights.
const likenessArrays = new Float32Array(likeness ? bytes(likeness.weights).buffer : 0);

/** How unlike those of the training images the top layer's hidden states are. */
function unlikeness(hidden) {
  const { units } = likeness, size = hidden[0].length, arrays = likenessArrays;
  const mean = hidden[0].map((_, k) => sum(hidden.map((state) => state[k])) / steps);
  const deviation = mean.map((middle, k) =>
    Math.sqrt(sum(hidden.map((state) => (state[k] - middle) ** 2)) / steps));
  const features = [...mean, ...deviation, ...lastStates(hidden)];
  let score = 0;
  for (let unit = 0; unit < units; unit++) {
    let total = arrays[3 * size * units + unit];
    features.forEach((feature, k) => { total += feature * arrays[k * units + unit]; });
    score += Math.max(total, 0) * arrays[(3 * size + 1) * units + unit];
  }
  return score;
}

/**
 * Prepare to compute the probabilities of an image (784 levels from 0 to 255) after every step.
 *
 * With one direction, one pass gives all of them. With two directions or an inner network, the
 * first steps of the image are a new sequence for every number of steps, read when it is needed.
 */
function reader(image) {
  const sequence = data.places.map((pixels) =>
    Float64Array.from(pixels, (pixel) => (image[pixel] ?? 0) / 255));
  const states = (count) => layers(readInner(sequence.slice(0, count)));
  let all, verdict, next = 1;
  const whole = () => all ??= states(steps);
  const known = bidirectional || data.innerValues ? [] : whole().map(head);
  const after = (count) =>
    known[count - 1] ??= head(lastStates(count === steps ? whole() : states(count)));
  /** Compute until that time. Returns whether all steps are known. */
  const complete = (until = Infinity) => {
    while (next <= steps && (known[next - 1] || performance.now() < until)) after(next++);
    return next > steps;
  };
  /** Whether the image is unlike all that the network was trained on. */
  const unlike = () => verdict ??= Boolean(likeness) && unlikeness(whole()) > likeness.limit;
  return { known, after, complete, unlike };
}

const best = (belief) => belief.indexOf(Math.max(...belief));

/** Find the first step, counted from 1, from which the answer stays the same. */
function madeUpMind(beliefs) {
  const answer = best(beliefs.at(-1));
  return beliefs.findLastIndex((belief) => best(belief) !== answer) + 2;
}
