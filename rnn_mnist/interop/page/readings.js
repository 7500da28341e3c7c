// Readings: several ways to read a picture, and the best. As pictures/readings.py has it. --------

const judge = (() => {
  const { units, weights, numbers } = data.judge;
  const floats = new Float64Array(bytes(numbers).buffer);
  return {
    units, weights: new Int8Array(bytes(weights).buffer), offset: floats[3 * units],
    scale: floats.subarray(0, units), bias: floats.subarray(units, 2 * units),
    out: floats.subarray(2 * units, 3 * units),
  };
})();

/** The log-odds that an image is a digit and nothing else. */
function likenessOf(image) {
  const hidden = new Float64Array(judge.units);
  image.forEach((level, pixel) => {
    if (!level) return;
    for (let k = 0, at = pixel * judge.units; k < judge.units; k++) hidden[k] += level * judge.weights[at++];
  });
  return judge.offset + sum(hidden.map((value, k) =>
    Math.max(value * judge.scale[k] + judge.bias[k], 0) * judge.out[k]));
}

/** Read a picture: { image, name, doubts }, or null if nothing is drawn. */
function read(grey) {
  const found = candidates(grey).map((candidate) => {
    const image = toImage(candidate.ink);
    return { ...candidate, image, score: Math.min(likenessOf(image), 3) - candidate.penalty };
  });
  found.sort((a, b) => b.score - a.score);
  return found.length ? { ...found[0], doubts: [], readings: found } : null;
}

function candidates(grey) {
  const whole = flatInk(grey), side = Math.min(grey.width, grey.height), found = [];
  if (whole) found.push({ name: "whole", ink: whole.ink, penalty: 0, count: 1 });
  const maps = [whole, mostFrequentInk(grey)];
  for (const reach of [Math.floor(side / 4), Math.floor(side / 9)]) {
    for (const light of [false, true]) maps.push(localInk(grey, Math.max(3, reach) | 1, light));
  }
  return [...found, ...maps.filter(Boolean).flatMap((map) => candidatesOf(map, grey))];
}

function candidatesOf(map, grey) {
  const mask = makeMask(map.ink, (value) => value > map.limit), inked = sum(mask.values);
  if (!inked || inked > 0.6 * mask.values.length) return [];
  const seen = new Set(), lines = findLines(mask), found = [];
  for (const [name, share] of [["", 0], ["without long lines", 0.85], ["without lines", 0.65]]) {
    const kept = share ? withoutLines(mask, lines, share) : mask;
    if (share && kept.values.every((value, k) => value === mask.values[k])) continue;
    const all = connected(kept);
    const chosen = [[`${map.name} inside`, insideOf(all), 0.5]];
    if (!share) chosen.push([map.name, all.parts, 1]);
    for (const [title, parts, penalty] of chosen) {
      const groups = thingsOf(parts);
      groups.slice(0, 2).forEach((group, rank) => {
        const box = around(group), key = JSON.stringify([box, sum(group.map((p) => p.area))]);
        if (seen.has(key)) return;
        seen.add(key);
        found.push({
          name: `${title} ${name} ${rank}`.trim(), box,
          ink: rendered(map, all.labels, group),
          penalty: penalty + (share ? 0.7 : 0) + 1.5 * rank + implausible(mask, grey, box),
          count: groups.filter((g) => areaOfBox(around(g)) > 0.2 * areaOfBox(around(groups[0]))).length,
        });
      });
    }
  }
  return found;
}

function implausible(mask, grey, box) {
  const size = sizeOf(box);
  let penalty = 2 * Math.max(0, 1 - size / (0.15 * longest(grey)));
  const inner = grown(box, Math.max(2, roundEven(0.05 * size)), grey);
  const levels = cut(grey, inner).values, inked = cut(mask, inner).values;
  const mean = (wanted) => {
    const chosen = levels.filter((_, k) => inked[k] === wanted);
    return sum(chosen) / chosen.length;
  };
  const ink = mean(1), paper = mean(0);
  const like = (values) => values.filter((v) => Math.abs(v - ink) < Math.abs(v - paper)).length;
  const near = cut(grey, grown(box, roundEven(0.12 * size), grey)).values;
  const far = cut(grey, grown(box, roundEven(0.3 * size), grey)).values;
  const total = far.length - near.length;
  if (total && like(far) - like(near) > 0.6 * total) penalty += 1;
  return penalty;
}

/** A box with a margin, within a picture. */
const grown = ({ top, left, bottom, right }, margin, { width, height }) => ({
  top: Math.max(0, top - margin), left: Math.max(0, left - margin),
  bottom: Math.min(height, bottom + margin), right: Math.min(width, right + margin),
});

/** The ink of a group of parts, from 0 to 255, with the soft edges of its strokes. */
function rendered({ ink, limit }, labels, group) {
  const soft = Math.max(1, Math.floor(longest(labels) / 200));
  const box = grown(around(group), soft, labels), part = cut(ink, box);
  const numbers = new Set(group.map(({ label }) => label));
  const kept = makeMask(cut(labels, box), (label) => numbers.has(label));
  const full = median(part.values.filter((_, k) => kept.values[k]));
  const edge = maximumFilter(kept, 2 * soft + 1).values;
  return mapGrid(part, (value, k) => edge[k] && !(value > limit && !kept.values[k])
    ? Math.min(Math.max((value - limit / 2) / (full - limit / 2), 0), 1) * 255 : 0);
}
