// Elements made of values. Text becomes text nodes and nothing else, so no output, name or parameter is read as HTML.

const SVG = "http://www.w3.org/2000/svg";
const SLICE = 40; // items that are made in a frame, where there are many

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
  element.replaceChildren(...children.flat(Infinity).filter(isShown));
  return element;
}

/** Set the text of an element, where it differs: a screen reader may be in it. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Have a parent show one child per item, in order. make(item) makes a child, whose property `update` is called with each
 * item that it shows. Children of items that stay are kept, with their focus.
 */
export function showEach(parent, items, keyOf, make) {
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
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter(isShown));
  return element;
}

function isShown(child) {
  return child !== undefined && child !== null && child !== false && child !== "";
}
