// Runs once, after the page has loaded: keyboard, screen reader and Ctrl+V support that Gradio's components lack.
() => {
  const find = (selector) => document.querySelector(selector);
  document.documentElement.lang = "en";

  find("#shell")?.remove(); // the picture of the page that document.py sends first

  // The address contains the tab: /?tab=many opens it; opening another tab changes the address, and Back returns.
  const tabOf = (id) => find(`#tabs [role=tab][data-tab-id="${CSS.escape(id)}"]`);
  const openTab = (id) => tabOf(id)?.click();
  const wantedTab = () => new URLSearchParams(location.search).get("tab") ?? "identify";
  const shownTab = () => find("#tabs [role=tab][aria-selected=true]")?.dataset.tabId;
  let inView = "identify";
  const updateAddress = () => {
    const id = shownTab(), address = new URL(location);
    if (id && id !== inView) find("#tabs [role=tab][aria-selected=true]").scrollIntoView({ block: "nearest", inline: "center" }); // on a phone
    inView = id ?? inView;
    if (!id || id === wantedTab()) return;
    id === "identify" ? address.searchParams.delete("tab") : address.searchParams.set("tab", id);
    history.pushState(history.state, "", address);
  };
  if (!tabOf(wantedTab())) history.replaceState(history.state, "", location.pathname); // there is no such tab
  openTab(wantedTab());
  addEventListener("popstate", () => openTab(wantedTab()));
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
  // Files dropped or pasted anywhere go to the open tab if it takes some, else one to Identify, several to Many photos.
  const inputOf = { identify: "#photo input[type=file]", many: "#files input[type=file]" };
  const give = (files, id = inputOf[shownTab()] ? shownTab() : "identify") => {
    if (id === "identify" && files.length > 1) id = "many";
    if (!files.length) return;
    if (id !== shownTab()) openTab(id);
    const input = id === "identify" ? fileInput() : find(inputOf[id]), given = new DataTransfer();
    if (!input) return;
    files.forEach((file) => given.items.add(file));
    input.files = given.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  };
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  let inside = 0; // dragenter and dragleave are sent for every element that is crossed
  const over = (more) => {
    inside = Math.max(inside + more, 0);
    document.documentElement.classList.toggle("dragging", inside > 0);
  };
  addEventListener("dragenter", (event) => hasFiles(event) && over(1));
  addEventListener("dragleave", (event) => hasFiles(event) && over(-1));
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    over(-inside);
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.stopPropagation(); // Gradio takes drops on an empty component only; elsewhere the browser opens the file
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    if (!entries.some((entry) => entry.isDirectory)) return give([...event.dataTransfer.files]);
    openTab("many"); // which walks folders: see dropzone.js
    const hand = (tries) => {
      const zone = find("#files .dropzone");
      if (zone?.getClientRects().length) zone.dispatchEvent(new CustomEvent("entries", { detail: entries }));
      else if (tries) requestAnimationFrame(() => hand(tries - 1));
    };
    hand(120);
  }, true);
  document.addEventListener("paste", (event) => give([...(event.clipboardData?.files ?? [])]));

  // The buttons around the photo, and the examples. Gradio's own, a file and the webcam, are icons without text.
  const sources = () => [...document.querySelectorAll("#photo .source-selection button")];
  const fileInput = () => {
    if (!find(inputOf.identify)) sources()[0]?.click(); // the webcam is on
    return find(inputOf.identify);
  };
  const actions = {
    choose: () => fileInput()?.click(),
    camera: () => {
      if (!matchMedia("(pointer: coarse)").matches) {
        sources()[1]?.click();
        return setTimeout(() => find("#photo [title='grant webcam access'] button")?.click(), 100);
      }
      const input = fileInput(); // on a phone, which opens its own camera for it
      input?.setAttribute("capture", "environment");
      input?.click();
      setTimeout(() => input?.removeAttribute("capture"), 1000);
    },
    example: async ({ dataset }) => {
      const answer = await fetch(dataset.src), blob = await answer.blob();
      if (answer.ok) give([new File([blob], dataset.name, { type: blob.type })], "identify");
      scrollTo({ top: 0 });
    },
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do]");
    actions[button?.dataset.do]?.(button);
  });

  // A reload shows the last photo again, as long as the server keeps it.
  const LAST = "twincar-photo";
  const last = sessionStorage.getItem(LAST);
  if (last && shownTab() === "identify") fetch(last).then(async (answer) => {
    const blob = answer.ok && await answer.blob();
    if (blob) give([new File([blob], decodeURIComponent(last.split("/").pop()), { type: blob.type })], "identify");
  }).catch(() => {});
  const remember = () => {
    const src = find("#photo .image-frame img")?.src;
    if (src?.startsWith(location.origin)) sessionStorage.setItem(LAST, src);
    else if (find("#headline .welcome")) sessionStorage.removeItem(LAST);
  };

  window.copyText = async (text) => { // used by the tabs
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const field = Object.assign(document.createElement("textarea"), { value: text }); // on a page without https
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  };

  // The search in the list of the cars.
  const plain = (text) => text.toLowerCase().normalize("NFD").replace(/[^a-z0-9 ]/g, "");
  document.addEventListener("input", (event) => {
    const list = event.target.matches("#known-cars [type=search]") && find("#known-cars details");
    if (!list) return;
    const words = plain(event.target.value).split(" ").filter(Boolean);
    let left = 0;
    list.querySelectorAll("section").forEach((section) => {
      const rows = [...section.querySelectorAll("li")];
      rows.forEach((row) => {
        const text = plain(`${section.dataset.make} ${row.textContent}`);
        row.hidden = !words.every((word) => text.includes(word));
      });
      const shown = rows.filter((row) => !row.hidden).length;
      section.hidden = !shown;
      left += shown;
    });
    list.querySelector(".count").textContent = left ? `${left} ${left === 1 ? "car" : "cars"}` : "No car matches.";
  });

  // Gradio gives every radio button another name; with the same name they are one group and the arrow keys work.
  // Gradio's slider reacts to the mouse only; the arrow keys move it by sending mouse events.
  const finish = () => {
    find("#headline")?.setAttribute("role", "status"); // screen readers announce the answer
    const empty = find("#photo button.upload-container");
    if (empty) empty.ariaLabel = empty.textContent.trim().replace(/\s+/g, " "); // Gradio's label names none of its text
    const choose = find("#actions [data-do=choose]"), text = find("#headline .welcome") ? "Choose a photo" : "New photo";
    if (choose && choose.textContent !== text) choose.textContent = text;
    remember();
    find("#photo input[type=file]")?.setAttribute("accept", "image/*,SUFFIXES"); // else some are greyed out
    document.querySelectorAll("#top5 input[type=radio]").forEach((radio) => {
      if (radio.name !== "top5") radio.name = "top5";
    });
    const group = find("#top5 fieldset");
    group?.setAttribute("role", "radiogroup");
    group?.setAttribute("aria-label", group.querySelector("[data-testid=block-info]")?.textContent ?? "Top five matches");
    document.querySelectorAll("#slider, #detail-slider").forEach(finishSlider);
    document.querySelectorAll(".view[data-chart]").forEach(({ dataset }) => { // plotly's charts have no text alternative
      const chart = document.getElementById(dataset.chart);
      chart?.setAttribute("role", "img");
      chart?.setAttribute("aria-label", dataset.summary);
    });
  };
  const finishSlider = (slider) => {
    const pictures = slider.querySelectorAll("img");
    ["The photo", "The photo with the evidence over it"].forEach((text, i) => {
      if (pictures[i] && pictures[i].alt !== text) pictures[i].alt = text;
    });
    const handle = slider.querySelector(".outer");
    if (!handle || handle.tabIndex === 0) return;
    const attributes = { role: "slider", "aria-label": "Boundary between photo and evidence, in per cent",
      "aria-valuemin": "0", "aria-valuemax": "100" };
    Object.entries(attributes).forEach(([name, value]) => handle.setAttribute(name, value));
    handle.tabIndex = 0;
    const updateValue = () => {
      const box = handle.getBoundingClientRect(), frame = handle.parentElement.getBoundingClientRect();
      const left = frame.width ? (box.left + box.width / 2 - frame.left) / frame.width : 0;
      handle.setAttribute("aria-valuenow", Math.round(100 * Math.min(Math.max(left, 0), 1)));
    };
    updateValue();
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
  // A touch beside the slider's handle scrolls the page; Gradio would take every touch on the pictures for itself.
  document.addEventListener("touchstart", (event) => {
    if (event.target.closest("#slider, #detail-slider") && !event.target.closest(".outer, button")) event.stopPropagation();
  }, { capture: true, passive: true });
  let due = false; // many changes in one frame are handled once
  const soon = () => {
    if (!due) requestAnimationFrame(() => { due = false; finish(); });
    due = true;
  };
  new MutationObserver(soon).observe(find("#tabs") ?? document.body, { childList: true, subtree: true });
  finish();
}
