// Readings: a picture in several ways, and the best. As pictures/readings.py has it. -------------

const MOST_LIKELY = 3; // All images that look at least this much like a digit are equally good.
const ENOUGH = 1; // If the whole picture has this score, and an empty edge, nothing else is tried.
const MOST_INK = 0.6; // Of a picture. More is no ink.
const LINES = [["", null], ["without long lines", 0.85], ["without lines", 0.65]];
const LIKE_PAPER = 1; // Light ink on a picture that is mostly light, or dark ink on a dark one.
const UNLIKE_DIGITS = -1; // Things that look less like a digit are not counted.
const EMPTY = -12; // Below this score, it is a frame, lines or a dot, or another kind of thing.
const UNCLEAR = 0; // Below this score, something else may be the digit.
const SMALLEST = 0.15; // Things below this share of the picture are small.
// What makes a reading less plausible, in units of the score.
const INSIDE = 0.8, ALL = 1.3, FEWER_LINES = 0.7, SECOND = 1.5, SMALL = 2, HOLE = 2, SEVERAL = 0.7;
const FINE = 1.2; // Maps for thin ink: they can miss strokes, and take spots of paper for ink.

const judge = (() => { // A network with one hidden layer, as pictures/judge.py has it.
  const { units, weights, numbers } = data.judge;
  const floats = new Float64Array(bytes(numbers).buffer);
  const [scale, bias, out] = [0, 1, 2].map((k) => floats.subarray(k * units, (k + 1) * units));
  return { weights: new Int8Array(bytes(weights).buffer), scale, bias, out, offset: floats.at(-1) };
})();

/** The log-odds that an image is a digit and nothing else. */
function likelihood(image) {
  const { weights, scale, bias, out, offset } = judge, units = bias.length;
  const hidden = new Float64Array(units);
  image.forEach((level, pixel) => {
    if (!level) return;
    for (let k = 0; k < units; k++) hidden[k] += level * weights[pixel * units + k];
  });
  return sum(hidden.map((x, k) => Math.max(x * scale[k] + bias[k], 0) * out[k])) + offset;
}

/** Read a picture in all ways, step by step. Returns the readings; the best is first. */
function* readings(grey) {
  const found = [];
  for (const candidate of candidates(grey)) {
    found.push(candidate);
    if (isEnough(candidate)) break;
    yield;
  }
  return found.sort((a, b) => b.score - a.score);
}

/** Whether a reading is the whole picture, and shows a digit with nothing around it. */
const isEnough = ({ name, score, plan: { things, labels } }) => name === "whole"
  && score >= ENOUGH && !things.some(({ box }) => touches(box, labels));

/** The best reading, { name, image, doubts }, or null if nothing is drawn. */
const bestOf = (found) =>
  found.length ? { ...found[0], doubts: plainDoubts(found[0]), readings: found } : null;

/** Read the whole picture as one thing, or return null. */
function readWhole(grey) {
  const plain = wholeInk(grey);
  return plain && { image: toImage(plain.ink), doubts: [] };
}

/** Read a picture at once. */
function read(grey) {
  const steps = readings(grey);
  for (let step = steps.next(); ; step = steps.next()) if (step.done) return bestOf(step.value);
}

/** Read a picture, and let the page live between the steps. */
async function readCalmly(grey) {
  const steps = readings(grey);
  let begun = performance.now();
  for (let step = steps.next(); ; step = steps.next()) {
    if (step.done) return bestOf(step.value);
    if (performance.now() < begun + 30) continue;
    await new Promise((done) => setTimeout(done));
    begun = performance.now();
  }
}

/** All readings, the plainest first. */
function* candidates(picture) {
  const { values } = picture, plain = wholeInk(picture);
  if (plain) yield wholeCandidate(plain);
  const middle = (smallest(values) + largest(values)) / 2;
  const grey = { ...picture, light: median(values) > middle };
  for (const ink of inkMaps(grey, plain)) {
    const seen = new Set();
    for (const plan of plans(ink)) {
      for (const [rank, thing] of plan.things.slice(0, 2).entries()) {
        const key = JSON.stringify([thing.box, sum(thing.parts.map(({ area }) => area))]);
        const known = seen.has(key) || strength(plan, thing) < LEAST_CONTRAST;
        if (!known) yield candidateOf(plan, thing, rank, grey);
        seen.add(key);
      }
    }
  }
}

/** The whole picture as one thing. */
function wholeCandidate(plain) {
  const { labels, parts } = connected(maskOf(plain));
  const things = thingsOf(parts), image = toImage(plain.ink);
  const penalty = comparable(things, sideOf(things[0].box)).length > 1 ? SEVERAL : 0;
  const score = Math.min(likelihood(image), MOST_LIKELY) - penalty;
  return { name: "whole", image, score, box: things[0].box, plan: { ink: plain, labels, things } };
}

/** What may be drawn, by one map of ink: the things that each way to read it finds. */
function* plans(ink) {
  const mask = maskOf(ink), inked = sum(mask.values);
  if (!inked || inked > MOST_INK * mask.values.length) return;
  const lines = findLines(mask);
  for (const [cut, share] of LINES) {
    const left = share ? withoutLines(mask, lines, share) : mask;
    if (share && equal(left, mask)) continue;
    const all = connected(left), cost = (share ? FEWER_LINES : 0) + (ink.fine ? FINE : 0);
    const chosen = [["inside", inside(all), INSIDE], ["all", notFilled(all), ALL]];
    for (const [name, parts, penalty] of chosen) {
      const title = [ink.name, name, cut].filter(Boolean).join(", ");
      const things = thingsOf(parts);
      yield { name: title, ink, mask, labels: all.labels, things, penalty: penalty + cost };
    }
  }
}

/** The image of a thing, and how good it is. */
function candidateOf(plan, thing, rank, grey) {
  const image = toImage(drawnInk(plan, thing)), name = rank ? `${plan.name}, second` : plan.name;
  const penalty = plan.penalty + SECOND * rank + implausible(plan, thing.box, grey);
  const score = Math.min(likelihood(image), MOST_LIKELY) - penalty;
  return { name, image, score, box: thing.box, plan };
}

/** Where a part of a picture belongs to a thing. */
function maskOfThing({ labels }, thing, place) {
  const wanted = new Set(thing.parts.map(({ label }) => label));
  return makeMask(cutOut(labels, place), (label) => wanted.has(label));
}

/** The median of a thing's ink; low if it is only noise. */
function strength(plan, thing) {
  const kept = maskOfThing(plan, thing, thing.box).values;
  return median(cutOut(plan.ink.ink, thing.box).values.filter((_, k) => kept[k]));
}

/** The ink of a thing: fully dark inside, with the soft edge of its strokes. */
function drawnInk(plan, thing) {
  const { ink: { ink, limit }, labels } = plan;
  const soft = Math.max(1, Math.floor(longest(labels) / 200));
  const place = grown(thing.box, soft, labels), part = cutOut(ink, place);
  const kept = maskOfThing(plan, thing, place), full = strength(plan, thing);
  const around = maximumFilter(kept, 2 * soft + 1).values;
  return mapGrid(part, (value, k) => around[k] && (kept.values[k] || value <= limit)
    ? Math.min(Math.max((value - limit / 2) / (full - limit / 2), 0), 1) * 255 : 0);
}

/** The penalty of a thing that is small, or that is a hole in the ink of another. */
function implausible({ ink, mask }, box, grey) {
  const side = sideOf(box);
  let penalty = SMALL * Math.max(0, 1 - side / (SMALLEST * longest(grey)));
  if (ink.light === grey.light) penalty += LIKE_PAPER;
  const at = grown(box, Math.max(2, Math.floor(side / 20)), grey);
  const inked = cutOut(mask, at).values, levels = cutOut(grey, at).values;
  if (!inked.includes(0)) return penalty + HOLE;
  // Around ink is paper. Around a hole is ink, and then what is in the hole, too.
  const mean = (kind) => {
    const chosen = levels.filter((_, k) => inked[k] === kind);
    return sum(chosen) / chosen.length;
  };
  const dark = mean(1), light = mean(0);
  const likeInk = (values) => values.reduce((count, level) =>
    Math.abs(level - dark) < Math.abs(level - light) ? count + 1 : count, 0);
  const [near, far] = [0.12, 0.3].map((share) =>
    cutOut(grey, grown(box, roundEven(share * side), grey)).values);
  const like = likeInk(far) - likeInk(near) > 0.6 * (far.length - near.length);
  return like ? penalty + HOLE : penalty;
}

/** The things that are not much smaller than one of this side. */
const comparable = (things, side) => things.filter(({ box }) => sideOf(box) >= 0.4 * side);

/** What is doubtful without asking the network. As pictures/drawing.py has it. */
function plainDoubts({ name, score, box, plan }) {
  const area = ({ box }) => heightOf(box) * widthOf(box), same = (other) =>
    ["top", "left", "bottom", "right"].every((side) => other[side] === box[side]);
  const others = comparable(plan.things, sideOf(box)).filter((thing) =>
    !same(thing.box) && likelihood(toImage(drawnInk(plan, thing))) > UNLIKE_DIGITS);
  const found = [], most = Math.max(...others.map(area));
  if (others.length) {
    const which = area({ box }) >= most ? "the largest" : "the clearest";
    found.push(`${others.length + 1} things are drawn; predicted ${which}`);
  }
  if (score < EMPTY) found.push("perhaps nothing is drawn on it");
  else if (score < UNCLEAR && name !== "whole") {
    found.push("it is unclear what is drawn and what surrounds it");
  }
  return found;
}
