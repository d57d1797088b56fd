// The table of the tab Many photos, as js_on_load of a gr.HTML. `props.value.rows` come from many.py; sorting, filtering
// and searching run here, so that they are immediate while a batch runs. Names are set as text, never as HTML.
const body = element.querySelector("tbody"), count = element.querySelector(".count");
const least = element.querySelector("[type=range]"), search = element.querySelector("[type=search]");
const states = element.querySelector(".states"), none = element.querySelector(".none");
const headers = [...element.querySelectorAll("th[data-key]")];
const made = []; // row of props.value -> its <tr>, drawn once
let sorted = { key: "place", descending: false }, selected = null, only = null;
// In the order of the filter; the labels come with the rows.
const ORDER = ["car", "model", "make", "unsure", "unknown_car", "no_car", "unreadable"];

const make = (tag, text, className = "") => Object.assign(document.createElement(tag), { textContent: text, className });

const stateOf = (row) => (row.error ? "unreadable" : row.state);
const labelOf = (row) => (row.error ? "Unreadable" : row.short);
const chip = (row) => make("span", labelOf(row), `chip ${stateOf(row)}`);

const drawn = (row, place) => {
  const tr = make("tr", "", row.error ? "failed" : row.state);
  tr.dataset.place = place;
  const picture = make("td", "", "picture");
  if (row.thumbnail) picture.append(Object.assign(new Image(), { src: row.thumbnail, alt: "" }));
  const short = row.file.split("/").pop(), folder = row.file.slice(0, -short.length), file = make("td", short, "file");
  const which = row.cars > 1 ? `car ${row.car} of ${row.cars}` : "", below = [which, folder].filter(Boolean).join(" · ");
  if (below) file.append(make("span", below));
  file.title = row.file;
  const name = make("td", "", "name"), state = make("td", "", "state"), sure = make("td", "", "sure");
  state.append(chip(row));
  if (row.error) {
    name.append(make("span", row.error, "why"));
  } else {
    const closest = ["unsure", "unknown_car"].includes(row.state);
    if (closest) name.append(make("span", "Closest match: ", "closest"));
    name.append(Object.assign(make("button", closest ? row.class_name : row.label), { type: "button" }));
  }
  const small = make("small", ""); // for narrow tables, which have no columns for these
  small.append(chip(row), make("span", [short, which].filter(Boolean).join(" · ")));
  name.append(small);
  if (!row.error && row.probability !== null) {
    const bar = make("i", "");
    bar.style.setProperty("--fraction", row.probability);
    sure.append(make("span", row.percent), bar);
    if (row.probability < 0.5) sure.classList.add("unsure");
  }
  tr.append(picture, file, state, name, sure, make("td", row.make ?? "", "make"), make("td", row.year ?? "", "year"));
  return tr;
};

// A button per state that the rows have, with the number of its rows. They are kept, so that the pressed one keeps the focus.
const drawStates = (rows) => {
  const counts = new Map();
  for (const row of rows) counts.set(stateOf(row), { label: labelOf(row), count: (counts.get(stateOf(row))?.count ?? 0) + 1 });
  const wanted = counts.size > 1 ? [["", { label: "All", count: rows.length }], ...ORDER.filter((state) => counts.has(state)).map((state) => [state, counts.get(state)])] : [];
  const have = new Map([...states.children].map((button) => [button.dataset.state, button]));
  const buttons = wanted.map(([state, { label, count }]) => {
    const button = have.get(state) ?? Object.assign(make("button", "", `chip ${state}`), { type: "button" });
    const text = `${label} ${count.toLocaleString("en")}`;
    if (button.textContent !== text) button.textContent = text;
    button.dataset.state = state;
    button.setAttribute("aria-pressed", state === (only ?? ""));
    return button;
  });
  if (buttons.some((button, i) => states.children[i] !== button) || buttons.length !== states.children.length) states.replaceChildren(...buttons);
};
const showAll = () => {
  only = null;
  least.value = 0;
  search.value = "";
};

const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
const empty = (value) => value === null || value === undefined || value === "";

const draw = () => {
  const rows = props.value?.rows ?? [];
  if (!rows.length || (made.length && made[0].row !== rows[0].file + rows[0].thumbnail)) {
    made.length = 0; // another batch: a filter of the last one would hide its rows
    selected = null;
    showAll();
  }
  rows.slice(made.length).forEach((row) => made.push({ row: row.file + row.thumbnail, tr: drawn(row, made.length) }));
  const terms = search.value.toLowerCase().split(/\s+/).filter(Boolean), from = least.valueAsNumber / 100;
  const fits = (row) => {
    const text = [row.file, row.class_name, labelOf(row), row.error].join(" ").toLowerCase();
    if (only !== null && stateOf(row) !== only) return false;
    return terms.every((term) => text.includes(term)) && (from === 0 || (row.probability ?? -1) >= from);
  };
  const places = rows.map((_, place) => place).filter((place) => fits(rows[place]));
  const value = (place) => (sorted.key === "place" ? place : sorted.key === "short" ? ORDER.indexOf(stateOf(rows[place])) : rows[place][sorted.key]);
  places.sort((a, b) => {
    const unreadable = Boolean(rows[a].error) - Boolean(rows[b].error); // these come last
    if (sorted.key !== "place" && unreadable) return unreadable;
    if (empty(value(a)) || empty(value(b))) return empty(value(a)) - empty(value(b)) || a - b;
    return (sorted.descending ? -1 : 1) * compare(value(a), value(b)) || a - b;
  });
  body.replaceChildren(...places.map((place) => made[place].tr));
  made.forEach(({ tr }, place) => tr.classList.toggle("selected", place === selected));
  none.hidden = places.length > 0 || !rows.length;
  none.querySelector("span").textContent = `None of the ${rows.length.toLocaleString("en")} rows matches.`;
  drawStates(rows);
  count.textContent = places.length === rows.length ? "" : `${places.length} of ${rows.length} shown`;
  element.querySelector("output").textContent = `${least.value}\u00a0%`;
  headers.forEach((th) => {
    const here = th.dataset.key === sorted.key;
    here ? th.setAttribute("aria-sort", sorted.descending ? "descending" : "ascending") : th.removeAttribute("aria-sort");
  });
};

headers.forEach((th) => th.querySelector("button").addEventListener("click", () => {
  const { key } = th.dataset, again = sorted.key === key;
  // The most confident first; a third click restores the order of arrival.
  const first = key === "probability";
  sorted = !again ? { key, descending: first } : sorted.descending === first ? { key, descending: !first } : { key: "place", descending: false };
  draw();
}));
states.addEventListener("click", (event) => {
  const { state } = event.target.closest("button")?.dataset ?? {};
  if (state === undefined) return;
  only = state === "" || state === only ? null : state;
  draw();
});
none.querySelector("button").addEventListener("click", () => {
  showAll();
  draw();
  states.querySelector("button")?.focus();
});
[least, search].forEach((control) => control.addEventListener("input", draw));
body.addEventListener("click", (event) => {
  const tr = event.target.closest("tr");
  if (!tr || tr.classList.contains("failed")) return;
  selected = Number(tr.dataset.place);
  draw();
  trigger("select", { index: selected });
});
// The detail was closed: back to the row that it was about.
element.addEventListener("closed", () => {
  const row = made[selected]?.tr;
  selected = null;
  draw();
  row?.scrollIntoView({ block: "nearest" });
  row?.querySelector("button")?.focus({ preventScroll: true });
});
// Heard here and not at the button, which Gradio draws before a listener of its own would be there.
document.addEventListener("click", (event) => {
  if (event.target.closest("#detail-close button")) trigger("collapse");
});
document.addEventListener("keydown", (event) => {
  const open = document.querySelector("#detail")?.getClientRects().length;
  if (event.key === "Escape" && !event.defaultPrevented && open && !document.fullscreenElement) trigger("collapse");
});
new ResizeObserver(([{ contentRect: { width } }]) => {
  element.querySelector("table").className = width > 760 ? "wide" : width > 540 ? "middle" : "narrow";
}).observe(element.querySelector(".rows"));
watch("value", draw);
draw();
