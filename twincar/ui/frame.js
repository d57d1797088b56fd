// The frame over the photo, as js_on_load of a gr.HTML. `props.value` comes from frame.py; boxes are fractions of the photo.
// Pointer events cover mouse, pen and touch. The visitor's selection is sent as the event "select".
const find = (selector) => element.querySelector(selector);
const stage = find(".stage"), picture = find(".picture"), shade = find(".shade"), frame = find(".frame");
const below = find(".below"), buttons = [...element.querySelectorAll("[data-mode]")];
const STEP = 0.01, LEAST = 0.04; // fractions of the photo
const SAME = 0.5; // overlap from which on two frames are the same car
const NUDGE = 4; // pixels before a press becomes a drag
const SIDES = { w: 0, n: 1, e: 2, s: 3 }; // places in a box: x1, y1, x2, y2
let box = null, mode = "found", turn = 0, drag = null, later = null;

const clamp = (value, low = 0, high = 1) => Math.min(Math.max(value, low), high);
const area = ([x1, y1, x2, y2]) => Math.max(x2 - x1, 0) * Math.max(y2 - y1, 0);
const overlap = (a, b) => { // intersection over union
  const both = area([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
  return both / (area(a) + area(b) - both);
};
const contains = (outer, [x, y]) => outer && x >= outer[0] && x <= outer[2] && y >= outer[1] && y <= outer[3];
const place = (target, [x1, y1, x2, y2]) => Object.entries({ "--x1": x1, "--y1": y1, "--x2": x2, "--y2": y2 })
  .forEach(([name, side]) => target.style.setProperty(name, `${100 * side}%`));

const draw = () => {
  const { cars = [] } = props.value ?? {};
  frame.hidden = shade.hidden = !box;
  if (box) [frame, shade].forEach((part) => place(part, box));
  if (box) {
    const [x1, y1, x2, y2] = box.map((side) => Math.round(100 * side));
    frame.setAttribute("aria-description", `From ${x1} to ${x2} per cent of the width, ${y1} to ${y2} of the height`);
  }
  const others = cars.filter((car) => !box || overlap(car, box) < SAME);
  find(".cars").replaceChildren(...others.map((car, i) => {
    const button = Object.assign(document.createElement("button"), { type: "button", title: "Identify this car" });
    button.setAttribute("aria-label", `Identify another car, ${i + 1} of ${others.length}`);
    button.addEventListener("click", () => select(car));
    place(button, car);
    return button;
  }));
  buttons.forEach((button) => button.setAttribute("aria-pressed", button.dataset.mode === mode));
};

const request = (wanted, own = null) => {
  clearTimeout(later);
  [mode, box, turn] = [wanted, wanted === "found" ? box : own, turn + 1];
  stage.classList.add("busy");
  draw();
  trigger("select", { mode, box: wanted === "own" ? own : null, turn });
};

const select = (own) => {
  request("own", own);
  frame.focus({ preventScroll: true });
};

const moved = (from, dx, dy) => {
  const x = clamp(dx, -from[0], 1 - from[2]), y = clamp(dy, -from[1], 1 - from[3]);
  return [from[0] + x, from[1] + y, from[2] + x, from[3] + y];
};
const resized = (from, edges, dx, dy) => {
  const to = [...from];
  for (const edge of edges) {
    const side = SIDES[edge], opposite = from[(side + 2) % 4], to_ = from[side] + (side % 2 ? dy : dx);
    to[side] = side < 2 ? clamp(to_, 0, opposite - LEAST) : clamp(to_, opposite + LEAST, 1);
  }
  return to;
};

const at = (event) => {
  const { left, top, width, height } = picture.getBoundingClientRect();
  return [clamp((event.clientX - left) / width), clamp((event.clientY - top) / height)];
};
stage.addEventListener("pointerdown", (event) => {
  if (event.button || !event.isPrimary) return;
  const start = at(event), what = event.target.dataset.edges ?? (contains(box, start) ? "move" : "draw");
  drag = { start, what, from: box, before: mode, x: event.clientX, y: event.clientY, moved: false };
});
stage.addEventListener("pointermove", (event) => {
  if (!drag || drag.over || !event.isPrimary) return;
  if (!drag.moved && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < NUDGE) return;
  if (!drag.moved) stage.setPointerCapture(event.pointerId); // not before, so that a tap on a car remains a click
  drag.moved = true;
  const [x, y] = at(event), { start, from, what } = drag, dx = x - start[0], dy = y - start[1];
  if (what === "draw") box = [Math.min(x, start[0]), Math.min(y, start[1]), Math.max(x, start[0]), Math.max(y, start[1])];
  else box = what === "move" ? moved(from, dx, dy) : resized(from, what, dx, dy);
  mode = "own";
  draw();
});
const end = (event) => {
  if (!drag || drag.over) return;
  drag.over = true;
  if (!drag.moved) return;
  if (event.type === "pointercancel" || box[2] - box[0] < LEAST || box[3] - box[1] < LEAST) {
    [box, mode] = [drag.from, drag.before]; // the browser scrolls instead, or the frame is too small to be intended
    draw();
    return;
  }
  select(box);
};
stage.addEventListener("pointerup", end);
stage.addEventListener("pointercancel", end);

frame.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
  if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  [box, mode] = [event.shiftKey ? resized(box, "es", ...step) : moved(box, ...step), "own"];
  draw();
  clearTimeout(later);
  later = setTimeout(() => request("own", box), 350); // after a pause in the key presses
});

buttons.forEach((button) => button.addEventListener("click", () => {
  button.dataset.mode === "own" ? select(box ?? [0.15, 0.15, 0.85, 0.85]) : request(button.dataset.mode);
}));

// Place the stage on the picture that Gradio shows, as wide as the block around it.
const cover = () => {
  const [block, shown] = ["#photo", "#photo .image-frame"].map((part) => document.querySelector(part)?.getBoundingClientRect());
  const own = stage.offsetParent?.getBoundingClientRect();
  if (!shown?.height || !own) return;
  Object.assign(stage.style, { left: `${block.left + 1 - own.left}px`, top: `${shown.top - own.top}px`,
    width: `${block.width - 2}px`, height: `${shown.height}px` }); // between the block's borders
};
new ResizeObserver(cover).observe(element.closest("#shown"));

const update = () => {
  const value = props.value || null;
  stage.hidden = below.hidden = !value;
  if (!value) return;
  if (value.turn !== null && value.turn !== turn) return; // an answer to an earlier selection
  if (value.turn === null) turn += 1; // another photo: earlier selections no longer apply
  stage.classList.remove("busy");
  const image = find("img");
  if (image.src !== value.photo) image.src = value.photo;
  picture.style.setProperty("--ratio", value.ratio);
  below.querySelector("p").textContent = value.text;
  [box, mode] = [value.box, value.mode];
  draw();
  cover();
};
watch("value", update);
update();
