// One job: its outcome in a sentence, its steps, its nodes, its log, and what can be done with it.

import { ApiError, BASE, call, newKey, path, persist } from "./api.js";
import { ask, copyable } from "./dialogs.js";
import { announce, fill, h, icon, nextFrame, setText } from "./dom.js";
import { follow } from "./follow.js";
import { ago, bytes, duration, elapsed, jobState, nodeName, nodeState, number, progressOf, runSeconds, sentence, stepState, word } from "./format.js";
import { Graph } from "./graph.js";
import { isTest } from "./layout.js";
import { LogView } from "./log.js";
import { NodeTable, showNode } from "./nodes.js";
import { Timeline } from "./timeline.js";

const TAIL = 512 * 1024; // bytes of the log that are shown at first
const NODES_PAUSE = 1500; // milliseconds between two looks at the nodes of a job that runs
const OTHERS = 5; // nodes that failed too, at most, beside the first failure
const TABS = [
  ["nodes", "Nodes"],
  ["graph", "Graph"],
  ["log", "Log"],
  ["details", "Details"],
];

export async function show(main, { params, query, signal, setQuery, setTitle }) {
  const [id] = params;
  const record = await persist(() => call(path`jobs/${id}`, { signal }), signal);
  const view = new JobView(main, record, query, signal, setQuery, setTitle);
  const end = (record.outputBytes ?? 0) + (record.outputDroppedBytes ?? 0);
  const begin = Math.max(record.outputDroppedBytes ?? 0, end - TAIL);
  view.log.begin(begin, record.outputDroppedBytes ?? 0);
  await follow(id, begin, { onState: (state) => view.update(state), onLog: (part) => view.log.append(part), signal });
  view.log.finish();
}

class JobView {
  constructor(main, record, query, signal, setQuery, setTitle) {
    Object.assign(this, { id: record.jobId, key: newKey(), signal, setQuery, setTitle, nodes: [], looking: null });
    this.query = Object.fromEntries(query);
    this.timeline = new Timeline((node) => this.open(node));
    this.table = new NodeTable(this.query, (changes) => this.setQueryPart(changes), (node) => this.open(node));
    this.graph = new Graph((node) => this.open(node));
    this.log = new LogView(this.id, signal);
    this.details = h("div", { class: "details" });
    this.buildHead(record);
    this.buildTabs(record);
    this.meta = h("p", { class: "meta faint" });
    this.failure = h("section", { class: "failure", "aria-label": "First failure", hidden: true });
    fill(main, this.head, this.meta, this.failure, h("section", { class: "card", "aria-label": "Steps" }, this.timeline.element), this.tabs, ...this.panels.values());
    this.update(record);
    const clock = setInterval(() => this.tick(), 1000);
    signal.addEventListener("abort", () => clearInterval(clock));
  }

  buildHead(record) {
    this.state = h("span", { class: "state big" });
    this.word = h("span", { class: "outcome-word" });
    this.sentence = h("p", { class: "lead" });
    this.cancelButton = h("button", { class: "danger", on: { click: () => this.cancel() } }, "Cancel");
    this.retryButton = h("button", { class: "primary", on: { click: () => this.retry() } }, "Run again");
    this.problem = h("p", { class: "problem", role: "alert", hidden: true });
    this.head = h(
      "header",
      { class: "job-head" },
      h("p", { class: "crumbs" }, h("a", { href: "#/runs" }, "Runs"), " / ", h("span", { class: "faint" }, record.projectId), " / ", h("code", {}, record.jobId)),
      h("div", { class: "head" }, this.state, h("h1", {}, record.pipeline), this.word, h("span", { class: "actions" }, this.cancelButton, this.retryButton)),
      this.sentence,
      this.problem,
    );
  }

  buildTabs(record) {
    const contents = { nodes: this.table.element, graph: this.graph.element, log: this.log.element, details: this.details };
    this.panels = new Map(
      TABS.map(([name, title]) => [name, h("section", { id: `panel-${name}`, role: "tabpanel", "aria-label": title, hidden: true }, contents[name])]),
    );
    this.tabs = h("div", { class: "tabs", role: "tablist", "aria-label": "What is known of the job", on: { keydown: (event) => this.moveTab(event) } });
    for (const [name, title] of TABS) {
      const tab = h("button", { id: `tab-${name}`, role: "tab", "aria-controls": `panel-${name}`, on: { click: () => this.choose(name) } }, title);
      this.tabs.append(tab);
    }
    this.chosen = this.query.tab ?? null;
    this.select(this.chosen ?? (record.phase === "ended" ? "nodes" : "log"));
  }

  /** Show a record; the parts that hold the focus stay. */
  update(record) {
    this.record = record;
    const state = jobState(record);
    if (this.announced !== undefined && this.announced !== state) announce(`${record.pipeline}: ${word(state)}. ${headline(record)}`);
    this.announced = state; // its progress is not: that would be said all the time
    if (this.state.dataset.shown !== state) fill(this.state, icon(state));
    this.state.dataset.shown = state;
    setText(this.word, word(state));
    this.word.className = `outcome-word is-${state}`;
    setText(this.sentence, headline(record));
    this.showButtons(record.phase);
    this.setTitle(state, `${word(state)}: ${record.pipeline}`);
    this.showMeta(record);
    this.timeline.update(record, this.nodes);
    this.showDetails(record);
    this.showFailure();
    this.look();
  }

  /** Show the buttons that make sense. Where Cancel has the focus and goes, the view gets the focus. */
  showButtons(phase) {
    const held = document.activeElement === this.cancelButton;
    this.cancelButton.hidden = phase === "ended" || phase === "cancelling";
    this.retryButton.hidden = phase !== "ended";
    if (held && this.cancelButton.hidden) document.getElementById("main").focus({ preventScroll: true });
  }

  tick() {
    if (this.record.phase === "ended") return;
    setText(this.took, tookText(this.record));
    this.timeline.update(this.record, this.nodes);
  }

  showMeta(record) {
    const took = tookText(record);
    const key = `${record.commit} ${tookWord(record)}`; // all else here is known from the start
    if (this.meta.dataset.shown === key) return setText(this.took, took);
    this.meta.dataset.shown = key;
    this.took = h("strong", { class: "number" }, took);
    const [first] = record.audit;
    const waited = elapsed(record) - runSeconds(record);
    const parts = [
      [tookWord(record), " ", this.took, record.startedAt && waited >= 1 && `, after ${duration(waited)} in the queue`],
      ["triggered ", ago(record.createdAt), first && ` by ${first.token ?? "a caller without a token"}${first.address ? ` from ${first.address}` : ""}`],
      record.commit && ["commit ", h("code", { title: record.commit }, record.commit.slice(0, 10)), (record.version ?? record.branch) && ` (${record.version ?? record.branch})`],
      record.retryOf && ["retry of ", h("a", { href: `#/jobs/${encodeURIComponent(record.retryOf)}` }, record.retryOf)],
    ].filter(Boolean);
    fill(this.meta, parts.map((part, index) => [index > 0 && h("span", { class: "dot" }, " · "), part]));
  }

  showFailure() {
    const { firstFailure, phase } = this.record;
    this.failure.hidden = !firstFailure || phase !== "ended";
    if (this.failure.hidden) return;
    const node = this.nodes.find((one) => nodeState(one) === "errors" && [one.name, one.uniqueId].includes(firstFailure.node));
    const key = `${node?.uniqueId} ${this.nodes.length}`;
    if (this.failure.dataset.shown === key) return;
    this.failure.dataset.shown = key;
    const more = firstFailure.more;
    const others = this.nodes.filter((one) => nodeState(one) === "errors" && one !== node).slice(0, OTHERS);
    fill(
      this.failure,
      h("h2", {}, icon("errors"), nodeName(firstFailure.node)),
      node?.path && h("p", { class: "faint" }, h("code", {}, node.path)),
      h("pre", { tabindex: 0, role: "region", "aria-label": "Message" }, node?.message ?? firstFailure.message),
      h(
        "p",
        { class: "actions" },
        node && h("button", { on: { click: () => this.open(node) } }, "Compiled SQL"),
        h("button", { on: { click: () => this.jumpToError() } }, "First error in the log"),
        more > 0 && h("button", { on: { click: () => this.showFailed() } }, `${number(more)} more failed`),
      ),
      others.length > 0 && h("p", {}, "Also failed: ", others.map((one, index) => [index > 0 && ", ", h("button", { class: "link", on: { click: () => this.open(one) } }, one.name)])),
    );
  }

  showFailed() {
    this.choose("nodes");
    this.table.change({ show: "errors" });
    this.tabs.scrollIntoView();
  }

  jumpToError() {
    this.choose("log");
    this.log.findFirstError();
  }

  /** Look at the nodes, at most once in a while; the last look comes after the end. */
  look() {
    this.wanted = this.record;
    this.looking ??= this.lookOnce().finally(() => (this.looking = null));
  }

  async lookOnce() {
    while (this.seen !== this.wanted) {
      const asked = this.wanted;
      try {
        const { nodes } = await persist(() => call(path`jobs/${this.id}/nodes`, { signal: this.signal }), this.signal);
        this.showNodes(nodes);
      } catch (error) {
        if (this.signal.aborted) return;
        if (!(error instanceof ApiError)) throw error;
      }
      this.seen = asked;
      if (asked.phase !== "ended") await new Promise((resolve) => setTimeout(resolve, NODES_PAUSE));
    }
  }

  showNodes(nodes) {
    this.nodes = nodes;
    document.getElementById("tab-nodes").hidden = nodes.length === 0;
    document.getElementById("tab-graph").hidden = nodes.every(isTest);
    if (document.getElementById(`tab-${this.tab}`).hidden) this.select("log");
    this.timeline.update(this.record, nodes);
    nextFrame(() => {
      this.table.update(this.nodes);
      nextFrame(() => this.graph.update(this.nodes, this.tab === "graph"));
    });
    this.showFailure();
    if (this.query.node) this.open(nodes.find((node) => node.uniqueId === this.query.node));
  }

  /** Show a node in a dialog; the URL names it while it is open. */
  open(node) {
    if (node === undefined || this.signal.aborted || document.querySelector("dialog")) return;
    this.setQueryPart({ node: node.uniqueId });
    const dialog = showNode(this.id, node, this.nodes, (other) => {
      dialog.close();
      setTimeout(() => this.open(other));
    });
    dialog.addEventListener("close", () => this.setQueryPart({ node: null }));
    this.signal.addEventListener("abort", () => dialog.close());
  }

  choose(name) {
    this.setQueryPart({ tab: name });
    this.select(name);
  }

  select(name) {
    this.tab = this.panels.has(name) ? name : "log";
    for (const [other, panel] of this.panels) {
      const isChosen = other === this.tab;
      panel.hidden = !isChosen;
      const tab = this.tabs.children[TABS.findIndex(([each]) => each === other)];
      tab.setAttribute("aria-selected", String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
    }
    if (this.tab === "log") this.log.shown();
    if (this.tab === "graph") this.graph.update(this.nodes, true);
  }

  moveTab(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const tabs = [...this.tabs.children].filter((tab) => !tab.hidden);
    const tab = tabs.at((tabs.indexOf(document.activeElement) + step) % tabs.length);
    tab.focus();
    tab.click();
  }

  setQueryPart(changes) {
    if (this.signal.aborted) return;
    Object.assign(this.query, changes);
    this.setQuery(this.query);
  }

  async cancel() {
    const yes = await ask("Cancel this job?", `All processes and containers of ${this.id} are ended. It ends as cancelled.`, "Cancel the job");
    if (yes) await this.act(() => call(path`jobs/${this.id}/cancel`, { method: "POST" }), "The job is being cancelled");
  }

  async retry() {
    const failed = jobState(this.record) !== "succeeded" && jobState(this.record) !== "warnings";
    const { commit } = this.record;
    const choices = [
      ["failed", commit ? `From where it failed, on the same commit ${commit.slice(0, 10)}` : "From where it failed, with the files of the project as they are now"],
      ["start", commit ? "All of it, on the newest commit" : "All of it, from the start"],
    ].slice(failed ? 0 : 1);
    const from = await ask("Run it again?", "This makes a new job.", "Run again", choices);
    if (from === null) return;
    const job = await this.act(() => call(path`jobs/${this.id}/retry`, { method: "POST", body: { from }, headers: { "Idempotency-Key": this.key + from } }), "A new job was made");
    if (job && !this.signal.aborted) location.hash = `#/jobs/${encodeURIComponent(job.jobId)}`;
  }

  /** Do something, and show why where it is refused. */
  async act(doIt, said) {
    this.problem.hidden = true;
    try {
      const answer = await doIt();
      announce(said);
      return answer;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.problem.hidden = false;
      fill(this.problem, error.message);
      return null;
    }
  }

  showDetails(record) {
    const ended = record.phase === "ended";
    const key = `${record.phase} ${record.steps.map((step) => step.status).join()} ${JSON.stringify(record.notifications)}`;
    if (this.details.dataset.shown === key) return;
    this.details.dataset.shown = key;
    fill(this.details, facts(record), stepTable(record), ended && this.artifacts());
  }

  artifacts() {
    const list = h("ul", { class: "rows" });
    const section = h("section", { "aria-label": "Files", hidden: true }, h("h2", {}, "Files"), list);
    persist(() => call(path`jobs/${this.id}/artifacts`, { signal: this.signal }), this.signal).then(
      ({ artifacts }) => {
        section.hidden = artifacts.length === 0;
        fill(list, artifacts.map((one) => this.artifactRow(one)));
      },
      () => {}, // the view was left, or the files are gone
    );
    return section;
  }

  artifactRow({ step, name, bytes: size }) {
    const open = async () => {
      const link = await this.act(() => call(path`jobs/${this.id}/artifacts/${step}/${name}/link`, { method: "POST" }), "Opened");
      if (link) h("a", { href: link.url, target: "_blank", rel: "noopener" }).click();
    };
    return h("li", { class: "row" }, h("button", { class: "link title", on: { click: open } }, name), h("span", { class: "faint" }, step), h("span", { class: "number faint" }, bytes(size)));
  }
}

function tookWord(record) {
  if (record.phase === "ended") return "took";
  return record.startedAt ? "has run for" : "has waited for";
}

function tookText(record) {
  const seconds = record.startedAt ? runSeconds(record) : elapsed(record);
  return duration(record.phase === "ended" ? seconds : Math.round(seconds));
}

/** The sentence at the top; of a job with a first failure, the box below has its message. */
function headline(record) {
  const { firstFailure } = record;
  if (!firstFailure) return sentence(record);
  return `${nodeName(firstFailure.node)} failed${firstFailure.more ? `, and ${number(firstFailure.more)} more` : ""}. ${countsOf(record)}`;
}

function countsOf(record) {
  const progress = progressOf(record);
  if (!progress) return "";
  const parts = [
    [progress.error, "failed"],
    [progress.pass, "passed"],
    [progress.warn, "with a warning"],
    [progress.skip, "skipped"],
  ];
  return `Of ${number(progress.total)}: ${parts.filter(([value]) => value).map(([value, text]) => `${number(value)} ${text}`).join(", ")}.`;
}

function facts(record) {
  const parameters = Object.entries(record.parameters).map(([name, value]) => `${name} = ${value}`);
  const cancelled = record.audit.find((act) => act.action === "cancelled");
  const rows = [
    ["Command", record.command],
    ["Parameters", parameters.join("\n")],
    ["Up to", record.processName],
    ["Branch", record.branch],
    ["Version", record.version],
    ["Commit", record.commit],
    ["Fabric", record.fabricId],
    ["OpenLineage", record.enableOpenlineage ? "on" : "off"],
    ["Elementary", record.enableElementary ? "on" : "off"],
    ["Exit code", record.phase === "ended" ? String(record.exitCode) : ""],
    ["Reason", record.reason],
    ["Cancelled", cancelled && [ago(cancelled.at), ` by ${cancelled.token ?? "a caller without a token"}`]],
    ["Ended", record.stopped && stoppedText(record.stopped)],
    ["Output", record.outputBytes === null ? "" : `${bytes(record.outputBytes)}${record.outputDroppedBytes ? `, and ${bytes(record.outputDroppedBytes)} dropped` : ""}`],
    ["Notes", record.notes.join("\n")],
    ["Notified", record.notifications.map((one) => `${one.to}: ${one.outcome}, ${one.state}${one.error ? ` (${one.error})` : ""}`).join("\n")],
  ].filter(([, value]) => value);
  return [h("dl", { class: "facts" }, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])), copyable(`pipeline-gateway status ${record.jobId} --server ${BASE}`, "the same as a command")];
}

function stoppedText({ signals, seconds, processes }) {
  return `${processes === null ? "its processes" : `${processes} processes`} by ${signals.join(", ") || "no signal"} in ${duration(seconds)}`;
}

function stepTable(record) {
  const heads = ["Step", "Outcome", "Exit code", "Took", "Peak memory", "CPU time", "Attempts"];
  const rows = record.steps.map((step) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, step.name),
      h("td", {}, icon(stepState(step, record)), " ", word(stepState(step, record)), step.note && h("span", { class: "faint" }, ` ${step.note}`)),
      [step.exitCode ?? "–", duration(step.durationSeconds), bytes(step.peakMemoryBytes), duration(step.cpuSeconds), step.attempts?.length ?? 1].map((value) =>
        h("td", { class: "number" }, String(value)),
      ),
    ),
  );
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Steps and what they used" }, h("table", {}, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))), h("tbody", {}, rows)));
}
