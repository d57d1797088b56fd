// Runs once, after the page has loaded: keyboard, screen reader and Ctrl+V support that Gradio's components lack.
() => {
  const find = (selector) => document.querySelector(selector);
  document.documentElement.lang = "en";

  // The address contains the tab: /?tab=many opens it, and opening another tab changes the address.
  const wanted = new URLSearchParams(location.search).get("tab");
  // On a narrow screen the last tabs are in a menu, whose buttons have labels but no ids.
  const label = window.gradio_config?.components.find(({ type, props }) => type === "tabitem" && props.id === wanted)?.props.label;
  const tabs = document.querySelectorAll("#tabs > .tab-wrapper :is([role=tab], .overflow-dropdown button)");
  if (label) [...tabs].find((tab) => tab.textContent.trim() === label)?.click();
  const updateAddress = () => {
    const { tabId } = find("#tabs [role=tab][aria-selected=true]")?.dataset ?? {};
    const address = new URL(location);
    if (!tabId || tabId === (address.searchParams.get("tab") ?? "identify")) return;
    tabId === "identify" ? address.searchParams.delete("tab") : address.searchParams.set("tab", tabId);
    history.replaceState(history.state, "", address);
  };
  const row = find("#tabs > .tab-wrapper");
  if (row) new MutationObserver(updateAddress).observe(row, { attributeFilter: ["aria-selected"], childList: true, subtree: true });

  // Gradio refuses a photo whose type the browser does not know, such as .heic. The server judges files by their content.
  const isImage = (file) => file.type.startsWith("image/");
  const asImages = (files) => {
    const images = new DataTransfer();
    for (const file of files) images.items.add(isImage(file) ? file : new File([file], file.name, { type: "image/unknown" }));
    return images;
  };
  document.addEventListener("change", (event) => {
    if (event.target.matches("#photo input[type=file]")) event.target.files = asImages(event.target.files).files;
  }, true);
  document.addEventListener("drop", (event) => {
    const files = [...(event.dataTransfer?.files ?? [])];
    if (!event.target.closest("#photo") || files.every(isImage)) return;
    event.preventDefault();
    event.stopPropagation();
    const drop = { dataTransfer: asImages(files), bubbles: true, cancelable: true };
    event.target.dispatchEvent(new DragEvent("drop", drop));
  }, true);

  // A picture pasted anywhere goes to the open tab; several pictures where the tab accepts them.
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

  // Gradio gives every radio button another name; with the same name they are one group and the arrow keys work.
  // Gradio's slider reacts to the mouse only; the arrow keys move it by sending mouse events.
  const finish = () => {
    find("#headline")?.setAttribute("role", "status"); // screen readers announce the answer
    find("#photo input[type=file]")?.setAttribute("accept", "image/*,SUFFIXES"); // else some are greyed out
    document.querySelectorAll("#top5 input[type=radio]").forEach((radio) => {
      if (radio.name !== "top5") radio.name = "top5";
    });
    const group = find("#top5 fieldset");
    group?.setAttribute("role", "radiogroup");
    group?.setAttribute("aria-label", group.querySelector("[data-testid=block-info]")?.textContent ?? "Top 5");
    document.querySelectorAll("#slider, #detail-slider").forEach(finishSlider);
  };
  const finishSlider = (slider) => {
    const pictures = slider.querySelectorAll("img");
    ["The photo", "The photo with the evidence over it"].forEach((text, i) => {
      if (pictures[i] && pictures[i].alt !== text) pictures[i].alt = text;
    });
    const handle = slider.querySelector(".outer");
    if (!handle || handle.tabIndex === 0) return;
    const attributes = { role: "slider", "aria-label": "Boundary between photo and evidence, in per cent",
      "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": "50" };
    Object.entries(attributes).forEach(([name, value]) => handle.setAttribute(name, value));
    handle.tabIndex = 0;
    const updateValue = () => {
      const box = handle.getBoundingClientRect(), frame = handle.parentElement.getBoundingClientRect();
      const left = (box.left + box.width / 2 - frame.left) / frame.width;
      handle.setAttribute("aria-valuenow", Math.round(100 * Math.min(Math.max(left, 0), 1)));
    };
    handle.addEventListener("focus", updateValue);
    // The picture's size, the mouse and the keys all move the handle through its style, sometimes with a delay.
    new MutationObserver(() => requestAnimationFrame(updateValue)).observe(handle, { attributeFilter: ["style"] });
    new ResizeObserver(updateValue).observe(handle.parentElement);
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
  let due = false; // many changes in one frame are handled once
  const soon = () => {
    if (!due) requestAnimationFrame(() => { due = false; finish(); });
    due = true;
  };
  new MutationObserver(soon).observe(find("#tabs") ?? document.body, { childList: true, subtree: true });
  finish();
}
