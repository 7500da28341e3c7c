// Ink: how much darker, or lighter, than its paper each pixel is. As pictures/ink.py has it. -----

const LEAST_CONTRAST = 16; // Between paper and ink, in grey levels.
const UNIFORM = 0.6; // The border is paper if this share of it has one level.
const FREQUENT = 0.25; // A level is paper if this share of the picture has it.
const REACHES = [4, 9]; // Ink is thinner than these parts of the picture's shorter side.
const DARKEST = 24; // Levels that are added to the paper's, so that noise in the dark is no ink.

/** Where ink is. */
const maskOf = ({ ink, limit }) => makeMask(ink, (value) => value > limit);

/** The difference from the level of the border, if most of the border has one level. */
function wholeInk(grey) {
  const border = borderOf(grey), ground = median(border);
  const even = border.filter((level) => level === ground).length >= UNIFORM * border.length;
  return even ? evenInk(grey, ground, "whole") : null;
}

/** Guess the ink in several ways, the plainest first. */
function* inkMaps(grey, plain) {
  if (plain) yield { ...plain, name: "even paper" };
  const counts = histogram(grey.values), most = largest(counts);
  if (most >= FREQUENT * grey.values.length) {
    const main = evenInk(grey, counts.indexOf(most), "main level");
    if (main && !(plain && equal(main.ink, plain.ink))) yield main;
  }
  const radius = Math.max(1, Math.floor(longest(grey) / 400)), count = (2 * radius + 1) ** 2;
  const smooth = boxSum(grey, radius);
  for (const part of REACHES) {
    const reach = Math.max(3, Math.floor(Math.min(grey.width, grey.height) / part)) | 1;
    for (const light of [false, true]) {
      const sums = light ? mapGrid(smooth, (total) => 255 * count - total) : smooth;
      const ink = localInk(sums, count, reach);
      if (largest(ink.values) < LEAST_CONTRAST) continue;
      const name = `${light ? "light" : "dark"} ink, 1/${part}`;
      yield { name, light, ink, limit: threshold(ink.values), fine: part === largest(REACHES) };
    }
  }
}

/** The difference from one level; null if it is too small. */
function evenInk(grey, ground, name) {
  const lighter = largest(grey.values) - ground, darker = ground - smallest(grey.values);
  const contrast = Math.max(lighter, darker), sign = lighter > darker ? 1 : -1;
  if (contrast < LEAST_CONTRAST) return null;
  const ink = mapGrid(grey, (level) => Math.max(sign * (level - ground), 0) * (255 / contrast));
  return { name, light: lighter > darker, ink, limit: threshold(ink.values) };
}

/** How much darker each pixel is than the paper around it, by sums of `count` levels. */
function localInk(sums, count, reach) {
  const ground = minimumFilter(maximumFilter(sums, reach), reach).values;
  return mapGrid(sums, (total, k) =>
    rounded(255 * (ground[k] - total) / (ground[k] + DARKEST * count)));
}

/** How often each level occurs. */
function histogram(values) {
  const counts = new Float64Array(256);
  for (let k = 0; k < values.length; k++) counts[rounded(values[k])]++;
  return counts;
}

/** The threshold that best separates levels from 0 to 255 into two groups, by Otsu's method. */
function threshold(values) {
  const counts = histogram(values);
  const all = sum(counts.map((count, level) => count * level));
  let below = 0, sums = 0, most = -1, found = 0;
  counts.forEach((count, level) => {
    below += count;
    sums += count * level;
    const above = values.length - below;
    const apart = (all - sums) / Math.max(above, 1) - sums / Math.max(below, 1);
    const separation = below * above * (apart * apart);
    if (separation > most) [most, found] = [separation, level];
  });
  return found + 0.5;
}
