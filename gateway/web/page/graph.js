// The models of a job as a graph, from sources on the left to what nothing depends on, coloured by outcome.

import { fill, h, icon, plainText, s, showInSlices } from "./dom.js";
import { duration, nodeName, nodeState, word } from "./format.js";
import { isTest, layers, pathOf } from "./layout.js";

const WIDTH = 190;
const HEIGHT = 30;
const GAP_X = 70;
const GAP_Y = 12;
const ZOOM = 1.25;
const READABLE = 0.75; // the zoom by which names can be read

export class Graph {
  constructor(onNode) {
    Object.assign(this, { onNode, zoom: 1, traced: null });
    this.lines = s("g", {});
    this.models = s("g", {
      on: {
        mouseover: (event) => this.highlight(idAt(event)),
        mouseleave: () => this.highlight(null),
        focusin: (event) => this.highlight(idAt(event)),
        focusout: () => this.highlight(null),
        click: (event) => this.choose(event),
        keydown: (event) => ["Enter", " "].includes(event.key) && (event.preventDefault(), this.choose(event)),
      },
    });
    this.svg = s("svg", { role: "group", "aria-label": "Models and what they depend on" }, this.lines, this.models);
    this.box = h("div", { class: "graph-box", tabindex: 0, role: "region", "aria-label": "Graph of the models", on: { wheel: (event) => this.onWheel(event) } }, this.svg);
    const button = (text, label, factor) => h("button", { class: "quiet", "aria-label": label, on: { click: () => this.scale(this.zoom * factor) } }, text);
    const tools = h("p", { class: "actions" }, button("−", "Smaller", 1 / ZOOM), button("+", "Larger", ZOOM), h("button", { class: "quiet", on: { click: () => this.scale(this.fitting()) } }, "Fit"));
    this.note = h("span", { class: "faint" }, "Hover, tap or focus a model to see what it comes from and leads to.");
    this.element = h("div", { class: "graph" }, h("div", { class: "head" }, this.note, tools), this.box);
  }

  /** Show nodes. isShown: the graph can be seen; else it is drawn once it can. */
  update(nodes, isShown) {
    if (!isShown || nodes.length === 0) return;
    if (nodes === this.nodes) return;
    const isFirst = this.nodes === undefined;
    this.nodes = nodes;
    this.failing = failingTests(nodes);
    const placed = layers(nodes);
    this.draw(placed);
    this.scale(isFirst ? Math.max(READABLE, this.fitting()) : this.zoom);
    if (isFirst) this.center(placed.find((one) => one.node && nodeState(one.node) === "errors") ?? placed.find((one) => this.failing.has(one.id)));
  }

  draw(placed) {
    this.graph = new Map(placed.map((one) => [one.id, one]));
    this.width = Math.max(...placed.map((one) => left(one) + WIDTH)) + 8;
    this.height = Math.max(...placed.map((one) => Math.max(top(one), ...one.lanes.map(top)) + HEIGHT)) + 8;
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    const edges = placed.flatMap((one) => one.before.map((id) => ({ from: this.graph.get(id), to: one })));
    showInSlices(this.lines, edges, ({ from, to }) => `${from.id} ${to.id}`, line);
    showInSlices(this.models, placed, (one) => one.id, () => this.mark());
  }

  mark() {
    const mark = s("g", { tabindex: 0 });
    mark.update = (one) => {
      const state = one.node ? nodeState(one.node) : "source";
      const failing = this.failing.get(one.id) ?? 0;
      const name = one.node?.name ?? nodeName(one.id);
      const says = one.node ? `${word(state)} in ${duration(one.node.durationSeconds)}` : one.id.startsWith("source.") ? "a source" : "not run in this job";
      const label = plainText(`${name}: ${says}${failing ? `, ${failing} of its tests failed` : ""}`);
      mark.setAttribute("transform", `translate(${left(one)} ${top(one)})`);
      if (mark.shown === label) return;
      mark.shown = label;
      mark.setAttribute("class", `model is-${state}${failing ? " is-failing" : ""}`);
      mark.setAttribute("role", one.node ? "button" : "img");
      mark.setAttribute("aria-label", label);
      const shape = one.node && icon(state);
      for (const [name, value] of Object.entries({ x: 13, y: 8, width: 14, height: 14 })) shape?.setAttribute(name, value);
      fill(
        mark,
        s("title", {}, label),
        s("rect", { width: WIDTH, height: HEIGHT, rx: 5 }),
        s("rect", { class: "edge-mark", width: 6, height: HEIGHT, rx: 2 }),
        shape,
        s("text", { x: shape ? 34 : 14, y: 20 }, shortened(name)),
        failing && s("text", { class: "badge", x: WIDTH - 8, y: 20, "text-anchor": "end" }, `✗${failing}`),
      );
    };
    return mark;
  }

  choose(event) {
    const node = this.graph.get(idAt(event))?.node;
    if (node) this.onNode(node);
  }

  /** Show the way to and from a node, and the rest faintly; null shows all alike. */
  highlight(id) {
    if (id === this.traced) return;
    this.traced = id;
    const found = id === null ? null : pathOf(id, this.graph);
    this.svg.classList.toggle("is-traced", found !== null);
    for (const mark of this.models.children) mark.classList.toggle("on-path", found?.has(mark.dataset.key) ?? false);
    for (const { ends, classList } of this.lines.children) classList.toggle("on-path", ends.every((end) => found?.has(end)));
  }

  /** The zoom by which all layers can be seen. */
  fitting() {
    return Math.min(1, (this.box.clientWidth - 2) / this.width);
  }

  scale(zoom) {
    this.zoom = Math.min(2, Math.max(0.1, zoom));
    this.svg.setAttribute("width", this.width * this.zoom);
    this.svg.setAttribute("height", this.height * this.zoom);
  }

  /** With Ctrl, as a browser zooms; what is under the pointer stays there. */
  onWheel(event) {
    if (!event.ctrlKey) return;
    event.preventDefault();
    const { x, y } = this.box.getBoundingClientRect();
    const [across, down] = [event.clientX - x, event.clientY - y];
    const [pointX, pointY] = [(this.box.scrollLeft + across) / this.zoom, (this.box.scrollTop + down) / this.zoom];
    this.scale(this.zoom * (event.deltaY < 0 ? ZOOM : 1 / ZOOM));
    this.box.scrollTo(pointX * this.zoom - across, pointY * this.zoom - down);
  }

  center(one) {
    if (one) this.box.scrollTo((left(one) + WIDTH / 2) * this.zoom - this.box.clientWidth / 2, top(one) * this.zoom - this.box.clientHeight / 2);
  }
}

function idAt(event) {
  return event.target.closest(".model")?.dataset.key ?? null;
}

function failingTests(nodes) {
  const found = new Map();
  for (const test of nodes.filter((node) => isTest(node) && nodeState(node) === "errors")) {
    for (const id of test.dependsOn) found.set(id, (found.get(id) ?? 0) + 1);
  }
  return found;
}

/** An edge; it passes the layers between at its lanes. */
function line() {
  const path = s("path", { class: "edge" });
  path.update = ({ from, to }) => {
    path.ends = [from.id, to.id];
    let [x, y] = [left(from) + WIDTH, top(from) + HEIGHT / 2];
    let way = `M${x} ${y}`;
    for (const stop of [...from.lanes.slice(0, Math.max(0, to.x - from.x - 1)), to]) {
      const [nextX, nextY] = [left(stop), top(stop) + HEIGHT / 2];
      const bend = Math.max(GAP_X, nextX - x) / 2;
      way += `C${x + bend} ${y} ${nextX - bend} ${nextY} ${nextX} ${nextY}`;
      if (stop !== to) way += `h${WIDTH}`;
      [x, y] = [nextX + WIDTH, nextY];
    }
    if (way !== path.getAttribute("d")) path.setAttribute("d", way);
  };
  return path;
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
