// Doubts: what is doubtful about an answer. As inference/doubts.py has it. -----------------------

const NEARLY = 1.25; // Readings whose score is at most this much below the best are nearly as good.
const SURE = 0.5; // Another reading counts if its answer has at least this probability.
const CLOSE = 0.3; // The second answer is close if the first is at most this much more probable.
// A digit is turned if another position looks this much more like one, and this one hardly does.
const BETTER = 3, HARDLY = 1.5, MOST = 0.8;
const TURNS = ["to the left", "upside down", "to the right"];

/** Say what is doubtful about the answer to a reading, in sentences without a full stop. */
function doubtsAbout({ image, doubts, readings }) {
  const shares = answerTo(image), first = best(shares), said = [...doubts];
  for (const question of [...readOtherwise(readings), ...turnedUpright(image)]) {
    const answer = answerTo(question.image), other = best(answer);
    const least = question.turned ? Math.max(MOST, shares[first] - 0.02) : SURE;
    if (other === first || answer[other] <= least) continue;
    said.push(`${question.words}, it is ${named(other)}, ${percent(answer[other])}`);
  }
  const second = ranked(shares)[1];
  if (shares[first] - shares[second] < CLOSE) said.push(`it may also be ${named(second)}`);
  return said;
}

const answerTo = (image) => reader(image).after(steps);

/** Readings that are nearly as good as the best. */
const readOtherwise = ([first, ...others]) =>
  others.filter(({ score }) => score > first.score - NEARLY).slice(0, 3).map(({ name, image }) =>
    ({ image, words: `read in another way (${name})` }));

/** The drawing in the position in which it looks most like a digit, if it is not upright. */
function turnedUpright(image) {
  const upright = likelihood(image);
  if (upright > HARDLY || noun !== "digit") return [];
  let grid = makeGrid(SIDE, SIDE, Float64Array.from(image));
  const positions = TURNS.map((words) => {
    grid = turnedLeft(grid);
    const turned = toImage(grid);
    return { turned: true, image: turned, words: `turned ${words}`, score: likelihood(turned) };
  });
  const found = positions.reduce((a, b) => b.score > a.score ? b : a);
  return found.score < upright + BETTER ? [] : [found];
}

/** A square grid, turned by a quarter to the left. */
const turnedLeft = ({ width, height, values }) => makeGrid(width, height, values.map((_, k) =>
  values[(k % width) * width + width - 1 - Math.floor(k / width)]));
