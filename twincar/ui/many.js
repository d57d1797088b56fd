// The table of the tab Many photos, as js_on_load of a gr.HTML. `props.value.rows` come from many.py; sorting, filtering
// and searching run here, so that they are immediate while a batch runs. Names are set as text, never as HTML.
const body = element.querySelector("tbody"), count = element.querySelector(".count");
const least = element.querySelector("[type=range]"), search = element.querySelector("[type=search]");
const headers = [...element.querySelectorAll("th[data-key]")];
const made = []; // row of props.value -> its <tr>, drawn once
let sorted = { key: "place", descending: false }, selected = null;

const make = (tag, text, className = "") => Object.assign(document.createElement(tag), { textContent: text, className });
const percent = (p) => (p >= 0.995 ? "over 99" : p < 0.005 ? "under 1" : Math.round(100 * p)) + "\u00a0%";

const drawn = (row, place) => {
  const tr = make("tr", "");
  tr.dataset.place = place;
  const picture = make("td", "", "picture");
  if (row.thumbnail) picture.append(Object.assign(new Image(), { src: row.thumbnail, alt: "" }));
  const short = row.file.split("/").pop(), which = row.cars > 1 ? `car ${row.car} of ${row.cars}` : "", file = make("td", short, "file");
  if (which) file.append(make("span", which));
  file.title = row.file;
  tr.append(picture, file);
  if (row.error) {
    tr.className = "failed";
    const why = make("td", row.error, "why");
    why.colSpan = 5;
    why.prepend(make("small", short)); // for narrow screens, where the column is not shown
    tr.append(why);
    return tr;
  }
  tr.classList.add(row.state);
  const name = make("td", "", "name"), closest = ["unsure", "unknown_car"].includes(row.state);
  if (closest) name.append(make("span", "Closest match: ", "closest"));
  name.append(Object.assign(make("button", closest ? row.class_name : row.label), { type: "button" }), make("small", [row.short, short, which].filter(Boolean).join(" · ")));
  const sure = make("td", "", "sure"), bar = make("i", "");
  if (row.probability !== null) {
    bar.style.setProperty("--fraction", row.probability);
    sure.append(make("span", percent(row.probability)), bar);
    if (row.probability < 0.5) sure.classList.add("unsure");
  }
  tr.append(make("td", row.short, "state"), name, sure, make("td", row.make ?? "", "make"), make("td", row.year ?? "", "year"));
  return tr;
};

const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
const empty = (value) => value === null || value === undefined || value === "";

const draw = () => {
  const rows = props.value?.rows ?? [];
  if (!rows.length || (made.length && made[0].row !== rows[0].file + rows[0].thumbnail)) {
    made.length = 0; // another batch: a filter of the last one would hide its rows
    selected = null;
    least.value = 0;
    search.value = "";
  }
  rows.slice(made.length).forEach((row) => made.push({ row: row.file + row.thumbnail, tr: drawn(row, made.length) }));
  const terms = search.value.toLowerCase().split(/\s+/).filter(Boolean), from = least.valueAsNumber / 100;
  const fits = (row) => {
    const text = [row.file, row.class_name, row.short, row.error].join(" ").toLowerCase();
    return terms.every((term) => text.includes(term)) && (from === 0 || (row.probability ?? -1) >= from);
  };
  const places = rows.map((_, place) => place).filter((place) => fits(rows[place]));
  const value = (place) => (sorted.key === "place" ? place : rows[place][sorted.key]);
  places.sort((a, b) => {
    if (empty(value(a)) || empty(value(b))) return empty(value(a)) - empty(value(b)) || a - b; // unreadable files come last
    return (sorted.descending ? -1 : 1) * compare(value(a), value(b)) || a - b;
  });
  body.replaceChildren(...places.map((place) => made[place].tr));
  made.forEach(({ tr }, place) => tr.classList.toggle("selected", place === selected));
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
[least, search].forEach((control) => control.addEventListener("input", draw));
body.addEventListener("click", (event) => {
  const tr = event.target.closest("tr");
  if (!tr || tr.classList.contains("failed")) return;
  selected = Number(tr.dataset.place);
  draw();
  trigger("select", { index: selected });
});
watch("value", draw);
draw();
