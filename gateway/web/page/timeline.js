// Where the time went: a bar per step, and within a dbt step a bar per node, thread by thread.

import { fill, h, icon } from "./dom.js";
import { duration, elapsed, nodeState, stepState, word } from "./format.js";
import { criticalPath } from "./layout.js";

const TICKS = 4;

export class Timeline {
  constructor(onNode) {
    this.onNode = onNode;
    this.element = h("div", { class: "timeline" });
  }

  update(job, nodes) {
    const from = Date.parse(job.startedAt ?? job.createdAt);
    const to = job.finishedAt ? Date.parse(job.finishedAt) : Date.parse(job.createdAt) + 1000 * elapsed(job);
    const scale = { from, span: Math.max(to - from, 1) };
    const key = JSON.stringify([scale, job.steps]);
    if (key === this.key && nodes === this.nodes) return;
    Object.assign(this, { key, nodes });
    const rows = job.steps.map((step) => this.row(step, nodes.filter((node) => node.step === step.name), scale));
    fill(this.element, axis(scale), rows);
  }

  row(step, nodes, scale) {
    const state = stepState(step);
    const bar = step.startedAt && h("span", { class: `step-bar is-${state}`, style: place(step.startedAt, step.durationSeconds, scale) });
    const name = h("span", { class: "step-name" }, icon(state, word(state)), step.name);
    const took = step.note && !step.startedAt ? step.note : step.startedAt ? duration(step.durationSeconds) : "";
    const timed = nodes.filter((node) => node.startedAt && node.durationSeconds !== null);
    return h("div", { class: "step-row" }, name, h("div", { class: "track" }, bar), h("span", { class: "number" }, took), timed.length > 0 && this.lanes(timed, scale));
  }

  lanes(nodes, scale) {
    const threads = Map.groupBy(nodes, (node) => node.thread ?? "");
    const chain = criticalPath(nodes);
    const critical = new Set(chain.map((node) => node.uniqueId));
    const lanes = [...threads].sort(([one], [other]) => one.localeCompare(other, "en", { numeric: true })).map(([thread, own]) => {
      const bars = own.map((node) => this.bar(node, critical, scale));
      return h("div", { class: "lane", title: thread }, bars);
    });
    const total = chain.reduce((sum, node) => sum + node.durationSeconds, 0);
    const links = chain.map((node, index) => [index > 0 && " → ", h("button", { class: "link", on: { click: () => this.onNode(node) } }, node.name)]);
    return h("div", { class: "lanes" }, h("div", { class: "lane-box", role: "img", "aria-label": `${nodes.length} nodes on ${threads.size} threads; the table of nodes has their times` }, lanes), h("details", { class: "chain", open: this.chainOpen, on: { toggle: (event) => (this.chainOpen = event.target.open) } }, h("summary", {}, `Critical path: ${chain.length} nodes, ${duration(total)}`), h("p", {}, links)));
  }

  bar(node, critical, scale) {
    const classes = `node-bar is-${nodeState(node)}${critical.has(node.uniqueId) ? " is-critical" : ""}`;
    const title = `${node.name}: ${node.status} in ${duration(node.durationSeconds)}`;
    return h("span", { class: classes, title, style: place(node.startedAt, node.durationSeconds, scale), on: { click: () => this.onNode(node) } });
  }
}

function axis({ span }) {
  const ticks = Array.from({ length: TICKS + 1 }, (_, index) => h("span", { style: { left: `${(100 * index) / TICKS}%` } }, duration((span / 1000) * (index / TICKS))));
  return h("div", { class: "step-row axis", "aria-hidden": "true" }, h("span", {}), h("div", { class: "ticks" }, ticks), h("span", {}));
}

function place(startedAt, seconds, { from, span }) {
  const begin = Math.min(span, Math.max(0, Date.parse(startedAt) - from)); // the clocks of two hosts may differ
  return { left: `${(100 * begin) / span}%`, width: `${(100 * Math.min(span - begin, 1000 * (seconds ?? 0))) / span}%` };
}
