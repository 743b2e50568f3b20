// The history: the last runs of each pipeline as bars, and all runs with filters.

import { call, persist, query, sleep } from "./api.js";
import { fill, h, icon, showInSlices } from "./dom.js";
import { OUTCOMES, ago, duration, exact, jobState, runSeconds, sentence, word } from "./format.js";

const BARS = 30;
const PAGE = 100;
const PAUSE = 10_000; // milliseconds between two looks at the newest runs
const SLOW = 2; // times the usual duration
const TALLEST = 4; // times the usual duration: one run that hung leaves the others their height

/** A run in a list: its outcome, its pipeline, the sentence about it, how long it took and when it was. */
export function runRow(job) {
  const text = h("span", { class: "sentence" });
  const took = h("span", { class: "number" });
  const row = h(
    "li",
    { class: "row run" },
    h("span", { class: "state" }),
    h("a", { class: "title", href: `#/jobs/${encodeURIComponent(job.jobId)}` }, job.pipeline),
    text,
    took,
    ago(job.createdAt),
  );
  row.update = (given) => {
    if (row.shown === given) return;
    row.shown = given;
    const now = jobState(given);
    fill(row.firstElementChild, icon(now), h("span", { class: "unseen" }, word(now)));
    fill(text, sentence(given));
    fill(took, given.startedAt ? duration(runSeconds(given)) : "");
  };
  return row;
}

export async function show(main, { query: given, signal, setQuery, setTitle }) {
  setTitle(null, "Runs");
  const filters = filtersOf(given);
  const bars = h("div", { class: "histories" });
  const form = h("form", { class: "filters", "aria-label": "Filters", on: { submit: (event) => event.preventDefault() } });
  const list = new RunList(filters, Number(given.get("shown")), signal, setQuery);
  fill(main, h("h1", {}, "Runs"), h("section", { "aria-label": "Pipelines" }, h("h2", { class: "unseen" }, "Pipelines"), bars), h("section", { "aria-label": "All runs" }, h("h2", {}, "All runs"), form, list.element));
  const ask = (where) => persist(() => call(where, { signal }), signal);
  const pipelines = ask("pipelines").then(async (answer) => {
    fillFilters(form, answer.pipelines, filters, () => list.reload());
    await showHistories(bars, answer.pipelines, ask);
  });
  await Promise.all([pipelines, list.load()]);
  for (;;) {
    await sleep(PAUSE, signal);
    if (!document.hidden) await list.refresh();
  }
}

/** The filters that a URL names; what can't be one is left out. */
function filtersOf(given) {
  const get = (name) => given.get(name) ?? "";
  const date = (name) => (Number.isNaN(Date.parse(`${get(name)}T00:00:00`)) ? "" : get(name));
  const outcome = get("outcome").split(",").filter((one) => OUTCOMES.includes(one)).join();
  return { pipeline: get("pipeline"), outcome, since: date("since"), until: date("until") };
}

class RunList {
  /** shown: so many runs at least are loaded at first, as the URL says. */
  constructor(filters, shown, signal, setQuery) {
    Object.assign(this, { filters, shown, signal, setQuery, jobs: [], next: null, turn: 0 });
    this.rows = h("ol", { class: "rows" });
    this.more = h("button", { hidden: true, on: { click: () => this.loadMore() } }, "Show earlier runs");
    this.empty = h("p", { class: "empty", hidden: true });
    this.element = h("div", {}, this.rows, this.empty, this.more);
  }

  reload() {
    Object.assign(this, { jobs: [], next: null, shown: 0 });
    this.setQuery(this.filters);
    return this.load();
  }

  async loadMore() {
    await this.load();
    if (!this.signal.aborted) this.setQuery({ ...this.filters, shown: this.jobs.length });
  }

  /** Bring the newest runs up to date. */
  async refresh() {
    const page = await this.ask(null);
    if (page === null) return;
    const known = new Set(this.jobs.map((job) => job.jobId));
    const fresh = new Set(page.jobs.map((job) => job.jobId));
    if (page.next !== null && fresh.isDisjointFrom(known)) Object.assign(this, { jobs: [], next: page.next }); // more came than a page has
    if (known.size === 0) this.next = page.next;
    this.jobs = [...page.jobs, ...this.jobs.filter((job) => !fresh.has(job.jobId))];
    this.render();
  }

  async load() {
    const page = await this.ask(this.next);
    if (page === null) return;
    this.jobs.push(...page.jobs);
    this.next = page.next;
    this.render();
    if (this.jobs.length < this.shown && page.next !== null) await this.load();
  }

  /** A page of the runs; null where other filters were chosen meanwhile, or the view was left. */
  async ask(cursor) {
    const turn = (this.turn += 1);
    const { pipeline, outcome, since, until } = this.filters;
    const [project, name] = pipeline ? pipeline.split("/", 2) : [];
    const asked = query({ project, pipeline: name, outcome, since: day(since, 0), until: day(until, 1), limit: PAGE, cursor });
    const page = await persist(() => call(`jobs${asked}`, { signal: this.signal }), this.signal);
    return turn !== this.turn || this.signal.aborted ? null : page;
  }

  render() {
    showInSlices(this.rows, [...this.jobs], (job) => job.jobId, runRow);
    this.more.hidden = this.next === null;
    this.empty.hidden = this.jobs.length > 0;
    const filtered = Object.values(this.filters).some(Boolean);
    if (filtered) fill(this.empty, "No run fits these filters. Take one away to see more.");
    else fill(this.empty, "Nothing has run yet. ", h("a", { href: "#/trigger" }, "Trigger a pipeline"), " to begin.");
  }
}

function fillFilters(form, pipelines, filters, onChange) {
  const options = pipelines.map((one) => {
    const value = `${one.projectId}/${one.name}`;
    return h("option", { value, selected: value === filters.pipeline }, one.name, pipelines.some((other) => other.name === one.name && other !== one) && ` (${one.projectId})`);
  });
  const pipeline = h("select", { id: "by-pipeline" }, h("option", { value: "" }, "All pipelines"), options);
  const chosen = new Set(filters.outcome.split(",").filter(Boolean));
  const outcomes = OUTCOMES.map((outcome) =>
    h("label", { class: "chip" }, h("input", { type: "checkbox", value: outcome, checked: chosen.has(outcome) }), icon(outcome), word(outcome)),
  );
  const date = (name, text) => h("label", {}, text, h("input", { type: "date", name, max: "9999-12-31", value: filters[name] }));
  fill(
    form,
    h("label", {}, "Pipeline", pipeline),
    h("fieldset", { class: "plain chips" }, h("legend", {}, "Outcome"), outcomes),
    date("since", "From"),
    date("until", "To"),
  );
  form.addEventListener("change", () => {
    filters.pipeline = pipeline.value;
    filters.outcome = [...form.querySelectorAll("[type=checkbox]:checked")].map((box) => box.value).join();
    for (const name of ["since", "until"]) filters[name] = form.elements[name].value;
    onChange();
  });
}

async function showHistories(parent, pipelines, ask) {
  const [ran, never] = [true, false].map((hasRun) => pipelines.filter((one) => (one.lastRun !== null) === hasRun));
  const histories = ran.map((one) => {
    const bars = h("ol", { class: "bars" });
    parent.append(h("section", { class: "history", "aria-label": one.name }, historyHead(one), bars));
    return async () => {
      const page = await ask(`jobs${query({ pipeline: one.name, project: one.projectId, limit: BARS })}`);
      showBars(bars, page.jobs.reverse(), one.usualSeconds);
    };
  });
  if (never.length) parent.append(h("p", { class: "faint" }, "Never ran: ", never.map((one, index) => [index > 0 && ", ", linkTo(one)])));
  for (const fetchOne of histories) await fetchOne(); // in turn: a page is no load on the gateway
}

function historyHead(one) {
  return h(
    "div",
    { class: "head" },
    h("h3", {}, h("a", { href: `#/runs?pipeline=${encodeURIComponent(`${one.projectId}/${one.name}`)}` }, one.name)),
    h("span", { class: "faint" }, one.projectId),
    one.usualSeconds !== null && h("span", { class: "faint number" }, `usually ${duration(one.usualSeconds)}`),
    linkTo(one, "Trigger"),
  );
}

function linkTo(one, text = one.name) {
  return h("a", { href: `#/trigger/${encodeURIComponent(one.projectId)}/${encodeURIComponent(one.name)}`, "aria-label": `Trigger ${one.name}` }, text);
}

/** jobs: the oldest first. */
function showBars(parent, jobs, usual) {
  const longest = Math.max(...jobs.map(runSeconds), usual ?? 0, 0.001);
  const highest = usual ? Math.min(longest, TALLEST * usual) : longest;
  fill(
    parent,
    jobs.map((job) => {
      const state = jobState(job);
      const seconds = runSeconds(job);
      const slow = usual > 0 && seconds > SLOW * usual && !["running", "queued"].includes(state);
      const label = `${word(state)} in ${duration(seconds)}${slow ? `, more than twice the usual ${duration(usual)}` : ""}`;
      const bar = h("span", { class: `bar is-${state}`, style: { height: `${Math.min(100, Math.max(4, (100 * seconds) / highest))}%` } });
      const title = `${label}, ${exact(job.createdAt)}`;
      const link = h("a", { href: `#/jobs/${encodeURIComponent(job.jobId)}`, "aria-label": title, title }, slow && h("span", { class: "slow", "aria-hidden": "true" }, "▲"), bar);
      return h("li", {}, link, state === "succeeded" ? h("span", { class: "no-mark" }) : icon(state));
    }),
  );
}

/** The beginning of a day of this browser's zone, or of the one `later` days after it. */
function day(text, later) {
  if (!text) return undefined;
  const moment = new Date(`${text}T00:00:00`);
  if (Number.isNaN(moment.valueOf())) return undefined; // of a URL that a person wrote
  moment.setDate(moment.getDate() + later);
  return moment.toISOString();
}
