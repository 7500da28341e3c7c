// Reading: the image, the number of steps read, and what moves them: pen, clock or slider. -----

let image = null, network = null, step = 0;
let pen = null; // The pointer that draws.
let unread = false, earliest = 0; // Whether there is new ink, and the earliest time to read it.
let playing = null; // { duration, since } of an animation.
let settled = true; // Whether everything is computed, shown and announced.
let awake = false; // Whether a frame is requested.
const still = matchMedia("(prefers-reduced-motion: reduce)");

/** Read the current drawing or picture. */
function look() {
  unread = false;
  image = picture ? picture.image : strokes.length ? prepare(levels(ink), SIZE, SIZE) : null;
  network = image && reader(image);
  step = image ? steps : 0;
}

/** Replace the drawing by a picture, or by nothing. */
function show(next) {
  [strokes, picture] = [[], next];
  changed();
}

function changed() {
  redraw();
  look();
  play(1000, !still.matches);
}

/** Show the reading from its start, or only its end. */
function play(duration, moving) {
  playing = image && moving ? { duration, since: null } : null;
  step = image && !moving ? steps : 0;
  settled = !image;
  $("said").textContent = "";
  $("hint").textContent = `Draw a ${noun} here`;
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
    network.after(steps);
    earliest = 4 * performance.now() - 3 * begun; // A slow network must not slow down the pen.
  }
  if (playing) {
    playing.since ??= now;
    step = Math.floor((now - playing.since) / playing.duration * (steps + 1));
    step = Math.max(0, Math.min(step, steps));
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

/** Format a probability in per cent, never as 0 % or 100 %. */
function percent(share) {
  if (share >= 0.9995) return "> 99.9 %";
  return share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
}

const ranked = (belief) => [...belief.keys()].sort((a, b) => belief[b] - belief[a]);

/** Name what is being read. At the end, say whether the answer for a sample is right. */
function subject() {
  if (!image) return "Nothing is drawn yet";
  if (picture?.label === undefined) return `Your ${picture ? "picture" : "drawing"} looks like`;
  const right = best(network.after(steps)) === picture.label;
  const verdict = step === steps ? `: ${right ? "right" : "wrong"}` : "";
  return `Sample ${picture.number}, label ${classes[picture.label]}${verdict}`;
}

function spoken() {
  const belief = network.after(steps);
  const [first, second] = ranked(belief).map((k) => `${classes[k]}, ${percent(belief[k])}`);
  return `The answer is ${first}${second ? `, then ${second}` : ""}. Decided at ${word} ` +
    `${madeUpMind(network.known)} of ${steps}. ${picture ? subject() : ""}`;
}

/** Paint an image into a canvas of 28x28. Only the first `count` steps are read. */
function paintCells(canvas, image, count) {
  const context = canvas.getContext("2d"), style = getComputedStyle($("paper"));
  const { color } = style, tint = style.getPropertyValue("--unread");
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
    if (name.length * 8 + 4 < count * room) run.textContent = name;
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
  const texts = {
    subject: subject(),
    answer: belief ? classes[first] : "",
    share: belief ? percent(belief[first]) : "",
    second: second === undefined ? "" : `then ${classes[second]}, ${percent(belief[second])}`,
    mind: decided ? `decided at ${word} ${decided}` : "",
    count: `${step} of ${steps}`,
  };
  // A non-breaking space keeps the height of an empty line.
  for (const [id, text] of Object.entries(texts)) $(id).textContent = text || "\u00a0";
  $("subject").classList.toggle("wrong", texts.subject.endsWith("wrong"));
  $("hint").hidden = Boolean(strokes.length || picture);
  for (const id of ["clear", "undo", "replay"]) $(id).setAttribute("aria-disabled", !image);
  $("step").disabled = !image;
  $("step").value = step;
  $("step").setAttribute("aria-valuetext", `${word} ${texts.count}: ${texts.answer}`);
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
  if (picture) show(null);
  strokes.push([]);
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
    play(1000, !still.matches);
  });
}

const pixels = bytes(data.samples);
const samples = data.labels.map((label, k) => (
  { image: pixels.slice(k * SIDE * SIDE, (k + 1) * SIDE * SIDE), label, number: k + 1 }));
let sampled = 0;
const actions = {
  clear: () => show(null),
  undo() {
    if (!picture) strokes.pop();
    picture = null;
    changed();
  },
  replay: () => play(6000, true),
  sample() { if (samples.length) show(samples[sampled++ % samples.length]); },
};
const act = (id) => { if (pen === null) actions[id](); };
for (const id of Object.keys(actions)) $(id).addEventListener("click", () => act(id));
document.addEventListener("keydown", (event) => {
  const id = { c: "clear", z: "undo", r: "replay", s: "sample" }[event.key.toLowerCase()];
  const control = event.ctrlKey || event.metaKey;
  if (!id || event.altKey || event.shiftKey || (control && id !== "undo")) return;
  event.preventDefault();
  act(id);
});
$("step").addEventListener("input", () => {
  playing = null;
  step = Number($("step").value);
  wake();
});
for (const [kind, source] of [["paste", "clipboardData"], ["drop", "dataTransfer"]]) {
  document.addEventListener(kind, (event) => {
    const file = [...event[source].files][0];
    if (!file && kind === "paste") return;
    event.preventDefault(); // Otherwise the browser opens the dropped file in place of the page.
    if (file) open(file);
  });
}
document.addEventListener("dragover", (event) => event.preventDefault());

const longest = Math.max(...classes.map((name) => name.length));
$("word").textContent = `${word[0].toUpperCase()}${word.slice(1)}s read`;
$("step").max = steps;
$("sample").hidden = !samples.length;
$("read").classList.toggle("long", longest > 3);
document.body.classList.toggle("many", classes.length > 12);
document.body.style.setProperty("--name", `${Math.min(Math.max(longest, 2), 12)}ch`);
const repaint = () => { redraw(); wake(); };
new ResizeObserver(repaint).observe($("paper"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

/** For tests, and for the browser's console. */
window.rnnMnist = Object.freeze({
  prepare,
  beliefs(image) {
    const { known, complete } = reader(image);
    complete();
    return known.map((belief) => [...belief]);
  },
  state: () => ({
    step, steps, settled, strokes: strokes.length, label: picture?.label ?? null,
    image: image && [...image], answer: step ? best(network.after(step)) : null,
  }),
});
