// Elements made of values. Text becomes text nodes and nothing else, so no output, name or parameter is read as HTML.

const SVG = "http://www.w3.org/2000/svg";
const VERBATIM = ["code", "pre"]; // what is copied from them is what came; the stylesheet keeps them apart from what is beside
const REVERSING = /[\u202a-\u202e\u2066-\u2069]/g; // changes the order of the letters that follow, also of ours
const SAID = ["title", "aria-label"];
const SLICE = 25; // items that are made in a frame, where there are many

/** An element. props: attributes; `on` maps events to handlers, `style` maps properties to values. */
export function h(tag, props = {}, ...children) {
  return filled(document.createElement(tag), props, children);
}

/** An element of SVG. */
export function s(tag, props = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), props, children);
}

/** Give an element other children. */
export function fill(element, ...children) {
  keepFocus(element, () => element.replaceChildren(...content(element, children)));
  return element;
}

/** Set the text of an element, where it differs: a screen reader may be in it. */
export function setText(element, text) {
  const plain = plainText(text);
  if (element.textContent !== plain) element.textContent = plain;
}

/**
 * Have a parent show one child per item, in order. make(item) makes a child, whose property `update` is called with each
 * item that it shows. Children of items that stay are kept, with their focus.
 */
export function showEach(parent, items, keyOf, make) {
  keepFocus(parent, () => arrange(parent, items, keyOf, make));
}

function arrange(parent, items, keyOf, make) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let child = old.get(key);
    old.delete(key);
    if (child === undefined) {
      child = make(item);
      child.dataset.key = key;
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    child.update?.(item);
  }
  for (const child of old.values()) child.remove();
}

/**
 * Change what is in a parent, and leave the focus where it was: on the element that had it, or on the one in its place,
 * or else on what is around it, so that the keyboard does not begin at the top of the page again.
 */
function keepFocus(parent, change) {
  const held = document.activeElement;
  const isInside = held !== parent && parent.contains(held);
  change();
  if (!isInside || document.activeElement === held) return;
  const same = parent.contains(held) ? held : [...parent.querySelectorAll(held.localName)].find((one) => nameOf(one) === nameOf(held));
  (same ?? document.getElementById("main")).focus({ preventScroll: true });
}

function nameOf(element) {
  return element.dataset.key ?? element.ariaLabel ?? element.textContent;
}

/** Do it before the next frame; in a hidden tab, which has none, soon. */
export function nextFrame(doIt) {
  if (document.hidden) setTimeout(doIt, 100);
  else requestAnimationFrame(doIt);
}

/** `showEach` of many items: some come in each frame, so that the page answers meanwhile. */
export function showInSlices(parent, items, keyOf, make) {
  let end = Math.max(SLICE, parent.childElementCount);
  parent.items = items;
  const draw = () => {
    if (parent.items !== items) return; // others are shown by now
    showEach(parent, items.slice(0, end), keyOf, make);
    if (end < items.length) nextFrame(draw);
    end += SLICE;
  };
  draw();
}

/** Say something to screen readers, without moving the focus. */
export function announce(text) {
  setText(document.getElementById("announcer"), text);
}

const SHAPES = {
  __proto__: null,
  succeeded: ["M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1Z", "m4.8 8.2 2.3 2.3 4.2-4.6"],
  warnings: ["M8 1.2 15.4 14.4H.6Z", "M8 6v4M8 12.2v.3"],
  errors: ["M2 1h12a1 1 0 0 1 1 1v12a1 1 0 0 1-1 1H2a1 1 0 0 1-1-1V2a1 1 0 0 1 1-1Z", "m5.2 5.2 5.6 5.6M10.8 5.2l-5.6 5.6"],
  failed: ["M5.1 1h5.8L15 5.1v5.8L10.9 15H5.1L1 10.9V5.1Z", "M8 4v5M8 11.5v.3"],
  cancelled: ["M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1Z", "M4.5 8h7"],
  running: ["", "M8 2a6 6 0 1 0 6 6"],
  queued: ["", "M8 2a6 6 0 1 0 .01 0M8 4.8V8l2.2 1.6"],
  refused: ["M8 1 15 8 8 15 1 8Z", "M8 5v3.6M8 10.9v.3"],
  skipped: ["", "M3 4l4 4-4 4M9 4l4 4-4 4"],
  pending: ["", "M8 2.5a5.5 5.5 0 1 0 .01 0"],
};

/** The shape of a state, in its colour. The word beside it says the same, unless `label` is given. */
export function icon(state, label) {
  const [solid, stroke] = SHAPES[state] ?? SHAPES.pending;
  return s(
    "svg",
    { class: `icon is-${state}`, viewBox: "0 0 16 16", ...(label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" }) },
    solid && s("path", { class: "solid", d: solid }),
    s("path", { class: solid ? "mark" : "stroke", d: stroke }),
  );
}

/** The icon of the tab: the shape of a state. */
export function setFavicon(state) {
  const link = document.querySelector("link[rel=icon]");
  const [solid, stroke] = SHAPES[state] ?? [];
  if (stroke === undefined) {
    link.href = "page/icon.svg";
    return;
  }
  const color = getComputedStyle(document.documentElement).getPropertyValue(`--${state}`).trim() || "gray";
  const mark = `fill="none" stroke="${solid ? "white" : color}" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"`;
  const text = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path d="${solid}" fill="${color}"/><path d="${stroke}" ${mark}/></svg>`;
  link.href = `data:image/svg+xml,${encodeURIComponent(text)}`;
}

function filled(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    else if (name === "style") for (const [property, text] of Object.entries(value)) element.style.setProperty(property, text);
    else element.setAttribute(name, value === true ? "" : SAID.includes(name) ? plainText(value) : value);
  }
  element.append(...content(element, children));
  return element;
}

function content(element, children) {
  const isVerbatim = VERBATIM.includes(element.localName);
  return children.flat(Infinity).filter(isShown).map((child) => (isVerbatim || child instanceof Node ? child : plainText(child)));
}

/** A text with a mark in the place of each letter that would change the order of others. */
export function plainText(text) {
  return String(text).replace(REVERSING, "\ufffd");
}

function isShown(child) {
  return child !== undefined && child !== null && child !== false && child !== "";
}
