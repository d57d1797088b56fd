// The code of the tab About, as js_on_load of a gr.HTML: the address that the visitor uses, which a server behind a proxy
// cannot know, and buttons that copy.
const here = location.href.split(/[?#]/)[0].replace(/\/+$/, "");
element.querySelectorAll("code").forEach((code) => { code.textContent = code.textContent.replaceAll("{page}", here); });
element.addEventListener("click", async ({ target }) => {
  const code = target.closest(".call button") && target.parentElement.querySelector("code");
  if (!code) return;
  await copyText(code.textContent);
  target.textContent = "Copied";
  setTimeout(() => { target.textContent = "Copy"; }, 2000);
});
