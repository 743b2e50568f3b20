// The nodes of a job: counts that filter them, the table, and one node with its SQL.

import { ApiError, call, path } from "./api.js";
import { copyable, open } from "./dialogs.js";
import { fill, h, icon, setText, showEach, showInSlices } from "./dom.js";
import { count, duration, exact, nodeName, nodeState, number, word } from "./format.js";

const STATES = ["errors", "warnings", "running", "cancelled", "skipped", "succeeded", "pending"];
const COLUMNS = [
  ["status", "Outcome"],
  ["name", "Node"],
  ["type", "Type"],
  ["time", "Time"],
  ["message", "Message"],
];
const ORDERS = {
  __proto__: null,
  status: (one, other) => STATES.indexOf(nodeState(one)) - STATES.indexOf(nodeState(other)),
  name: (one, other) => one.name.localeCompare(other.name),
  type: (one, other) => one.resourceType.localeCompare(other.resourceType),
  time: (one, other) => (other.durationSeconds ?? -1) - (one.durationSeconds ?? -1),
  message: (one, other) => (one.message ?? "").localeCompare(other.message ?? ""),
};

export class NodeTable {
  /** query: `show`, `type`, `find` and `sort` of the URL. onQuery gets what changes of it. */
  constructor(query, onQuery, onNode) {
    Object.assign(this, { onQuery, onNode, nodes: [] });
    this.shown = { show: STATES.includes(query.show) ? query.show : "", type: query.type ?? "", find: query.find ?? "", sort: query.sort in ORDERS ? query.sort : "status" };
    this.counts = h("div", { class: "chips", role: "group", "aria-label": "Filter by outcome" });
    this.types = h("select", { "aria-label": "Type", on: { change: () => this.change({ type: this.types.value }) } });
    this.find = h("input", { type: "search", placeholder: "Find a node", "aria-label": "Find a node", value: this.shown.find, on: { input: () => this.change({ find: this.find.value }) } });
    this.heads = h("tr", {}, COLUMNS.map((column) => this.columnHead(...column)));
    this.body = h("tbody", {});
    this.none = h("p", { class: "empty", hidden: true }, "No node fits these filters.");
    const tools = h("div", { class: "tools" }, this.counts, this.types, this.find);
    this.element = h("div", { class: "nodes" }, tools, h("table", { class: "node-table" }, h("thead", {}, this.heads), this.body), this.none);
  }

  columnHead(name, title) {
    return h("th", { scope: "col", "data-column": name }, h("button", { class: "link", on: { click: () => this.change({ sort: name }) } }, title));
  }

  filter(state) {
    this.change({ show: this.shown.show === state ? "" : state });
  }

  change(changes) {
    Object.assign(this.shown, changes);
    this.onQuery(changes);
    this.render();
  }

  update(nodes) {
    this.nodes = nodes;
    this.body.style.setProperty("--longest", Math.max(0.001, ...nodes.map((node) => node.durationSeconds ?? 0)));
    const types = [...new Set(nodes.map((node) => node.resourceType))].sort();
    if (this.shown.type && !types.includes(this.shown.type)) types.push(this.shown.type); // of a link, or not begun yet
    if (types.join() !== this.offered) fill(this.types, h("option", { value: "" }, "All types"), types.map((type) => h("option", { value: type, selected: type === this.shown.type }, type)));
    this.offered = types.join(); // options that are replaced close the list that a person has opened
    this.render();
  }

  render() {
    const { show, type, find, sort } = this.shown;
    const typed = this.nodes.filter((node) => !type || node.resourceType === type);
    this.renderCounts(typed);
    const words = find.trim().toLowerCase();
    const rows = typed.filter((node) => (!show || nodeState(node) === show) && (!words || node.name.toLowerCase().includes(words) || (node.path ?? "").toLowerCase().includes(words)));
    rows.sort(ORDERS[sort]);
    for (const head of this.heads.children) {
      if (head.dataset.column === sort) head.setAttribute("aria-sort", sort === "time" ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    showInSlices(this.body, rows, (node) => `${node.step} ${node.uniqueId}`, (node) => this.row(node));
    this.none.hidden = rows.length > 0 || this.nodes.length === 0;
  }

  renderCounts(nodes) {
    const counts = new Map();
    for (const node of nodes) counts.set(nodeState(node), (counts.get(nodeState(node)) ?? 0) + 1);
    const states = STATES.filter((state) => counts.has(state) || state === this.shown.show);
    showEach(this.counts, ["", ...states], (state) => state, (state) => {
      const number_ = h("strong", { class: "number" });
      const chip = h("button", { class: "chip", on: { click: () => this.filter(state) } }, state && icon(state), state ? word(state) : "All", " ", number_);
      chip.update = () => {
        setText(number_, number(this.currentCount(state)));
        chip.setAttribute("aria-pressed", String(this.shown.show === state));
      };
      return chip;
    });
  }

  currentCount(state) {
    return this.nodes.filter((node) => (!this.shown.type || node.resourceType === this.shown.type) && (!state || nodeState(node) === state)).length;
  }

  row(node) {
    const cells = { state: h("td", { class: "state-cell" }), time: h("td", { class: "number time-cell" }), message: h("td", { class: "message-cell" }) };
    const name = h("button", { class: "link", on: { click: () => this.onNode(row.node) } }, node.name);
    const row = h("tr", {}, cells.state, h("th", { scope: "row" }, name), h("td", { class: "faint" }, node.resourceType), cells.time, cells.message);
    row.update = (given) => {
      row.node = given;
      const key = `${given.status} ${given.durationSeconds} ${given.message}`;
      if (row.shown === key) return;
      row.shown = key;
      fill(cells.state, icon(nodeState(given)), word(nodeState(given)));
      fill(cells.time, given.durationSeconds ? duration(given.durationSeconds) : "", h("span", { class: "share", "aria-hidden": "true" }, h("span", { style: { "--seconds": given.durationSeconds ?? 0 } })));
      fill(cells.message, messageOf(given));
    };
    return row;
  }
}

/** One node in a dialog. onOther shows another one. */
export function showNode(job, node, nodes, onOther) {
  const state = nodeState(node);
  const sql = h("div", { class: "sql" }, h("p", { class: "faint" }, "Loading its SQL…"));
  const facts = [
    ["Outcome", [icon(state), " ", node.status]],
    ["Message", node.message],
    ["File", node.path && h("code", {}, node.path)],
    ["Column", node.column],
    ["Failures", node.failures === null ? null : number(node.failures)],
    ["Rows", node.rowsAffected === null ? null : number(node.rowsAffected)],
    ["Took", node.durationSeconds === null ? null : duration(node.durationSeconds)],
    ["Began", node.startedAt && exact(node.startedAt)],
    ["Thread", node.thread],
    ["Comes from", links(node.dependsOn, nodes, onOther)],
    ["Leads to", links(nodes.filter((one) => one.dependsOn.includes(node.uniqueId)).map((one) => one.uniqueId), nodes, onOther)],
  ].filter(([, value]) => value !== null && value !== undefined && value.length !== 0);
  const dialog = open(node.name, h("dl", { class: "facts" }, facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])), sql);
  showSql(sql, job, node);
  return dialog;
}

async function showSql(parent, job, node) {
  try {
    const { compiledSql, failuresSql } = await call(path`jobs/${job}/nodes/${node.uniqueId}/sql` + `?step=${encodeURIComponent(node.step)}`);
    fill(
      parent,
      compiledSql && [h("h3", {}, compiledSql === failuresSql ? "Compiled SQL, which selects the failing rows" : "Compiled SQL"), copyable(compiledSql, "compiled SQL")],
      failuresSql && failuresSql !== compiledSql && [h("h3", {}, "Query for the failing rows"), copyable(failuresSql, "the statement for the failing rows")],
      !compiledSql && !failuresSql && h("p", { class: "faint" }, "No SQL of it is kept."),
    );
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    fill(parent, h("p", { class: "faint" }, error.message));
  }
}

function links(ids, nodes, onOther) {
  return ids.map((id, index) => {
    const other = nodes.find((node) => node.uniqueId === id);
    const name = other?.name ?? nodeName(id);
    return [index > 0 && ", ", other ? h("button", { class: "link", on: { click: () => onOther(other) } }, name) : name];
  });
}

/** What failed and why; the rest is in the node's own dialog. */
function firstLines(text) {
  return text.split("\n").map((line) => line.trim()).filter(Boolean).slice(0, 2).join(" ");
}

function messageOf(node) {
  const rows = node.rowsAffected === null ? "" : count(node.rowsAffected, "row");
  const message = node.message && !["OK", "SUCCESS", "PASS"].includes(node.message) ? firstLines(node.message) : "";
  return [message, rows].filter(Boolean).join(", ");
}
