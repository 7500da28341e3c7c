// Reading: the image, the number of steps read, and what moves them: pen, clock or slider. -----

let image = null, network = null, step = 0;
let doubts = []; // What is doubtful about the image.
let pen = null; // The pointer that draws.
let unread = false, earliest = 0; // Whether there is new ink, and the earliest time to read it.
let playing = null; // { duration, since, from } of an animation.
let settled = true; // Whether everything is computed, shown and announced.
let awake = false; // Whether a frame is requested.
const still = matchMedia("(prefers-reduced-motion: reduce)");

/** Read the current drawing or picture. */
function look() {
  unread = false;
  const found = picture ?? (strokes.length ? readDrawing(levels($("ink"))) : null);
  image = found && found.image;
  doubts = found?.doubts ?? [];
  network = image && reader(image);
  step = image ? steps : 0;
}

/** Read the strokes. While the pen is down, the plainest reading is enough, and quick. */
function readDrawing(grey) {
  if (pen !== null) return readWhole(grey);
  const found = read(grey);
  return found && { image: found.image, doubts: doubtsAbout(found) };
}

/** Replace the drawing by a picture, or by nothing. */
function show(next) {
  replace([], next);
  changed();
}

function changed() {
  note("");
  redraw();
  look();
  play(1000, still.matches ? steps : 0);
}

/** Show the reading from a step on to its end. */
function play(duration, from) {
  step = image ? from : 0;
  playing = image && step < steps ? { duration, since: null, from } : null;
  settled = !image;
  $("said").textContent = "";
  wake();
}

function pause() {
  playing = null;
  wake();
}

function wake() {
  if (!awake) requestAnimationFrame(tick);
  awake = true;
}

function tick(now) {
  awake = false;
  if (unread && performance.now() >= earliest) {
    const begun = performance.now();
    look();
    network?.after(steps);
    earliest = 4 * performance.now() - 3 * begun; // A slow network must not slow down the pen.
  }
  if (playing) {
    playing.since ??= now;
    const moved = Math.floor((now - playing.since) / playing.duration * (steps + 1));
    step = Math.min(playing.from + Math.max(0, moved), steps);
    if (step === steps) playing = null;
  }
  const known = network?.complete(pen === null ? performance.now() + 8 : 0);
  const ends = known && !playing && !settled && pen === null;
  if (ends) settled = true;
  render(known);
  if (ends) $("said").textContent = spoken();
  if (unread || playing || (!settled && pen === null)) wake();
}

// Output: what the page shows, and what a screen reader says. -------------------------------------

const SPACE = "\u00a0"; // Numbers and their units stay on one line.
const UNLIKE = `This is unlike any ${noun}.`;
const UNREAD = `No ${word} is read yet.`;
const INVITATION = `Draw a ${noun}, or open a picture of one.`;

/** Format a probability in per cent, never as 0 % or 100 %. */
function percent(share) {
  if (share >= 0.9995) return "> 99.9 %".replaceAll(" ", SPACE);
  return share < 0.0005 ? "< 0.1 %".replaceAll(" ", SPACE) : `${(100 * share).toFixed(1)}${SPACE}%`;
}

const ranked = (belief) => [...belief.keys()].sort((a, b) => belief[b] - belief[a]);

const counted = (count) => `${count} of ${steps}`.replaceAll(" ", SPACE);

/** The name of a class in a sentence. Arabic and Hebrew names keep the order of the words. */
const named = (label) =>
  /^[ -\u02ff]*$/.test(classes[label]) ? classes[label] : `\u2068${classes[label]}\u2069`;

/** Name what is being read. At the end, say whether the answer for a sample is right. */
function subject() {
  if (!image) return strokes.length ? "Nothing can be read here." : "Nothing is drawn yet.";
  if (picture?.label === undefined) {
    return `Your ${picture ? "picture" : "drawing"}${step && !isOdd() ? " looks like" : ""}`;
  }
  const right = best(network.after(steps)) === picture.label;
  const verdict = step === steps ? `: ${right ? "right" : "wrong"}` : "";
  return `Sample${SPACE}${picture.number}, label${SPACE}${named(picture.label)}${verdict}`;
}

/** Say what the page shows: the whole reading, or where it is paused. */
function spoken() {
  if (!step) return `Paused. ${UNREAD}`;
  const belief = network.after(step), odd = isOdd();
  const [first, second] = ranked(belief).map((k) => `${named(k)}, ${percent(belief[k])}`);
  const then = second ? `, then ${second}` : "";
  if (step < steps) return `Paused at ${word}${SPACE}${counted(step)}. So far: ${first}${then}.`;
  return [
    odd ? `${UNLIKE} The nearest class is ${first}.` : `The answer is ${first}${then}.`,
    `Decided at ${word}${SPACE}${counted(madeUpMind(network.known))}.`,
    ...(picture?.label === undefined ? doubts.map(sentence) : [`${subject()}.`]),
  ].join(" ");
}

/** Whether the whole image is read and is unlike all that the network was trained on. */
const isOdd = () => step === steps && pen === null && network.unlike();

/** Words as a sentence. A number stays with what it counts. */
const sentence = ([first, ...others]) =>
  `${first.toUpperCase()}${others.join("")}.`.replace(/(\d) /g, `$1${SPACE}`);

/** Show a line about what cannot be done. It is read aloud at once. */
function note(text) {
  $("note").textContent = text;
}

/** Paint an image into a canvas of 28x28. Only the first `count` steps are read. */
function paintCells(canvas, image, count) {
  const context = canvas.getContext("2d");
  const { color, caretColor: tint } = getComputedStyle($("paper"));
  context.clearRect(0, 0, SIDE, SIDE);
  if (image) data.readAt.forEach((at, pixel) => {
    const [x, y] = [pixel % SIDE, Math.floor(pixel / SIDE)];
    [context.fillStyle, context.globalAlpha] = [tint, 1];
    if (at >= count) context.fillRect(x, y, 1, 1);
    [context.fillStyle, context.globalAlpha] = [color, image[pixel] / 255];
    if (at >= count) context.globalAlpha *= 0.12;
    context.fillRect(x, y, 1, 1);
  });
}

/** Paint the answers so far along the slider. Equal answers in a row form one block. */
function paintRuns(known) {
  const runs = [], room = $("runs").clientWidth / steps;
  for (let t = 0; known && t < step; t++) {
    const winner = best(network.known[t]);
    if (runs.at(-1)?.winner !== winner) runs.push({ winner, count: 0 });
    runs.at(-1).count++;
  }
  $("runs").replaceChildren(...runs.map(({ winner, count }, k) => {
    const run = document.createElement("span"), name = classes[winner];
    run.style.width = `${100 * count / steps}%`;
    run.classList.toggle("final", step === steps && k === runs.length - 1);
    if (widths[winner] + 4 < count * room) run.textContent = name;
    return run;
  }));
}

/** Paint a line before the row, row pair or column at which the network decided. */
function paintMark(decided) {
  const side = { row: "top", "row pair": "top", column: "left" }[word], mark = $("mark");
  mark.hidden = !side || !(decided > 1);
  mark.style.inset = "0";
  mark.style[side === "top" ? "height" : "width"] = "2px";
  const first = data.readAt.indexOf(decided - 1); // The first pixel that this step reads.
  const place = side === "top" ? Math.floor(first / SIDE) : first % SIDE;
  mark.style[side] = `calc(${100 * place / SIDE}% - 1px)`;
}

const items = classes.map((name) => {
  const item = document.createElement("li");
  item.append(...["b", "i", "span"].map((tag) => document.createElement(tag)));
  item.firstChild.textContent = name;
  $("beliefs").append(item);
  return item;
});

function render(known) {
  const belief = step ? network.after(step) : null, whole = step === steps;
  const [first, second] = belief ? ranked(belief) : [];
  const decided = known && whole ? madeUpMind(network.known) : null;
  const odd = belief && isOdd();
  const then = second === undefined ? "" : `then ${named(second)}, ${percent(belief[second])}`;
  const nearest = belief && `The nearest class is ${named(first)}, ${percent(belief[first])}.`;
  const texts = {
    subject: subject(),
    answer: odd ? UNLIKE : belief ? classes[first] : image ? UNREAD : "",
    share: belief && !odd ? percent(belief[first]) : "",
    second: odd ? nearest : belief ? then : image ? "Replay it, or move the slider." : INVITATION,
    mind: decided ? `decided at ${word}${SPACE}${decided}` : "",
    count: counted(step),
    "beliefs-title": step || !image ? "Probability of each class" : "No probability is known yet.",
    replay: playing ? "Pause" : step && !whole ? "Resume" : "Replay",
  };
  // A non-breaking space keeps the height of an empty line.
  for (const [id, text] of Object.entries(texts)) $(id).textContent = text || SPACE;
  $("doubt").textContent = doubts.map(sentence).join(" ");
  $("answer").classList.toggle("sentence", !belief || odd);
  $("beliefs").classList.toggle("odd", odd === true);
  $("subject").classList.toggle("wrong", texts.subject.endsWith("wrong"));
  $("hint").hidden = Boolean(strokes.length || picture);
  $("clear").setAttribute("aria-disabled", !strokes.length && !picture);
  $("undo").setAttribute("aria-disabled", !past.length);
  $("replay").setAttribute("aria-disabled", !image);
  $("step").disabled = !image;
  $("step").value = step;
  $("step").setAttribute("aria-valuetext", !image ? texts.subject
    : belief ? `${word}${SPACE}${texts.count}: ${texts.answer}` : UNREAD);
  items.forEach((item, k) => {
    item.className = k === first ? "first" : whole && k === picture?.label ? "missed" : "";
    item.children[1].style.transform = `scaleX(${belief ? belief[k] : 0})`;
    item.lastChild.textContent = belief ? percent(belief[k]) : "\u2013";
  });
  paintCells($("seen"), image, step);
  paintRuns(known);
  paintMark(decided);
}

// Input: what the user does. ----------------------------------------------------------------------

$("paper").addEventListener("pointerdown", (event) => {
  if (pen !== null || !event.isPrimary || event.button !== 0) return;
  event.preventDefault();
  pen = event.pointerId;
  $("paper").setPointerCapture(pen);
  playing = null;
  note("");
  const wasPicture = picture;
  replace([...strokes, []], null);
  if (wasPicture) redraw();
  addPoint(event);
});
$("paper").addEventListener("pointermove", (event) => {
  if (event.pointerId !== pen) return;
  // All events since the last frame, if the browser has them.
  const events = event.getCoalescedEvents?.() ?? [];
  for (const each of events.length ? events : [event]) addPoint(each);
});
for (const kind of ["pointerup", "pointercancel"]) {
  $("paper").addEventListener(kind, (event) => {
    if (event.pointerId !== pen) return;
    pen = null;
    look();
    play(1000, still.matches ? steps : 0);
  });
}

const pixels = bytes(data.samples);
const samples = data.labels.map((label, k) => (
  { image: pixels.slice(k * SIDE * SIDE, (k + 1) * SIDE * SIDE), label, number: k + 1 }));
let sampled = 0;
const actions = {
  clear() { if (strokes.length || picture) show(null); },
  undo() {
    if (!past.length) return;
    [strokes, picture] = past.pop();
    changes++;
    changed();
  },
  replay() {
    if (playing) pause();
    else play(6000, step % steps);
  },
  sample() { if (samples.length) show(samples[sampled++ % samples.length]); },
};
const act = (id) => { if (pen === null) actions[id](); };
for (const id of Object.keys(actions)) $(id).addEventListener("click", () => act(id));
const keys = { c: "clear", z: "undo", r: "replay", " ": "replay", s: "sample", o: "open" };
document.addEventListener("keydown", (event) => {
  const id = keys[event.key.toLowerCase()], control = event.ctrlKey || event.metaKey;
  if (!id || event.altKey || event.shiftKey || (control && id !== "undo")) return;
  const own = !image || event.target.matches("button, [type=file]"); // It scrolls or presses them.
  if (event.key === " " && own) return;
  event.preventDefault();
  if (id === "open") $("file").click();
  else act(id);
});
for (const id of ["file", "camera"]) {
  $(id).addEventListener("change", () => {
    openFirst($(id).files);
    $(id).value = ""; // The same file can be chosen again.
  });
}
$("step").addEventListener("input", () => {
  playing = null;
  step = Number($("step").value);
  wake();
});
for (const [kind, source] of [["paste", "clipboardData"], ["drop", "dataTransfer"]]) {
  document.addEventListener(kind, (event) => {
    const { files } = event[source];
    if (!files.length && kind === "paste") return;
    event.preventDefault(); // Otherwise the browser opens the dropped file in place of the page.
    openFirst(files);
  });
}
document.addEventListener("dragover", (event) => event.preventDefault());

const ruler = makeCanvas(1, 1).getContext("2d");
ruler.font = `700 13px ${getComputedStyle(document.body).fontFamily}`;
const widths = classes.map((name) => ruler.measureText(name).width); // In pixels, as in #runs.
const widest = Math.max(...widths);
$("word").textContent = `${word[0].toUpperCase()}${word.slice(1)}s read`;
$("step").max = steps;
$("sample").hidden = !samples.length;
$("read").classList.toggle("long", widest > 36);
document.body.classList.toggle("many", classes.length > 12);
document.body.style.setProperty("--name", `${Math.min(Math.max(widest / 13, 1.25), 8)}em`);
$("main").hidden = $("tip").hidden = false;
const repaint = () => { redraw(); wake(); };
new ResizeObserver(repaint).observe($("paper"));
for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
  matchMedia(query).addEventListener("change", repaint);
}

/** For tests, and for the browser's console. */
window.rnnMnist = Object.freeze({
  /** Read levels from 0 to 255, row by row, as a picture. */
  read(width, height, levels) {
    const found = read(makeGrid(width, height, Float64Array.from(levels)));
    return found && { image: [...found.image], reading: found.name, doubts: doubtsAbout(found) };
  },
  beliefs(image) {
    const { known, complete } = reader(image);
    complete();
    return known.map((belief) => [...belief]);
  },
  unlike: (image) => reader(image).unlike(),
  state: () => ({
    step, steps, settled, strokes: strokes.length, label: picture?.label ?? null,
    image: image && [...image], answer: step ? best(network.after(step)) : null,
    unlike: Boolean(step && isOdd()), doubts,
  }),
});
