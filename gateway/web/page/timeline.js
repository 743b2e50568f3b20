// Where the time went: a bar per step, and within a dbt step a bar per node, thread by thread.

import { fill, h, icon, setText, showEach } from "./dom.js";
import { count, duration, elapsed, nodeState, stepState, word } from "./format.js";
import { criticalPath } from "./layout.js";

const TICKS = 4;

export class Timeline {
  constructor(onNode) {
    this.onNode = onNode;
    this.axis = h("div", { class: "step-row axis", "aria-hidden": "true" });
    this.rows = h("div", {});
    this.element = h("div", { class: "timeline" }, this.axis, this.rows);
  }

  update(job, nodes) {
    const from = Date.parse(job.startedAt ?? job.createdAt);
    const to = job.finishedAt ? Date.parse(job.finishedAt) : Date.parse(job.createdAt) + 1000 * elapsed(job);
    const scale = { from, span: Math.max(to - from, 1) };
    const key = JSON.stringify([scale, job.steps]);
    if (key === this.key && nodes === this.nodes) return;
    Object.assign(this, { key, nodes });
    fill(this.axis, axis(scale));
    const rows = job.steps.map((step) => ({ job, step, nodes: nodes.filter((node) => node.step === step.name), scale }));
    showEach(this.rows, rows, ({ step }) => step.name, () => this.row());
  }

  row() {
    const [name, track, took, lanes] = [h("span", { class: "step-name" }), h("div", { class: "track" }), h("span", { class: "number" }), this.lanes()];
    const row = h("div", { class: "step-row" }, name, track, took, lanes);
    row.update = ({ job, step, nodes, scale }) => {
      const state = stepState(step, job);
      const seconds = step.status === "running" ? (scale.from + scale.span - Date.parse(step.startedAt)) / 1000 : step.durationSeconds; // its record is of a while ago
      fill(name, icon(state, word(state)), step.name);
      fill(track, step.startedAt && h("span", { class: `step-bar is-${state}`, style: place(step.startedAt, seconds, scale) }));
      setText(took, step.note && !step.startedAt ? step.note : step.startedAt ? duration(step.status === "running" ? Math.round(seconds) : seconds) : "");
      const timed = nodes.filter((node) => node.startedAt && node.durationSeconds !== null);
      lanes.hidden = timed.length === 0;
      if (timed.length > 0) lanes.update(step, timed, scale);
    };
    return row;
  }

  /** The bars of a step's nodes, and its critical path, whose links stay while the bars grow. */
  lanes() {
    const box = h("div", { class: "lane-box", role: "img" });
    const [sum, links] = [h("summary", {}), h("p", {})];
    const lanes = h("div", { class: "lanes" }, box, h("details", { class: "chain" }, sum, links));
    lanes.update = (step, nodes, scale) => {
      const threads = Map.groupBy(nodes, (node) => node.thread ?? "");
      const chain = criticalPath(nodes);
      const critical = new Set(chain.map((node) => node.uniqueId));
      box.ariaLabel = `${nodes.length} nodes on ${threads.size} threads; the table of nodes has their times`;
      const sorted = [...threads].sort(([one], [other]) => one.localeCompare(other, "en", { numeric: true }));
      fill(box, sorted.map(([thread, own]) => h("div", { class: "lane", title: thread }, own.map((node) => this.bar(node, critical, scale)))));
      setText(sum, `Critical path: ${count(chain.length, "node")}, ${duration(chain.reduce((seconds, node) => seconds + node.durationSeconds, 0))}${before(step, nodes)}`);
      const key = [...critical].join();
      if (lanes.shown === key) return;
      lanes.shown = key;
      fill(links, chain.map((node, index) => [index > 0 && " → ", h("button", { class: "link", on: { click: () => this.onNode(node) } }, node.name)]));
    };
    return lanes;
  }

  bar(node, critical, scale) {
    const classes = `node-bar is-${nodeState(node)}${critical.has(node.uniqueId) ? " is-critical" : ""}`;
    const title = `${node.name}: ${node.status} in ${duration(node.durationSeconds)}`;
    return h("span", { class: classes, title, style: place(node.startedAt, node.durationSeconds, scale), on: { click: () => this.onNode(node) } });
  }
}

/** How long a step took before its first node: dbt starts and parses. */
function before(step, nodes) {
  const seconds = (Math.min(...nodes.map((node) => Date.parse(node.startedAt))) - Date.parse(step.startedAt)) / 1000;
  return seconds >= 1 ? `; ${duration(seconds)} before the first node` : "";
}

function axis({ span }) {
  const ticks = Array.from({ length: TICKS + 1 }, (_, index) => h("span", { style: { left: `${(100 * index) / TICKS}%` } }, duration((span / 1000) * (index / TICKS))));
  return [h("span", {}), h("div", { class: "ticks" }, ticks), h("span", {})];
}

function place(startedAt, seconds, { from, span }) {
  const begin = Math.min(span, Math.max(0, Date.parse(startedAt) - from)); // the clocks of two hosts may differ
  return { left: `${(100 * begin) / span}%`, width: `${(100 * Math.min(span - begin, 1000 * (seconds ?? 0))) / span}%` };
}
