// A drop zone for photos, zips and folders, as js_on_load of a gr.HTML: see dropzone.py. Names are set as text, never as HTML.
const find = (selector) => element.querySelector(selector);
const zone = find(".dropzone"), note = find(".note"), uploading = find(".uploading"), [files, folder] = element.querySelectorAll("input");
const { most, photo, zip, pictures, zips } = props.limits;
const SYSTEM = /^\.|^__macosx$|^(eh)?thumbs\.db$|^desktop\.ini$/i;
const ENTRIES = 20000; // of a folder, at most
const AT_ONCE = 4; // uploads
let turn = 0, running = false; // an upload whose turn is over was cancelled

const open = () => element.getClientRects().length > 0; // this tab is shown
const say = (text) => { note.textContent = text; };
const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
const named = (list) => list.slice(0, 3).map(({ name }) => name.split("/").pop()).join(", ") + (list.length > 3 ? `, and ${list.length - 3} more` : "");
const suffix = (name) => (name.match(/\.[^./]+$/)?.[0] ?? "").toLowerCase();
const byName = (a, b) => a.localeCompare(b, "en", { numeric: true });
const isZip = ({ name }) => zips && suffix(name) === ".zip";
// The server judges a file by its content: a photo may have no suffix, or a type that the browser does not know.
const isPicture = ({ file, name }) => file.type.startsWith("image/") || pictures.includes(suffix(name)) || (!suffix(name) && !file.type);

const inside = async (entry) => {
  const reader = entry.createReader(), all = [];
  for (;;) {
    const next = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!next.length) return all.sort((a, b) => byName(a.name, b.name));
    all.push(...next);
  }
};
const walk = async (entry, found, within = false) => {
  if (found.length >= ENTRIES || (within && SYSTEM.test(entry.name))) return; // what is dropped itself is meant
  if (!entry.isDirectory) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    found.push({ file, name: entry.fullPath.replace(/^\//, "") });
  } else if (zips) for (const each of await inside(entry)) await walk(each, found, true);
};
const entriesOf = (transfer) => [...transfer.items].filter(({ kind }) => kind === "file")
  .map((item) => item.webkitGetAsEntry?.() ?? { file: item.getAsFile() }); // not later: a transfer is empty after its event
const dropped = async (entries) => {
  const found = [];
  for (const entry of entries) {
    try {
      if (entry.fullPath) await walk(entry, found);
      else if (entry.file) found.push({ file: entry.file, name: entry.file.name });
    } catch {
      return say(`${entry.name} cannot be read: check that it is still there, then drop it again.`);
    }
  }
  return take(found);
};
const chosen = (input) => {
  const found = [...input.files].map((file) => ({ file, name: file.webkitRelativePath || file.name }));
  if (input === folder) found.sort((a, b) => byName(a.name, b.name)); // the browser gives them in any order
  input.value = ""; // the same files can be chosen again
  return take(found.filter(({ name }) => !name.split("/").slice(1).some((part) => SYSTEM.test(part))));
};

const draw = (done, total) => {
  uploading.hidden = !total;
  zone.classList.toggle("busy", running || Boolean(props.value?.busy));
  Object.assign(find("progress"), { max: total || 1, value: done });
  uploading.querySelector("p").textContent = `Uploading: ${done} of ${total}`;
};
const take = async (found) => {
  if (running || props.value?.busy) return say("Wait until these photos are done, or stop them first.");
  const wanted = found.filter((each) => isZip(each) || isPicture(each)), others = found.filter((each) => !wanted.includes(each));
  if (!wanted.length) return say(others.length ? `No photo to read: ${named(others)} ${others.length === 1 ? "is not a picture" : "are not pictures"}.` : "There are no photos in this folder.");
  const left = others.length ? [`${count(others.length, "file is not a picture and was", "files are not pictures and were")} left out: ${named(others)}.`] : [];
  if (wanted.length > most) left.push(`At most ${most} at a time: the first ${most} of ${wanted.length.toLocaleString("en")} were taken.`);
  say(left.join(" "));
  const mine = ++turn, sending = wanted.slice(0, most), sent = [], next = sending.entries();
  let done = 0;
  running = true;
  draw(0, sending.length);
  const work = async () => {
    for (const [place, { file, name }] of next) {
      if (mine !== turn) return;
      const tooLarge = file.size > (isZip({ name }) ? zip : photo);
      sent[place] = tooLarge ? { orig_name: name, size: file.size } : { path: (await upload(file)).path, orig_name: name };
      if (mine === turn) draw((done += 1), sending.length);
    }
  };
  try {
    await Promise.all(Array.from({ length: AT_ONCE }, work));
  } catch {
    if (mine === turn) {
      turn += 1;
      say(`The upload stopped after ${done} of ${sending.length}: check the connection, then try again.`);
    }
  }
  if (mine === turn) trigger("upload", { files: sent });
  running = false;
  draw(0, 0);
};

const [byFile, byFolder] = find(".choose").children;
byFile.addEventListener("click", () => files.click());
if (byFolder) byFolder.addEventListener("click", () => folder.click());
if (byFolder && (!("webkitdirectory" in folder) || matchMedia("(pointer: coarse)").matches)) byFolder.hidden = true; // phones have no folders
[files, folder].forEach((input) => input?.addEventListener("change", () => chosen(input)));
uploading.querySelector("button").addEventListener("click", () => {
  turn += 1;
  say("Cancelled: nothing was processed.");
});

// On the window, before any other listener: while this tab is open, a drop anywhere is meant for it.
const carriesFiles = (event) => open() && [...(event.dataTransfer?.types ?? [])].includes("Files");
const claim = (event) => {
  event.preventDefault();
  event.stopImmediatePropagation();
};
["dragenter", "dragover"].forEach((type) => window.addEventListener(type, (event) => {
  if (!carriesFiles(event)) return;
  claim(event);
  zone.classList.add("over");
}, true));
window.addEventListener("dragleave", (event) => !event.relatedTarget && zone.classList.remove("over"), true);
window.addEventListener("drop", (event) => {
  zone.classList.remove("over");
  if (!carriesFiles(event)) return;
  claim(event);
  dropped(entriesOf(event.dataTransfer));
}, true);
zone.addEventListener("entries", (event) => dropped(event.detail)); // a folder that was dropped on another tab
window.addEventListener("paste", (event) => {
  const pasted = [...(event.clipboardData?.files ?? [])];
  if (!open() || !pasted.length) return;
  claim(event);
  take(pasted.map((file) => ({ file, name: file.name })));
}, true);
watch("value", () => draw(0, 0));
draw(0, 0);
