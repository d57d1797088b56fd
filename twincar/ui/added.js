// The visitor's own cars, as js_on_load of a gr.HTML. `props.value.cars` comes from teach.py. Names are set as text, never as HTML.
const list = element.querySelector("ul"), heading = element.querySelector("h3");
const make = (tag, text, more = {}) => Object.assign(document.createElement(tag), { textContent: text, ...more });

const draw = () => {
  const cars = props.value?.cars ?? [];
  heading.hidden = list.hidden = !cars.length;
  list.replaceChildren(...cars.map(({ key, name, photos }) => {
    const item = make("li", ""), label = make("span", `${name} `), remove = make("button", "Remove", { type: "button" });
    label.append(make("small", `from ${photos}`));
    remove.setAttribute("aria-label", `Remove ${name}`);
    remove.addEventListener("click", () => trigger("select", { key }));
    item.append(label, remove);
    return item;
  }));
};
watch("value", draw);
draw();
