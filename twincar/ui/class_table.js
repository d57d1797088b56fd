// Sorting and searching the table of `html_charts.classes`, as js_on_load of a gr.HTML, whose value is drawn anew for
// another recipe. Until a visitor searches or asks for all, only the first rows of the current order are shown.
const FIRST = 20;
const draw = () => {
  const rows = [...element.querySelectorAll("tbody tr")], more = element.querySelector(".more");
  const terms = element.querySelector("[type=search]").value.toLowerCase().split(/\s+/).filter(Boolean);
  const all = terms.length > 0 || !more || more.dataset.open;
  const fitting = rows.filter((row) => terms.every((term) => row.cells[0].textContent.toLowerCase().includes(term)));
  rows.forEach((row) => { row.hidden = true; });
  fitting.slice(0, all ? undefined : FIRST).forEach((row) => { row.hidden = false; });
  element.querySelector(".nothing").hidden = fitting.length > 0;
  if (more) more.hidden = Boolean(all);
};
const value = (row, column) => {
  const text = row.cells[column].textContent.replace(/,/g, "");
  return column && !Number.isNaN(Number(text)) ? Number(text) : text;
};
const sort = (head) => {
  const column = head.cellIndex, body = element.querySelector("tbody");
  const descending = head.getAttribute("aria-sort") === "ascending";
  element.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const compare = (a, b) => (typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
  const rows = [...body.rows].sort((a, b) => (descending ? -1 : 1) * compare(value(a, column), value(b, column)));
  body.append(...rows);
  draw();
};
element.addEventListener("click", (event) => {
  const head = event.target.closest("thead th"), more = event.target.closest(".more");
  if (head) sort(head);
  if (!more) return;
  more.dataset.open = "yes";
  draw();
});
element.addEventListener("input", draw);
