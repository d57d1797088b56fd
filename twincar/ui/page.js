// Runs once, when the page is there: what Gradio's components do not do for keyboards, screen readers and Ctrl+V.
() => {
  const find = (selector) => document.querySelector(selector);
  document.documentElement.lang = "en";

  // The address names the tab: /?tab=many opens it, and choosing another one changes the address.
  const wanted = new URLSearchParams(location.search).get("tab");
  // A narrow row keeps the last tabs in a menu, whose buttons have labels and no ids.
  const label = window.gradio_config?.components.find(({ type, props }) => type === "tabitem" && props.id === wanted)?.props.label;
  const tabs = document.querySelectorAll("#tabs > .tab-wrapper :is([role=tab], .overflow-dropdown button)");
  if (label) [...tabs].find((tab) => tab.textContent.trim() === label)?.click();
  const name = () => {
    const { tabId } = find("#tabs [role=tab][aria-selected=true]")?.dataset ?? {};
    const address = new URL(location);
    if (!tabId || tabId === (address.searchParams.get("tab") ?? "identify")) return;
    tabId === "identify" ? address.searchParams.delete("tab") : address.searchParams.set("tab", tabId);
    history.replaceState(history.state, "", address);
  };
  const row = find("#tabs > .tab-wrapper");
  if (row) new MutationObserver(name).observe(row, { attributeFilter: ["aria-selected"], childList: true, subtree: true });

  // Paste a picture anywhere on the page, or several where many are asked for: the tab in sight takes them.
  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])];
    const inputs = [...document.querySelectorAll("#photo input[type=file], #files input[type=file]")];
    const input = inputs.find((input) => input.closest(".block")?.offsetParent);
    if (!pasted.length || !input) return;
    const files = new DataTransfer();
    pasted.slice(0, input.multiple ? pasted.length : 1).forEach((file) => files.items.add(file));
    input.files = files.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });

  // Gradio names every radio button differently; with one name they are one group and the arrow keys work.
  // Its slider listens to the mouse alone; the arrow keys move it by sending what a mouse would.
  const finish = () => {
    find("#headline")?.setAttribute("role", "status"); // the answer is spoken when it comes
    document.querySelectorAll("#five input[type=radio]").forEach((radio) => {
      if (radio.name !== "nearest") radio.name = "nearest";
    });
    const group = find("#five fieldset");
    group?.setAttribute("role", "radiogroup");
    group?.setAttribute("aria-label", group.querySelector("[data-testid=block-info]")?.textContent ?? "The nearest");
    document.querySelectorAll("#slider, #detail-slider").forEach(finishSlider);
  };
  const finishSlider = (slider) => {
    const pictures = slider.querySelectorAll("img");
    ["The photo", "The photo with the evidence over it"].forEach((words, i) => {
      if (pictures[i] && pictures[i].alt !== words) pictures[i].alt = words;
    });
    const handle = slider.querySelector(".outer");
    if (!handle || handle.tabIndex === 0) return;
    const told = { role: "slider", "aria-label": "Where the photo ends and the evidence begins, in per cent",
      "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": "50" };
    Object.entries(told).forEach(([name, value]) => handle.setAttribute(name, value));
    handle.tabIndex = 0;
    const tell = () => {
      const box = handle.getBoundingClientRect(), frame = handle.parentElement.getBoundingClientRect();
      const share = (box.left + box.width / 2 - frame.left) / frame.width;
      handle.setAttribute("aria-valuenow", Math.round(100 * Math.min(Math.max(share, 0), 1)));
    };
    handle.addEventListener("focus", tell);
    // The picture's size, the mouse and the keys all move the handle by its style, and not always at once.
    new MutationObserver(() => requestAnimationFrame(tell)).observe(handle, { attributeFilter: ["style"] });
    new ResizeObserver(tell).observe(handle.parentElement);
    handle.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.05, ArrowDown: -0.05, ArrowRight: 0.05, ArrowUp: 0.05, Home: -1, End: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const box = handle.getBoundingClientRect(), frame = handle.parentElement.getBoundingClientRect();
      const from = box.left + box.width / 2, y = box.top + box.height / 2;
      const to = Math.min(Math.max(from + step * frame.width, frame.left), frame.right);
      const mouse = (type, x) => new MouseEvent(type, { clientX: x, clientY: y, bubbles: true, cancelable: true, view: window });
      handle.dispatchEvent(mouse("mousedown", from));
      window.dispatchEvent(mouse("mousemove", to));
      window.dispatchEvent(mouse("mouseup", to));
    });
  };
  let due = false; // many changes at once are looked at once
  const soon = () => {
    if (!due) requestAnimationFrame(() => { due = false; finish(); });
    due = true;
  };
  new MutationObserver(soon).observe(find("#tabs") ?? document.body, { childList: true, subtree: true });
  finish();
}
