// The buttons below an answer, as js_on_load of a gr.HTML: copy its text, save or share a picture of it.
const photo = () => document.querySelector("#slider img:nth-of-type(1)") && [...document.querySelectorAll("#slider img")].pop();
const WIDTH = 1200, PAD = 48; // pixels of the picture

const wrapped = (context, text, width) => text.split(" ").reduce((lines, word) => {
  const longer = lines.length ? `${lines.at(-1)} ${word}` : word;
  if (!lines.length || context.measureText(longer).width > width) lines.push(word);
  else lines[lines.length - 1] = longer;
  return lines;
}, []);

// The photo with the evidence and the frame on it, and below it the answer.
const card = async () => {
  const image = photo();
  await image.decode();
  const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
  const { naturalWidth, naturalHeight } = image, height = Math.round(WIDTH * naturalHeight / naturalWidth);
  const font = (size, weight) => { context.font = `${weight} ${size}px system-ui, sans-serif`; };
  const answer = element.querySelector(".answer"), name = answer.querySelector("h2").innerText.replace(/\s+/g, " ");
  const sure = answer.querySelector(".sure, .likely")?.innerText.replace(/\s+/g, " ") ?? "";
  font(56, 750);
  const lines = wrapped(context, name, WIDTH - 2 * PAD);
  canvas.width = WIDTH;
  canvas.height = height + 2 * PAD + 66 * lines.length + 50;
  context.fillStyle = "#1b0832";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, WIDTH, height);
  const frame = document.querySelector("#frame .stage:not([hidden]) .frame:not([hidden])");
  if (frame) {
    const side = (name) => parseFloat(frame.style.getPropertyValue(name)) / 100;
    const [x1, y1, x2, y2] = ["--x1", "--y1", "--x2", "--y2"].map(side);
    for (const [width, color] of [[8, "#120c1c"], [4, "#fbab2e"]]) {
      [context.lineWidth, context.strokeStyle] = [width, color];
      context.strokeRect(x1 * WIDTH, y1 * height, (x2 - x1) * WIDTH, (y2 - y1) * height);
    }
  }
  font(56, 750);
  context.fillStyle = "#ffffff";
  context.textBaseline = "top";
  lines.forEach((line, i) => context.fillText(line, PAD, height + PAD + 66 * i));
  font(30, 500);
  context.fillStyle = "#fbab2e";
  context.fillText(sure, PAD, height + PAD + 66 * lines.length + 14);
  context.textAlign = "right";
  context.fillStyle = "#d8c8ec";
  context.fillText("TwinCar", WIDTH - PAD, height + PAD + 66 * lines.length + 14);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
  return new File([blob], `${name.replace(/[^\p{L}\p{N}]+/gu, "-").toLowerCase()}.jpg`, { type: "image/jpeg" });
};

const text = () => element.querySelector(".answer").dataset.text;
const actions = {
  copy: () => copyText(text()),
  save: async () => {
    const file = await card(), link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(file), download: file.name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  },
  share: async () => navigator.share({ files: [await card()], text: text() }),
};
const DONE = { copy: "Copied", save: "Saved", share: "Shared" };
element.addEventListener("click", async (event) => {
  const button = event.target.closest(".take [data-do]"), name = button?.dataset.do;
  if (!actions[name]) return;
  const before = button.textContent;
  try {
    await actions[name]();
    button.textContent = DONE[name];
  } catch (error) {
    if (error.name === "AbortError") return; // the visitor closed the dialog
    button.textContent = "Did not work";
  }
  setTimeout(() => { if (button.isConnected) button.textContent = before; }, 2000);
});

const canShare = () => {
  const file = new File([""], "a.jpg", { type: "image/jpeg" });
  return navigator.canShare?.({ files: [file] });
};
const showShare = () => element.querySelectorAll(".take [data-do=share]").forEach((button) => { button.hidden = !canShare(); });
new MutationObserver(showShare).observe(element, { childList: true, subtree: true });
showShare();
