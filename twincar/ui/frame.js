// The frames over the photo, as js_on_load of a gr.HTML. `props.value` comes from frame.py; boxes are fractions of the photo.
// Pointer events cover mouse, pen and touch. The visitor's selection is sent as the event "select".
const find = (selector) => element.querySelector(selector);
const stage = find(".stage"), picture = find(".picture"), shade = find(".shade"), frame = find(".frame");
const below = find(".below"), buttons = [...element.querySelectorAll("[data-mode]")];
const STEP = 0.01, LEAST = 0.04; // fractions of the photo
const NUDGE = 4; // pixels before a press becomes a drag
const HOLD = 350; // milliseconds that a finger rests before it moves or draws a frame; a quick swipe scrolls the page
const coarse = matchMedia("(pointer: coarse)").matches;
const SIDES = { w: 0, n: 1, e: 2, s: 3 }; // places in a box: x1, y1, x2, y2
let box = null, mode = "found", selected = null, turn = 0, drag = null, later = null, shown = null;

const clamp = (value, low = 0, high = 1) => Math.min(Math.max(value, low), high);
const contains = (outer, [x, y]) => outer && x >= outer[0] && x <= outer[2] && y >= outer[1] && y <= outer[3];
const place = (target, [x1, y1, x2, y2]) => Object.entries({ "--x1": x1, "--y1": y1, "--x2": x2, "--y2": y2 })
  .forEach(([name, side]) => target.style.setProperty(name, `${100 * side}%`));

// One button per car. They stay the same while a photo is shown, so that the selected one keeps the focus.
const addCars = (cars) => find(".cars").replaceChildren(...cars.map((car, i) => {
  const button = Object.assign(document.createElement("button"), { type: "button", className: car.state });
  const label = document.createElement("span"), name = Object.assign(document.createElement("em"), { textContent: car.label });
  label.append(...(cars.length > 1 ? [`${i + 1}`, name] : [car.label]));
  button.setAttribute("aria-label", `Car ${i + 1} of ${cars.length}: ${car.text}`);
  button.append(label);
  button.addEventListener("click", () => choose(i));
  button.addEventListener("focus", () => button.matches(":focus-visible") && selected !== i && choose(i)); // by Tab
  place(button, car.box);
  return button;
}));

const draw = () => {
  frame.hidden = !box;
  shade.hidden = !box || (mode === "found" && !props.value?.dim);
  if (box) [frame, shade].forEach((part) => place(part, box));
  if (box) {
    const [x1, y1, x2, y2] = box.map((side) => Math.round(100 * side));
    frame.setAttribute("aria-description", `From ${x1} to ${x2} per cent of the width, ${y1} to ${y2} of the height`);
  }
  const here = mode === "found" ? selected : null, all = [...find(".cars").children];
  all.forEach((button, i) => {
    button.setAttribute("aria-pressed", i === here);
    button.tabIndex = all.length === 1 && i === here ? -1 : 0; // the frame itself is enough
  });
  buttons.forEach((button) => button.setAttribute("aria-pressed", button.dataset.mode === mode));
};

const request = (wanted, own = null) => {
  clearTimeout(later);
  [mode, box, turn] = [wanted, own, turn + 1];
  stage.classList.add("busy");
  draw();
  trigger("select", { mode, car: selected ?? 0, box: wanted === "own" ? own : null, turn });
};

const choose = (i) => {
  if (mode === "found" && selected === i) return;
  selected = i;
  request("found", props.value.cars[i].box);
};

const select = (own) => {
  selected = null;
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
  clearTimeout(drag?.timer);
  drag = { start, what, from: box, before: mode, x: event.clientX, y: event.clientY, moved: false };
  if (event.pointerType !== "touch" || event.target.dataset.edges) drag.ready = true;
  else drag.timer = setTimeout(() => {
    drag.ready = true;
    stage.classList.add("held");
    navigator.vibrate?.(12);
  }, HOLD);
});
// Once the finger has rested, the page must not scroll under it; touch-action cannot change during a touch.
stage.addEventListener("touchmove", (event) => drag?.ready && !drag.over && event.cancelable && event.preventDefault(), { passive: false });
stage.addEventListener("contextmenu", (event) => drag?.timer && event.preventDefault()); // of a long press
stage.addEventListener("pointermove", (event) => {
  if (!drag || drag.over || !event.isPrimary) return;
  if (!drag.moved && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < NUDGE) return;
  if (!drag.ready) { // a swipe
    clearTimeout(drag.timer);
    drag.over = true;
    return;
  }
  if (!drag.moved) stage.setPointerCapture(event.pointerId); // not before, so that a tap on a car remains a click
  drag.moved = true;
  const [x, y] = at(event), { start, from, what } = drag, dx = x - start[0], dy = y - start[1];
  if (what === "draw") box = [Math.min(x, start[0]), Math.min(y, start[1]), Math.max(x, start[0]), Math.max(y, start[1])];
  else box = what === "move" ? moved(from, dx, dy) : resized(from, what, dx, dy);
  mode = "own";
  draw();
});
const end = (event) => {
  clearTimeout(drag?.timer);
  stage.classList.remove("held");
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
  selected = null;
  later = setTimeout(() => request("own", box), 350); // after a pause in the key presses
});

buttons.forEach((button) => button.addEventListener("click", () => {
  const wanted = button.dataset.mode, { cars = [] } = props.value ?? {};
  if (wanted === "own") select(box ?? [0.15, 0.15, 0.85, 0.85]);
  else if (wanted === "found" && cars.length) choose(selected ?? 0);
  else request(wanted);
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
  if (value.id === shown) return; // seen before: it must not cancel a selection made since
  if (value.turn !== null && value.turn !== turn) return; // an answer to an earlier selection
  shown = value.id;
  if (value.turn === null) turn += 1; // another photo: earlier selections no longer apply
  stage.classList.remove("busy");
  const image = find("img");
  if (image.src !== value.photo) image.src = value.photo;
  picture.style.setProperty("--ratio", value.ratio);
  below.querySelector("p").textContent = value.text + (coarse ? " Press and hold to move or draw a frame." : "");
  const several = value.cars.length > 1;
  buttons.find((button) => button.dataset.mode === "found").textContent = several ? "Found cars" : value.cars.length ? "Found car" : "Find the car";
  if (value.turn === null) addCars(value.cars);
  [box, mode, selected] = [value.box, value.mode, value.car];
  draw();
  cover();
};
watch("value", update);
update();
