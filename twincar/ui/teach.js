// The photos of a car that is being added, as js_on_load of a gr.HTML. `props.value.photos` comes from teach.py; boxes are
// fractions of the photo. A mouse draws another frame at any time; a finger only after "Draw a frame", so that it can scroll.
const list = element.querySelector("ul");
const LEAST = 0.04, STEP = 0.02; // fractions of the photo
const cards = new Map(); // key -> its <li>, kept while the photo is there
const clamp = (value, low = 0, high = 1) => Math.min(Math.max(value, low), high);
const make = (tag, text = "", className = "") => Object.assign(document.createElement(tag), { textContent: text, className });
const button = (label, act) => {
  const made = Object.assign(make("button", label), { type: "button" });
  made.addEventListener("click", act);
  return made;
};

const card = (key) => {
  const li = make("li"), stage = make("div", "", "stage"), image = new Image(), frame = make("div", "", "own"), mend = make("div", "", "mend");
  const chip = make("span", "", "chip"), name = make("b"), said = make("p", "", "said");
  let photo = null, box = null, start = null, later = null, drawing = false;
  image.draggable = false;
  frame.setAttribute("role", "application");
  frame.setAttribute("aria-roledescription", "frame");

  const send = (mode, more = {}) => {
    clearTimeout(later);
    li.classList.add("busy");
    trigger("select", { key, mode, ...more });
  };
  const place = () => {
    frame.hidden = !box;
    (box ?? []).forEach((side, i) => frame.style.setProperty(["--x1", "--y1", "--x2", "--y2"][i], `${100 * side}%`));
  };
  const mode = (on) => {
    drawing = on;
    li.classList.toggle("drawing", on);
    own.setAttribute("aria-pressed", on);
    on ? frame.setAttribute("tabindex", "0") : frame.removeAttribute("tabindex");
  };
  const use = () => {
    mode(false);
    send("own", { box });
  };
  const next = button("Next car", () => send("found", { car: photo.found.findIndex((each) => `${each}` === `${photo.box}`) + 1 }));
  const whole = button("Whole photo", () => send("whole"));
  const own = button("Draw a frame", () => {
    if (drawing) return use();
    box = box ?? [0.15, 0.15, 0.85, 0.85];
    mode(true);
    place();
    frame.focus({ preventScroll: true });
  });
  own.setAttribute("aria-pressed", "false");
  const remove = button("Remove", () => send("remove"));

  const at = (event) => {
    const { left, top, width, height } = image.getBoundingClientRect();
    return [clamp((event.clientX - left) / width), clamp((event.clientY - top) / height)];
  };
  stage.addEventListener("pointerdown", (event) => {
    if (event.button || !event.isPrimary || !photo?.picture || (event.pointerType !== "mouse" && !drawing)) return;
    start = { from: at(event), before: box };
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    if (!start) return;
    const [x, y] = at(event), [a, b] = start.from;
    box = [Math.min(x, a), Math.min(y, b), Math.max(x, a), Math.max(y, b)];
    place();
  });
  const end = (event) => {
    if (!start) return;
    const small = !box || box[2] - box[0] < LEAST || box[3] - box[1] < LEAST;
    if (event.type === "pointercancel" || small || box === start.before) {
      box = start.before;
      place();
    } else use();
    start = null;
  };
  stage.addEventListener("pointerup", end);
  stage.addEventListener("pointercancel", end);
  frame.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
    if (event.key === "Enter" && drawing) return use();
    if (!step || !box || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const [x, y] = event.shiftKey ? step : [clamp(step[0], -box[0], 1 - box[2]), clamp(step[1], -box[1], 1 - box[3])];
    box = event.shiftKey
      ? [box[0], box[1], clamp(box[2] + x, box[0] + LEAST), clamp(box[3] + y, box[1] + LEAST)]
      : [box[0] + x, box[1] + y, box[2] + x, box[3] + y];
    place();
    clearTimeout(later);
    later = setTimeout(use, 900); // after a pause in the key presses
  });

  stage.append(image, frame);
  const head = make("p", "", "head");
  head.append(chip, name);
  mend.append(next, whole, own, remove);
  li.append(stage, head, said, mend);
  return {
    li,
    update(value) {
      if (photo && JSON.stringify(photo) === JSON.stringify(value)) return li.classList.remove("busy");
      photo = value;
      li.classList.remove("busy");
      mode(false);
      stage.hidden = whole.hidden = own.hidden = !value.picture;
      if (value.picture) Object.assign(image, { src: value.picture, alt: value.name });
      box = value.box;
      place();
      li.classList.toggle("refused", Boolean(value.refused));
      Object.assign(chip, { textContent: value.refused ? "Not used" : "Used", className: `chip ${value.refused ? "unreadable" : value.notes.length ? "unsure" : "car"}` });
      name.textContent = value.name.split("/").pop();
      said.textContent = value.refused || value.notes.join(" ");
      next.hidden = value.found.length < 2;
      frame.setAttribute("aria-label", `The part of ${value.name} that is used. Arrow keys move it, Shift with an arrow key resizes it, Enter uses it.`);
      mend.setAttribute("role", "group");
      mend.setAttribute("aria-label", value.name);
    },
  };
};

const draw = () => {
  const photos = props.value?.photos ?? [];
  for (const key of cards.keys()) if (!photos.some((photo) => photo.key === key)) cards.delete(key);
  const items = photos.map((photo) => {
    if (!cards.has(photo.key)) cards.set(photo.key, card(photo.key));
    cards.get(photo.key).update(photo);
    return cards.get(photo.key).li;
  });
  list.hidden = !items.length;
  if (items.some((li, i) => list.children[i] !== li) || items.length !== list.children.length) list.replaceChildren(...items);
};
watch("value", draw);
draw();
