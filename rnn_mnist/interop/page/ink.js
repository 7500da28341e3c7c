// Ink: how much darker, or lighter, than its paper each pixel is. As pictures/ink.py has it. -----

const LEAST_CONTRAST = 16; // Between paper and ink, in grey levels.
const UNIFORM = 0.6; // The paper has one level if this share of the border has it.
const DARKEST = 24; // Levels; keeps the noise of dark paper low.

/** The difference from the level of the border, if the border has one level. */
function flatInk(grey) {
  const { width, height, values } = grey, border = [];
  for (let x = 0; x < width; x++) border.push(values[x], values[(height - 1) * width + x]);
  for (let y = 0; y < height; y++) border.push(values[y * width], values[(y + 1) * width - 1]);
  const ground = median(border);
  const share = border.filter((level) => level === ground).length / border.length;
  return share < UNIFORM ? null : inkFrom(grey, ground, "plain");
}

/** The difference from the most frequent level, if it is that of a quarter of the picture. */
function mostFrequentInk(grey) {
  const counts = histogram(grey.values), most = largest(counts);
  return most < 0.25 * grey.values.length ? null : inkFrom(grey, counts.indexOf(most), "level");
}

function inkFrom(grey, ground, name) {
  const lighter = largest(grey.values) - ground, darker = ground - smallest(grey.values);
  const contrast = Math.max(lighter, darker), sign = lighter > darker ? 1 : -1;
  if (contrast < LEAST_CONTRAST) return null;
  const ink = mapGrid(grey, (level) => Math.max(sign * (level - ground), 0) * (255 / contrast));
  return { name, ink, limit: threshold(ink.values) };
}

/** How much darker each pixel is than the paper around it; lighter, if the ink is light. */
function localInk(grey, reach, light) {
  if (light) grey = mapGrid(grey, (level) => 255 - level);
  const radius = Math.max(1, Math.floor(longest(grey) / 400)), count = (2 * radius + 1) ** 2;
  const smooth = boxSum(grey, radius);
  const ground = minimumFilter(maximumFilter(smooth, reach), reach);
  const ink = mapGrid(smooth, (level, k) => floorHalfUp(
    255 * (ground.values[k] - level) / (ground.values[k] + DARKEST * count)));
  if (largest(ink.values) < LEAST_CONTRAST) return null;
  return { name: `${light ? "light" : "dark"} ink ${reach}`, ink, limit: threshold(ink.values) };
}

/** How often each level occurs. */
function histogram(values) {
  const counts = new Float64Array(256);
  for (const value of values) counts[floorHalfUp(value)]++;
  return counts;
}

/** The threshold that best separates levels from 0 to 255 into two groups, by Otsu's method. */
function threshold(values) {
  const counts = histogram(values), total = values.length;
  const all = sum(counts.map((count, level) => count * level));
  let below = 0, sums = 0, most = -1, found = 0;
  counts.forEach((count, level) => {
    below += count;
    sums += count * level;
    const above = total - below;
    const apart = (all - sums) / Math.max(above, 1) - sums / Math.max(below, 1);
    const separation = below * above * (apart * apart);
    if (separation > most) [most, found] = [separation, level];
  });
  return found + 0.5;
}
