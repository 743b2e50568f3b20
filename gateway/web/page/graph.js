// The models of a job as a graph, from sources on the left to what nothing depends on, coloured by outcome.

import { fill, h, icon, s } from "./dom.js";
import { duration, nodeName, nodeState, word } from "./format.js";
import { isTest, layers, pathOf } from "./layout.js";

const WIDTH = 190;
const HEIGHT = 30;
const GAP_X = 70;
const GAP_Y = 12;
const ZOOM = 1.25;

export class Graph {
  constructor(onNode) {
    this.onNode = onNode;
    this.zoom = 1;
    this.box = h("div", { class: "graph-box", tabindex: 0, role: "region", "aria-label": "Graph of the models" });
    const button = (text, label, factor) => h("button", { class: "quiet", "aria-label": label, on: { click: () => this.scale(this.zoom * factor) } }, text);
    const tools = h("p", { class: "actions" }, button("−", "Smaller", 1 / ZOOM), button("+", "Larger", ZOOM), h("button", { class: "quiet", on: { click: () => this.fit() } }, "Fit"));
    this.note = h("span", { class: "faint" }, "Hover or focus a model to see what it comes from and leads to.");
    this.element = h("div", { class: "graph" }, h("div", { class: "head" }, this.note, tools), this.box);
  }

  /** Show nodes. isShown: the graph can be seen; else it is drawn once it can. */
  update(nodes, isShown) {
    if (!isShown || nodes.length === 0) return;
    const key = nodes.map((node) => `${node.uniqueId} ${node.status}`).join();
    if (key === this.key) return;
    const isFirst = this.key === undefined;
    this.key = key;
    this.failing = failingTests(nodes);
    this.draw(layers(nodes));
    if (isFirst) this.fit();
    else this.scale(this.zoom);
  }

  draw(placed) {
    this.graph = new Map(placed.map((one) => [one.id, one]));
    this.width = Math.max(0, ...placed.map((one) => one.x + 1)) * (WIDTH + GAP_X) - GAP_X + 16;
    this.height = Math.max(0, ...placed.map((one) => one.y + 1)) * (HEIGHT + GAP_Y) + 16;
    this.edges = placed.flatMap((one) => one.before.map((id) => edge(this.graph.get(id), one)));
    this.marks = new Map(placed.map((one) => [one.id, this.mark(one)]));
    this.svg = s("svg", { viewBox: `0 0 ${this.width} ${this.height}`, role: "group", "aria-label": "Models and what they depend on" }, this.edges.map((one) => one.line), [...this.marks.values()]);
    fill(this.box, this.svg);
  }

  mark(one) {
    const state = one.node ? nodeState(one.node) : "source";
    const failing = this.failing.get(one.id) ?? 0;
    const name = one.node?.name ?? nodeName(one.id);
    const says = one.node ? `${name}: ${word(state)} in ${duration(one.node.durationSeconds)}` : `${name}: a source`;
    const label = `${says}${failing ? `, ${failing} of its tests failed` : ""}`;
    const show = () => this.highlight(one.id);
    const shape = one.node && icon(state);
    for (const [name, value] of Object.entries({ x: 13, y: 8, width: 14, height: 14 })) shape?.setAttribute(name, value);
    const choose = () => one.node && this.onNode(one.node);
    return s(
      "g",
      {
        class: `model is-${state}${failing ? " is-failing" : ""}`,
        transform: `translate(${left(one)} ${top(one)})`,
        "data-key": one.id,
        tabindex: 0,
        role: one.node ? "button" : "img",
        "aria-label": label,
        on: { mouseenter: show, focus: show, mouseleave: () => this.highlight(null), blur: () => this.highlight(null), click: choose, keydown: (event) => ["Enter", " "].includes(event.key) && (event.preventDefault(), choose()) },
      },
      s("title", {}, label),
      s("rect", { width: WIDTH, height: HEIGHT, rx: 5 }),
      s("rect", { class: "edge-mark", width: 6, height: HEIGHT, rx: 2 }),
      shape,
      s("text", { x: shape ? 34 : 14, y: 20 }, shortened(name)),
      failing && s("text", { class: "badge", x: WIDTH - 8, y: 20, "text-anchor": "end" }, `✗${failing}`),
    );
  }

  /** Show the way to and from a node, and the rest faintly; null shows all alike. */
  highlight(id) {
    const found = id === null ? null : pathOf(id, this.graph);
    this.svg.classList.toggle("is-traced", found !== null);
    for (const [other, mark] of this.marks) mark.classList.toggle("on-path", found?.has(other) ?? false);
    for (const { from, to, line } of this.edges) line.classList.toggle("on-path", (found?.has(from) && found.has(to)) ?? false);
  }

  fit() {
    this.scale(Math.min(1, Math.max(0.25, (this.box.clientWidth - 2) / this.width)));
  }

  scale(zoom) {
    this.zoom = Math.min(2, Math.max(0.2, zoom));
    this.svg.setAttribute("width", this.width * this.zoom);
    this.svg.setAttribute("height", this.height * this.zoom);
  }
}

function failingTests(nodes) {
  const found = new Map();
  for (const test of nodes.filter((node) => isTest(node) && nodeState(node) === "errors")) {
    for (const id of test.dependsOn) found.set(id, (found.get(id) ?? 0) + 1);
  }
  return found;
}

function edge(from, to) {
  const [x1, y1, x2, y2] = [left(from) + WIDTH, top(from) + HEIGHT / 2, left(to), top(to) + HEIGHT / 2];
  const bend = Math.max(GAP_X / 2, (x2 - x1) / 2);
  return { from: from.id, to: to.id, line: s("path", { class: "edge", d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}` }) };
}

function left(one) {
  return 8 + one.x * (WIDTH + GAP_X);
}

function top(one) {
  return 8 + one.y * (HEIGHT + GAP_Y);
}

function shortened(name) {
  return name.length > 22 ? `${name.slice(0, 21)}…` : name;
}
