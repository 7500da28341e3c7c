// Parts: what is connected in a mask, grouped into things. As pictures/parts.py has it. ----------

const MOST_PARTS = 300; // Of a picture; the smallest are left out.
const heightOf = ({ top, bottom }) => bottom - top, widthOf = ({ left, right }) => right - left;
const sideOf = (box) => Math.max(heightOf(box), widthOf(box));

/** A box with a margin around it, within a picture. */
const grown = ({ top, left, bottom, right }, margin, { width, height }) => ({
  top: Math.max(0, top - margin), left: Math.max(0, left - margin),
  bottom: Math.min(height, bottom + margin), right: Math.min(width, right + margin),
});

/** Find the parts of a mask, the largest first: { labels, parts }. */
function connected(mask) {
  const labels = labelled(mask), { width, height } = mask;
  const parts = Array.from({ length: labels.count }, (_, k) => (
    { label: k + 1, area: 0, box: { top: height, left: width, bottom: 0, right: 0 } }));
  for (let y = 0, k = 0; y < height; y++) {
    for (let x = 0; x < width; x++, k++) {
      if (!labels.values[k]) continue;
      const part = parts[labels.values[k] - 1], { box } = part;
      part.area++;
      if (y < box.top) box.top = y;
      if (y >= box.bottom) box.bottom = y + 1;
      if (x < box.left) box.left = x;
      if (x >= box.right) box.right = x + 1;
    }
  }
  return { labels, parts: parts.sort((a, b) => b.area - a.area).slice(0, MOST_PARTS) };
}

/** The parts that do not touch the edge of the picture, and are neither lines nor frames. */
function inside({ labels, parts }) {
  const kept = parts.filter(({ box }) => !touches(box, labels));
  return kept.filter((part) => !isLine(part.box) && !isFrame(part, labels, kept));
}

/** All parts but strips and corners: filled, and at the edge of the picture. */
const notFilled = ({ labels, parts }) => parts.filter(({ box, area }) =>
  !touches(box, labels) || area < 0.75 * heightOf(box) * widthOf(box));

const touches = ({ top, left, bottom, right }, { width, height }) =>
  top === 0 || left === 0 || bottom === height || right === width;

/** Whether a part is much longer than a digit. A 1 can be thin. */
const isLine = (box) => widthOf(box) > 8 * heightOf(box) || heightOf(box) > 25 * widthOf(box);

/** Whether most of a part lies along its own box, and around another part. */
function isFrame({ label, area, box }, labels, others) {
  const shorter = Math.min(heightOf(box), widthOf(box));
  const within = (other) => other.top > box.top && other.left > box.left
    && other.bottom < box.bottom && other.right < box.right;
  if (!others.some((other) => within(other.box) && sideOf(other.box) > 0.1 * shorter)) return false;
  const rim = Math.max(1, roundEven(0.12 * shorter));
  let inner = 0;
  for (let y = box.top + rim; y < box.bottom - rim; y++) {
    for (let x = box.left + rim; x < box.right - rim; x++) {
      if (labels.values[y * labels.width + x] === label) inner++;
    }
  }
  return inner < 0.15 * area;
}

/** Group parts into things. The one with the largest box is first; specks are left out. */
function thingsOf(parts) {
  const most = Math.max(...parts.map(({ box }) => sideOf(box))), found = [];
  let left = parts.filter(({ box, area }) =>
    sideOf(box) >= 0.12 * most || area > 0.05 * parts[0].area);
  while (left.length) {
    let thing = joined([left.shift()]), near;
    while ((near = left.filter(({ box }) => belongs(box, thing))).length) {
      left = left.filter((part) => !near.includes(part));
      thing = joined([...thing.parts, ...near]);
    }
    found.push(thing);
  }
  const area = ({ box }) => heightOf(box) * widthOf(box);
  return found.sort((a, b) => area(b) - area(a));
}

/** A thing of these parts. Its pen is about the width of its strokes; more, if these turn. */
const joined = (parts) => ({
  parts,
  pen: 0.7 * Math.max(...parts.map(({ area, box }) => area / sideOf(box))),
  box: {
    top: Math.min(...parts.map(({ box }) => box.top)),
    left: Math.min(...parts.map(({ box }) => box.left)),
    bottom: Math.max(...parts.map(({ box }) => box.bottom)),
    right: Math.max(...parts.map(({ box }) => box.right)),
  },
});

/** Whether a part is so near to a thing that it is a piece of it. */
function belongs(part, { box, pen }) {
  const down = Math.max(part.top - box.bottom, box.top - part.bottom), side = sideOf(box);
  const across = Math.max(part.left - box.right, box.left - part.right);
  if (-across > 0.4 * Math.min(widthOf(part), widthOf(box))) { // One is above the other.
    return down < Math.max((sideOf(part) < 0.6 * side ? 0.25 : 0.1) * side, pen);
  }
  if (-down > 0.4 * Math.min(heightOf(part), heightOf(box))) return across < 0.08 * side; // Beside.
  return Math.max(down, across) < 0.06 * side;
}
