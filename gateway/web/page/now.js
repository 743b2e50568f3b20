// What runs and waits now, what went wrong since the person looked last, what was refused, and the pipelines.

import { ApiError, call, now, path, persist, query, sleep } from "./api.js";
import { ask } from "./dialogs.js";
import { announce, fill, h, icon, setText, showEach } from "./dom.js";
import { follow } from "./follow.js";
import { ago, count, duration, elapsed, jobState, number, progressOf, progressText, runSeconds, sentence, word } from "./format.js";
import { runRow } from "./runs.js";

const LOOKED = "pipeline-gateway-looked"; // in the browser's storage: when the person marked all as seen
const DAY = 86_400_000; // milliseconds
const PAUSE = 3000; // milliseconds between two looks at the list
const SLOW = 5; // looks at the list of active jobs for one at the rest
const WRONG = 20; // runs that went wrong, at most, in the list
const WAITING = 5; // of which what they wait for is told
const LATE = 2; // times the usual duration
const SILENT = 60; // seconds
const LAST = 4096; // bytes of output, of which the last line is shown at once
const QUEUED = 50; // jobs that wait, at most, in the list
const FOLLOWED = 2; // a browser keeps six connections to a host, for all its tabs

export async function show(main, { signal, setTitle }) {
  const view = new NowView(main, signal, setTitle);
  for (let turn = 0; ; turn += 1) {
    await view.look(turn % SLOW === 0);
    await view.pause();
  }
}

class NowView {
  constructor(main, signal, setTitle) {
    Object.assign(this, { signal, setTitle, followed: new Map(), ids: null, pipelines: [], wrong: [], active: [], wake: () => {} });
    this.cards = h("ul", { class: "cards" });
    this.idle = h("p", { class: "empty", hidden: true }, "Nothing runs now. ", h("a", { href: "#/trigger" }, "Trigger a pipeline"), " to see it here.");
    this.more = h("p", { class: "faint", hidden: true }, "More jobs wait than are shown.");
    this.problem = h("p", { class: "problem", role: "alert", hidden: true });
    this.wrongHead = h("h2", {});
    this.wrongList = h("ol", { class: "rows" });
    this.seen = h("button", { class: "quiet", hidden: true, on: { click: () => this.markSeen() } }, "Mark as seen");
    this.refusals = h("ol", { class: "rows" });
    this.refused = h("section", { "aria-label": "Refused", hidden: true }, h("h2", {}, "Refused in the last hour"), this.refusals);
    this.list = h("ul", { class: "rows pipelines" });
    fill(
      main,
      h("h1", {}, "Now"),
      h("section", { "aria-label": "Running and queued" }, this.problem, this.idle, this.cards, this.more),
      h("section", { "aria-label": "Went wrong" }, h("div", { class: "head" }, this.wrongHead, this.seen), this.wrongList),
      this.refused,
      h("section", { "aria-label": "Pipelines" }, h("h2", {}, "Pipelines"), this.list),
    );
    const clock = setInterval(() => this.tick(), 1000);
    signal.addEventListener("abort", () => clearInterval(clock));
  }

  /** Look at the active jobs, and at the rest where those have changed or `all` is asked for. A refusal is shown. */
  async look(all) {
    try {
      const changed = await this.lookAtActive();
      if (changed || all) await this.lookAtRest();
      this.problem.hidden = true;
    } catch (error) {
      if (!(error instanceof ApiError) || error.status === 401) throw error;
      this.problem.hidden = false;
      setText(this.problem, `What is shown may be old: ${error.message}`);
      this.ids = null;
    }
  }

  /** Whether other jobs are active than at the last look. */
  async lookAtActive() {
    const [running, queued] = await Promise.all([
      this.get(`jobs${query({ status: "running", limit: 200 })}`),
      this.get(`jobs${query({ status: "queued", limit: QUEUED })}`),
    ]);
    const waiting = await this.withWaitsFor(queued.jobs.reverse());
    const unique = new Map([...waiting, ...running.jobs.reverse()].map((job) => [job.jobId, job])); // one may have begun meanwhile
    this.active = [...unique.values()].sort((one, other) => rank(one) - rank(other));
    this.more.hidden = queued.next === null;
    const ids = this.active.map((job) => job.jobId).join();
    const changed = ids !== this.ids;
    this.ids = ids;
    showEach(this.cards, this.active, (job) => job.jobId, (job) => this.card(job));
    this.idle.hidden = this.active.length > 0;
    this.follow();
    this.showTitle();
    return changed;
  }

  /** The jobs; the first of them with their whole records, since the list does not tell what they wait for. */
  withWaitsFor(jobs) {
    return Promise.all(jobs.map((job, index) => (index < WAITING ? this.get(path`jobs/${job.jobId}`) : job)));
  }

  async lookAtRest() {
    const since = looked();
    const hour = new Date(now() - 3_600_000).toISOString();
    const [known, wrong, refused] = await Promise.all([
      this.get("pipelines"),
      this.get(`jobs${query({ outcome: "errors,failed", since: new Date(since - DAY).toISOString(), limit: 100 })}`),
      this.get(`jobs${query({ status: "refused", since: hour, limit: 20 })}`),
    ]);
    this.pipelines = known.pipelines;
    // the API knows when jobs were triggered; those that ended since may have been triggered before
    this.showWrong(wrong.jobs.filter((job) => Date.parse(job.finishedAt) > since), since);
    this.refused.hidden = refused.jobs.length === 0;
    showEach(this.refusals, refused.jobs, (one) => one.createdAt + one.pipeline, refusalRow);
    showEach(this.list, this.pipelines, (one) => `${one.projectId}/${one.name}`, pipelineRow);
    this.tick();
    this.showTitle();
  }

  showWrong(jobs, since) {
    this.wrong = jobs;
    const many = jobs.length > WRONG ? `More than ${count(WRONG, "run")}` : count(jobs.length, "run");
    const when = ago(new Date(since).toISOString());
    const begin = localStorage.getItem(LOOKED) ? ["since you last looked, ", when] : "in the last day";
    fill(this.wrongHead, jobs.length ? `${many} went wrong ` : "Nothing went wrong ", begin);
    this.seen.hidden = jobs.length === 0;
    showEach(this.wrongList, jobs.slice(0, WRONG), (job) => job.jobId, runRow);
  }

  markSeen() {
    localStorage.setItem(LOOKED, String(now()));
    announce("Marked as seen");
    this.ids = null; // so that the next look is at all
    this.wake();
  }

  card(job) {
    const parts = {
      state: h("span", { class: "state" }),
      sentence: h("p", { class: "sentence" }),
      bar: h("progress", { "aria-label": `Progress of ${job.pipeline}` }),
      done: h("span", { class: "done" }),
      time: h("span", { class: "faint elapsed" }),
      line: h("p", { class: "last-line", "aria-hidden": "true" }),
      problem: h("p", { class: "problem", role: "alert", hidden: true }),
    };
    const cancel = h("button", { class: "quiet danger", "aria-label": `Cancel ${job.jobId}` }, "Cancel");
    cancel.addEventListener("click", () => this.cancel(job, parts.problem));
    const card = h(
      "li",
      { class: "card job-card" },
      h("div", { class: "head" }, parts.state, h("a", { class: "title", href: `#/jobs/${encodeURIComponent(job.jobId)}` }, job.pipeline), h("span", { class: "faint" }, job.projectId), cancel),
      parts.sentence,
      h("div", { class: "meter" }, parts.bar, parts.done),
      parts.time,
      parts.line,
      parts.problem,
    );
    card.update = (given) => updateCard(card, parts, given);
    card.showLine = (text) => {
      card.heard = performance.now();
      setText(parts.line, text);
    };
    card.showTime = () => {
      const late = isLate(card.job, this.usual(card.job));
      parts.time.classList.toggle("late", late);
      setText(parts.time, timeText(card.job, this.usual(card.job), late) + silence(card));
    };
    return card;
  }

  async cancel(job, problem) {
    const yes = await ask("Cancel this job?", `${job.jobId} is stopped: all its processes and containers are ended.`, "Cancel the job");
    if (!yes) return;
    problem.hidden = true;
    try {
      await call(path`jobs/${job.jobId}/cancel`, { method: "POST" });
      announce(`${job.jobId} is being cancelled`);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      problem.hidden = false;
      setText(problem, error.message);
    }
  }

  usual(job) {
    return this.pipelines.find((one) => one.name === job.pipeline && one.projectId === job.projectId)?.usualSeconds;
  }

  /** Follow the first jobs that run: their progress and their last line come as they happen. */
  follow() {
    for (const job of this.active.filter((job) => job.status === "running").slice(0, FOLLOWED)) {
      if (this.followed.has(job.jobId)) continue;
      const card = () => this.cards.querySelector(`[data-key="${CSS.escape(job.jobId)}"]`);
      const dropped = job.outputDroppedBytes ?? 0;
      const begin = dropped + Math.max(0, (job.outputBytes ?? 0) - LAST);
      const following = follow(job.jobId, begin, {
        onState: (record) => card()?.update(record),
        onLog: (part) => card()?.showLine(lastLine(part.text)),
        signal: this.signal,
      });
      const done = () => {
        this.followed.delete(job.jobId);
        this.wake();
      };
      this.followed.set(job.jobId, following.then(done, done)); // the list tells what has become of the job
    }
  }

  /** Wait for the next look, which comes at once where a job has ended. */
  async pause() {
    await Promise.race([sleep(PAUSE, this.signal), new Promise((resolve) => (this.wake = resolve))]);
  }

  tick() {
    for (const card of this.cards.children) card.showTime();
  }

  showTitle() {
    const running = this.active.length;
    const [first] = this.active;
    if (running) this.setTitle("running", running === 1 ? `${word(jobState(first))}: ${first.pipeline}` : `${running} active`);
    else if (this.wrong.length) this.setTitle("errors", `${this.wrong.length} went wrong`);
    else this.setTitle("succeeded", "Now");
  }

  get(where) {
    return persist(() => call(where, { signal: this.signal }), this.signal);
  }
}

function updateCard(card, parts, job) {
  card.job = job;
  const state = jobState(job);
  fill(parts.state, icon(state), h("span", { class: "unseen" }, word(state)));
  const progress = progressOf(job);
  setText(parts.sentence, [sentence(job), progress?.current].filter(Boolean).join(" "));
  parts.bar.parentElement.hidden = progress === null;
  if (progress) {
    parts.bar.max = progress.total || 1;
    parts.bar.value = progress.done;
    const wrong = progress.error ? `, ${number(progress.error)} failed` : "";
    setText(parts.done, `${progressText(progress)}${wrong}`);
  }
  card.showTime();
}

/** Whether a job runs for much longer than it usually does. */
function isLate(job, usual) {
  return usual > 0 && job.status === "running" && runSeconds(job) > LATE * usual;
}

/** What is told of a followed job that has printed nothing for long, as far as the page has seen. */
function silence({ job, heard }) {
  const seconds = (performance.now() - heard) / 1000;
  return job.status === "running" && seconds > SILENT ? `, no output for ${duration(seconds)}` : "";
}

function timeText(job, usual, late) {
  const usually = usual ? `, usually ${duration(usual)}${late ? ": more than twice that" : ""}` : "";
  return `${duration(Math.round(job.status === "queued" ? elapsed(job) : runSeconds(job)))}${usually}`;
}

function refusalRow(one) {
  const way = one.conflict?.jobId ? h("a", { href: `#/jobs/${encodeURIComponent(one.conflict.jobId)}` }, "What was in the way") : h("span", {});
  return h("li", { class: "row" }, icon("refused", "Refused"), h("span", { class: "title" }, one.pipeline), h("span", { class: "sentence" }, one.error), way, ago(one.createdAt));
}

function pipelineRow(one) {
  const [project, name] = [one.projectId, one.name].map(encodeURIComponent);
  const start = h("a", { href: `#/trigger/${project}/${name}`, "aria-label": `Trigger ${one.name}` }, "Trigger");
  const last = h("span", { class: "last" });
  const usual = h("span", { class: "faint number" });
  const row = h("li", { class: "row" }, h("a", { class: "title", href: `#/runs?pipeline=${project}%2F${name}` }, one.name), h("span", { class: "faint" }, one.projectId), last, usual, start);
  row.update = ({ lastRun, usualSeconds, paused }) => {
    const key = `${lastRun?.jobId} ${lastRun?.status} ${paused}`;
    if (row.dataset.shown === key) return;
    row.dataset.shown = key;
    setText(usual, usualSeconds ? `usually ${duration(usualSeconds)}` : "");
    if (lastRun === null) return fill(last, paused && "Paused. ", h("span", { class: "faint" }, "Never ran"));
    const state = lastRun.outcome ?? lastRun.status;
    fill(last, paused && "Paused. ", icon(state), h("a", { href: `#/jobs/${encodeURIComponent(lastRun.jobId)}` }, word(state)), " ", ago(lastRun.createdAt));
  };
  return row;
}

/** Milliseconds since the epoch. */
function looked() {
  return Number(localStorage.getItem(LOOKED)) || now() - DAY;
}

/** Running ones first, in the order in which they were triggered. */
function rank(job) {
  return (job.status === "queued" ? 1e14 : 0) + Date.parse(job.createdAt);
}

function lastLine(text) {
  return text.trimEnd().split("\n").at(-1);
}
