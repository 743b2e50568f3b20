// Questions, statements of SQL, and what is copied.

import { announce, fill, h } from "./dom.js";

/** Ask before something is done. choices: [[value, text]], of which one is picked. The value, null for no. */
export function ask(title, text, action, choices = []) {
  return new Promise((resolve) => {
    const options = choices.map(([value, label], index) =>
      h("label", { class: "choice" }, h("input", { type: "radio", name: "choice", value, checked: index === 0 }), label),
    );
    const form = h(
      "form",
      { method: "dialog" },
      h("p", {}, text),
      options.length > 0 && h("fieldset", { class: "plain" }, h("legend", { class: "unseen" }, title), options),
      h("p", { class: "actions" }, h("button", { value: "no" }, "No, leave it"), h("button", { value: "yes", class: "primary" }, action)),
    );
    const dialog = open(title, form);
    dialog.addEventListener("close", () => {
      const picked = form.elements.choice?.value ?? "yes";
      resolve(dialog.returnValue === "yes" ? picked : null);
    });
  });
}

/** A dialog that is shown until it is closed; it is removed then, and the focus goes back. */
export function open(title, ...content) {
  const close = h("button", { class: "quiet close", "aria-label": "Close", on: { click: () => dialog.close() } }, "✕");
  const dialog = h("dialog", { "aria-label": title }, h("header", {}, h("h2", {}, title), close), content);
  const left = new AbortController();
  addEventListener("hashchange", () => dialog.close(), { signal: left.signal }); // what it is about is not shown any more
  dialog.addEventListener("close", () => (left.abort(), dialog.remove()));
  let isOutside = false; // where the pointer went down: text may be selected up to the edge
  dialog.addEventListener("pointerdown", (event) => (isOutside = isBeside(dialog, event)));
  dialog.addEventListener("click", (event) => isOutside && isBeside(dialog, event) && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

function isBeside(dialog, { clientX: x, clientY: y }) {
  const box = dialog.getBoundingClientRect();
  return x < box.left || x > box.right || y < box.top || y > box.bottom;
}

/** Text in a box of its own, with a button that copies it. text may be changed by the returned element's `update`. */
export function copyable(text, label) {
  const code = h("code", {}, text);
  const button = h("button", { class: "quiet copy" }, "Copy");
  button.setAttribute("aria-label", `Copy ${label}`);
  button.addEventListener("click", async () => {
    await copy(code);
    fill(button, "Copied");
    announce(`Copied ${label}`);
    setTimeout(() => fill(button, "Copy"), 2000);
  });
  const box = h("div", { class: "copyable" }, h("pre", { tabindex: 0, role: "region", "aria-label": label }, code), button);
  box.update = (other) => fill(code, other);
  return box;
}

async function copy(element) {
  if (navigator.clipboard) return navigator.clipboard.writeText(element.textContent);
  getSelection().selectAllChildren(element); // a page that came by plain http from another host has no clipboard
  document.execCommand("copy");
  return getSelection().removeAllRanges();
}
