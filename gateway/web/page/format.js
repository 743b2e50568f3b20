// Values as a person reads them, and the words of states. Pure but for `ago`, which makes an element.

import { connection } from "./api.js";
import { h } from "./dom.js";

const WORDS = {
  __proto__: null, // else `constructor` had a word too
  succeeded: "Succeeded",
  warnings: "Warnings",
  errors: "Errors",
  failed: "Failed",
  cancelled: "Cancelled",
  running: "Running",
  queued: "Queued",
  refused: "Refused",
  skipped: "Skipped",
  pending: "Not started",
};
export const OUTCOMES = ["succeeded", "warnings", "errors", "failed", "cancelled"];
/** How dbt's words for the end of a node read among ours. */
const NODE_STATES = {
  __proto__: null,
  success: "succeeded",
  pass: "succeeded",
  warn: "warnings",
  fail: "errors",
  error: "errors",
  "runtime error": "errors",
  "partial success": "errors",
  skipped: "skipped",
  "no-op": "skipped",
  reused: "skipped",
  running: "running",
  interrupted: "cancelled",
};
const EXACT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const cameAt = new WeakMap(); // records of jobs that run, to milliseconds
const UNITS = [
  [86400, "d"],
  [3600, "h"],
  [60, "min"],
  [1, "s"],
];

export function word(state) {
  return WORDS[state] ?? state;
}

/** The state of a job: its outcome, or queued, or running. */
export function jobState(job) {
  return job.outcome ?? job.status;
}

export function nodeState(node) {
  return NODE_STATES[node.status] ?? "pending";
}

/** The state of a step of a job: an exit code other than 0 is an error, and what a cancel has ended is cancelled. */
export function stepState(step, job) {
  if (step.status === "failed" && job.outcome === "cancelled") return "cancelled";
  if (step.status !== "completed") return step.status;
  if (step.exitCode !== 0) return "errors";
  return step.progress?.warn ? "warnings" : "succeeded";
}

/** Seconds as two units at most: 0.4 s, 12 s, 1 min 9 s, 2 h 5 min. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds === 0) return "0 s";
  if (seconds < 0.95) return `${Math.max(seconds, 0).toFixed(seconds < 0.095 ? 2 : 1)} s`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const first = UNITS.findIndex(([size]) => whole >= size);
  const [size, name] = UNITS[first];
  const [next, nextName] = UNITS[first + 1] ?? [];
  const rest = next ? Math.floor((whole % size) / next) : 0;
  return `${Math.floor(whole / size)} ${name}${rest ? ` ${rest} ${nextName}` : ""}`;
}

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  const unit = count < 1 ? 0 : Math.min(4, Math.floor(Math.log2(count) / 10));
  return `${unit === 0 ? count : (count / 2 ** (10 * unit)).toFixed(1)} ${["bytes", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

export function number(value) {
  return value.toLocaleString("en");
}

/** `1 model`, `2 models`. */
export function count(value, noun) {
  return `${number(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/** A moment as "3 min ago", with the exact time on hover; it stays true while it is shown. */
export function ago(moment) {
  const element = h("time", { datetime: moment, title: exact(moment) });
  tell(element);
  return element;
}

export function exact(moment) {
  return EXACT.format(new Date(moment));
}

/** How long a job has taken so far, in seconds, by the clock of this browser since its record came. */
export function elapsed(job) {
  if (job.finishedAt) return job.durationSeconds;
  if (!cameAt.has(job)) cameAt.set(job, performance.now());
  return job.durationSeconds + (performance.now() - cameAt.get(job)) / 1000;
}

/** How long a job has run so far, in seconds, without its time in the queue, as `usualSeconds` of a pipeline is. */
export function runSeconds(job) {
  const queued = job.startedAt ? (Date.parse(job.startedAt) - Date.parse(job.createdAt)) / 1000 : elapsed(job);
  return Math.max(0, elapsed(job) - queued);
}

/** The progress of the step that runs; of an ended job, that of the step that went wrong, or of all dbt steps together. */
export function progressOf(job) {
  if (job.phase !== "ended") return job.steps.find((step) => step.status === "running")?.progress ?? null;
  const wrong = job.steps.find((step) => step.exitCode);
  if (wrong) return wrong.progress;
  const counted = job.steps.filter((step) => step.progress && (step.name !== "ingester" || job.steps.length === 1));
  if (counted.length === 0) return null;
  const sum = (name) => counted.reduce((all, step) => all + step.progress[name], 0);
  return Object.fromEntries(["done", "total", "pass", "warn", "error", "skip", "noop"].map((name) => [name, sum(name)]));
}

/** Bring all times of the document up to date. */
export function refreshTimes() {
  for (const element of document.querySelectorAll("time")) tell(element);
}

/** How many nodes have ended, of how many: 12/85. */
export function progressText(progress) {
  return `${number(progress.done)}/${number(progress.total)}`;
}

/** A job's outcome in a sentence. */
export function sentence(job) {
  const took = duration(runSeconds(job));
  switch (jobState(job)) {
    case "queued":
      return waitsFor(job);
    case "running":
      return running(job);
    case "succeeded":
      return `Succeeded in ${took}${nodesOf(job)}.`;
    case "warnings":
      return `Succeeded with ${count(warnings(job), "warning")} in ${took}${nodesOf(job)}.`;
    case "errors":
      return job.firstFailure ? `${nodeName(job.firstFailure.node)}: ${firstLine(job.firstFailure.message)}` : `Ended with exit code ${job.exitCode} after ${took}.`;
    default:
      return job.error ?? `${word(jobState(job))} after ${took}.`;
  }
}

/** The name of a node by its id: `worst_days` for `model.shop.worst_days`; other text as it is. */
export function nodeName(id) {
  return /^[a-z_]+\.[^. ]+\.[^ ]+$/.test(id) ? id.split(".").slice(2).join(".") : id;
}

function running(job) {
  const { phase } = job;
  const progress = progressOf(job);
  if (phase === "cancelling") return "Is being cancelled: what is left of it is being ended.";
  if (phase === "unreachable") return "Its engine does not answer, so its state is the last one known.";
  if (phase === "orphaned") return "Its supervisor is gone: what is left of it is being ended.";
  if (phase === "starting") return "Starting.";
  const done = progress ? `, ${number(progress.done)} of ${number(progress.total)} done` : "";
  return `Runs ${phase}${done}.`;
}

function waitsFor(job) {
  const before = job.waitsFor ?? [];
  if (!before.length) return "Waits for its turn.";
  return `Waits for ${[...new Set(before.map((one) => one.jobId))].join(", ")}, which holds ${[...new Set(before.map((one) => one.resource))].join(", ")}.`;
}

function nodesOf(job) {
  const progress = progressOf(job);
  return progress ? `, ${number(progress.pass)} of ${number(progress.total)} passed` : "";
}

function warnings(job) {
  return job.steps.reduce((sum, step) => sum + (step.progress?.warn ?? 0), 0);
}

function firstLine(text) {
  return text.split("\n", 1)[0];
}

function tell(element) {
  const text = relative((Date.now() + connection.skew - Date.parse(element.dateTime)) / 1000, element.dateTime);
  if (element.textContent !== text) element.textContent = text;
}

function relative(seconds, moment) {
  if (seconds < 5) return "just now";
  const [size, name] = UNITS.find(([unit]) => seconds >= unit);
  if (size < 86400 || seconds < 7 * 86400) return `${Math.floor(seconds / size)} ${name} ago`;
  return DAY.format(new Date(moment));
}
