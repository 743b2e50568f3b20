// A pipeline to pick, its parameters, and the same call as a line for a shell.

import { ApiError, BASE, call, newKey, path, persist, token } from "./api.js";
import { ask, copyable } from "./dialogs.js";
import { announce, fill, h, icon, setText } from "./dom.js";
import { ago, duration, word } from "./format.js";

const COMMANDS = ["daily", "run", "build", "test", "deps", "elementary"];
const WITH_COMMAND = ["dbt", "full"]; // names of the built-in pipelines that take one

export async function show(main, { params, signal, setTitle }) {
  setTitle(null, "Trigger");
  const { pipelines } = await persist(() => call("pipelines", { signal }), signal);
  const [project, name] = params;
  const isChosen = (one) => one.projectId === project && one.name === name;
  const chosen = pipelines.find(isChosen);
  const rows = h("ul", { class: "rows" });
  const showRows = (changed) => fill(rows, pipelines.map((one) => pick(isChosen(one) ? changed : one, isChosen(one))));
  showRows(chosen);
  const list = h("nav", { class: "picker", "aria-label": "Pipelines" }, rows);
  const form = h("div", { class: "picked" });
  fill(main, h("h1", {}, chosen ? `Trigger ${name}` : "Trigger a pipeline"), h("div", { class: "trigger" }, list, form));
  if (chosen) new TriggerForm(form, chosen, signal, showRows);
  else if (name) fill(form, h("p", { role: "alert" }, `The project ${project} has no pipeline ${name}. Pick another one.`));
  else fill(form, h("p", { class: "empty" }, pipelines.length ? "Pick a pipeline to see its parameters." : "No pipeline is configured. See ", !pipelines.length && h("a", { href: "docs/pipelines.md" }, "Pipelines"), !pipelines.length && "."));
}

function pick(one, isChosen) {
  const address = `#/trigger/${encodeURIComponent(one.projectId)}/${encodeURIComponent(one.name)}`;
  return h("li", { class: "row" }, h("a", { class: "title", href: address, "aria-current": isChosen && "page" }, one.name), h("span", { class: "faint" }, one.projectId), one.paused && h("span", { class: "tag" }, "paused"));
}

class TriggerForm {
  /** onChange gets the pipeline as it is after it was paused or unpaused. */
  constructor(parent, pipeline, signal, onChange) {
    Object.assign(this, { parent, pipeline, signal, onChange, key: newKey() }); // a second click is the same trigger
    this.problem = h("p", { class: "problem", role: "alert", hidden: true });
    this.status = h("div", { class: "card pipeline-status" });
    this.startButton = h("button", { class: "primary" }, "Start");
    this.fields = this.makeFields();
    this.curl = copyable("", "the call as a curl line");
    this.client = copyable("", "the call as a command");
    const submit = (event) => {
      event.preventDefault();
      this.start();
    };
    this.form = h("form", { class: "card", on: { submit, input: () => this.showLines() } }, this.layout(), this.problem, h("p", { class: "actions" }, this.startButton));
    fill(parent, this.status, this.form, h("section", { class: "card", "aria-label": "The same by hand" }, h("h2", {}, "The same by hand"), this.client, this.curl));
    this.showStatus();
    this.showLines();
    this.complete();
  }

  makeFields() {
    const { parameters, fabrics, name } = this.pipeline;
    return {
      parameters: parameters.map((one) => ({ one, input: parameterInput(one) })),
      command: WITH_COMMAND.includes(name) && select([["", "daily (default)"], ...COMMANDS.slice(1).map((each) => [each, each])]),
      fabricId: fabrics.length > 1 && select([["", "the default one"], ...fabrics.map((id) => [id, id])]),
      branch: h("input", { autocomplete: "off", placeholder: "the working branch" }),
      version: h("input", { autocomplete: "off", placeholder: "a tag" }),
      processName: h("input", { autocomplete: "off", list: "processes", placeholder: "all of it" }),
      enableOpenlineage: toggle(),
      enableElementary: toggle(),
      onConflict: select([["", "refuse it (default)"], ["queue", "let it wait for its turn"], ["attach", "join it, where it does the same"]]),
      timeoutSeconds: h("input", { type: "number", min: 1, step: "any", placeholder: "as configured" }),
    };
  }

  layout() {
    const { fields } = this;
    const parameters = fields.parameters.map(({ one, input }) => labelled(one.name, input, limits(one), one.required));
    this.processes = h("datalist", { id: "processes" });
    return [
      parameters.length > 0 && h("fieldset", { class: "grid" }, h("legend", {}, "Parameters"), parameters),
      h(
        "fieldset",
        { class: "grid" },
        h("legend", {}, "What runs"),
        fields.command && labelled("Command", fields.command),
        fields.fabricId && labelled("Fabric", fields.fabricId),
        labelled("Branch", fields.branch),
        labelled("Version", fields.version),
        labelled("Up to model or step", fields.processName, "everything upstream of it, and it"),
        this.processes,
      ),
      h(
        "details",
        {},
        h("summary", {}, "Lineage, report, conflicts, time limit"),
        h("div", { class: "grid" }, labelled("OpenLineage", fields.enableOpenlineage), labelled("Elementary", fields.enableElementary), labelled("Where another job is in the way", fields.onConflict), labelled("Time limit in seconds", fields.timeoutSeconds)),
      ),
    ];
  }

  /** The body of the call: what is given, and nothing else. */
  body() {
    const { parameters, ...rest } = this.fields;
    const given = Object.fromEntries(parameters.filter(({ input }) => input.value !== "").map(({ one, input }) => [one.name, valueOf(one.type, input.value)]));
    const body = { pipeline: this.pipeline.name, projectId: this.pipeline.projectId };
    if (Object.keys(given).length) body.parameters = given;
    for (const [name, input] of Object.entries(rest)) {
      const value = input ? input.value.trim() : "";
      if (value !== "") body[name] = name.startsWith("enable") ? value === "on" : name === "timeoutSeconds" ? Number(value) : value;
    }
    return body;
  }

  showLines() {
    const body = this.body();
    this.curl.update(curlLine(body));
    this.client.update(clientLine(body));
  }

  showStatus() {
    const { pipeline } = this;
    const { lastRun, paused, pausedSince, pausedBy, usualSeconds } = pipeline;
    const button = h("button", { class: "quiet", on: { click: () => this.setPaused(!paused) } }, paused ? "Unpause" : "Pause");
    const state = lastRun && (lastRun.outcome ?? lastRun.status);
    fill(
      this.status,
      h("p", {}, h("strong", {}, pipeline.steps.join(" → ")), usualSeconds !== null && h("span", { class: "faint" }, ` usually ${duration(usualSeconds)}`)),
      h("p", {}, lastRun ? ["Last run: ", icon(state), h("a", { href: `#/jobs/${encodeURIComponent(lastRun.jobId)}` }, word(state)), " ", ago(lastRun.createdAt)] : "It never ran."),
      paused && h("p", { class: "problem" }, "Paused ", ago(pausedSince), pausedBy && ` by ${pausedBy}`, ": it can't be triggered."),
      h("p", { class: "actions" }, button),
    );
    this.startButton.disabled = paused;
  }

  async setPaused(paused) {
    const { projectId, name } = this.pipeline;
    if (paused && !(await ask(`Pause ${name}?`, "Its triggers are refused until it is unpaused, by timers too. What runs goes on.", "Pause it"))) return;
    await this.act(async () => {
      this.pipeline = await call(path`pipelines/${projectId}/${name}/paused`, { method: "PUT", body: { paused } });
      this.showStatus();
      this.onChange(this.pipeline);
      announce(paused ? `${name} is paused` : `${name} is not paused any more`);
    });
  }

  async start() {
    this.startButton.disabled = true;
    await this.act(async () => {
      const job = await call("jobs", { method: "POST", body: this.body(), headers: { "Idempotency-Key": this.key + hash(JSON.stringify(this.body())) } });
      announce(`${job.jobId} was triggered`);
      if (!this.signal.aborted) location.hash = `#/jobs/${encodeURIComponent(job.jobId)}`;
    });
    this.startButton.disabled = this.pipeline.paused;
  }

  async act(doIt) {
    this.problem.hidden = true;
    try {
      await doIt();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      const holder = error.body.conflict?.jobId;
      this.problem.hidden = false;
      fill(this.problem, error.message, holder && [" ", h("a", { href: `#/jobs/${encodeURIComponent(holder)}` }, "See what is in the way.")]);
    }
  }

  /** Offer the models of the last run as what a run can stop at. */
  async complete() {
    const steps = this.pipeline.steps.map((step) => h("option", { value: step }));
    fill(this.processes, steps);
    if (this.pipeline.lastRun === null) return;
    try {
      const { nodes } = await call(path`jobs/${this.pipeline.lastRun.jobId}/nodes` + "?resourceType=model,seed,snapshot", { signal: this.signal });
      fill(this.processes, [...new Set(nodes.map((node) => node.name))].sort().map((name) => h("option", { value: name })), steps);
    } catch (error) {
      if (!(error instanceof ApiError) && !this.signal.aborted) throw error; // without completion, the field still works
    }
  }
}

function parameterInput({ type, choices, default: value, required, minimum, maximum }) {
  const none = value === null ? (required ? "choose" : "not given") : `${value} (default)`;
  if (choices) return select([["", none], ...choices.filter((one) => one !== value).map((one) => [String(one), String(one)])], required);
  if (type === "boolean") return select([["", none], ["true", "true"], ["false", "false"]], required);
  const kind = { date: "date", integer: "number", number: "number" }[type] ?? "text";
  return h("input", { type: kind, required, min: minimum, max: maximum, step: type === "integer" ? 1 : type === "number" && "any", placeholder: value === null ? "" : `${value} (default)`, autocomplete: "off" });
}

function limits({ type, default: value, minimum, maximum }) {
  const parts = [type];
  if (minimum !== undefined) parts.push(`from ${minimum}`);
  if (maximum !== undefined) parts.push(`to ${maximum}`);
  if (type === "date" && value !== null) parts.push(`default ${value}`); // a date field shows no placeholder
  return parts.join(" ");
}

function valueOf(type, text) {
  switch (type) {
    case "integer":
    case "number":
      return String(Number(text)) === text ? Number(text) : text; // the gateway reads what this browser would round
    case "boolean":
      return text === "true";
    default:
      return text;
  }
}

function select(options, required = false) {
  return h("select", { required }, options.map(([value, text]) => h("option", { value }, text)));
}

function toggle() {
  return select([["", "as configured"], ["on", "on"], ["off", "off"]]);
}

function labelled(text, input, hint, required) {
  const note = hint && h("span", { class: "faint hint" }, hint);
  return h("label", {}, h("span", {}, text, required && h("span", { class: "required", title: "required" }, " *")), input, note);
}

function curlLine(body) {
  const secret = token() ? ' -H "X-AUTH-TOKEN: $PIPELINE_GATEWAY_TOKEN"' : "";
  return `curl -s -X POST ${quoted(`${BASE}/api/v1/jobs`)}${secret} -H 'Content-Type: application/json' -d ${quoted(JSON.stringify(body))}`;
}

function clientLine({ pipeline, projectId, parameters = {}, ...rest }) {
  const words = ["pipeline-gateway", "trigger", quoted(`${projectId}:${pipeline}`)];
  for (const [name, value] of Object.entries(parameters)) words.push(quoted(`${name}=${value}`));
  const options = { command: "command", fabricId: "fabric", branch: "branch", version: "version", processName: "process", onConflict: "on-conflict", timeoutSeconds: "timeout" };
  for (const [field, option] of Object.entries(options)) if (rest[field] !== undefined) words.push(`--${option}`, quoted(String(rest[field])));
  for (const [field, option] of [["enableOpenlineage", "openlineage"], ["enableElementary", "elementary"]]) {
    if (rest[field] !== undefined) words.push(`--${option}`, rest[field] ? "on" : "off");
  }
  return [...words, "--server", quoted(BASE), "--follow"].join(" ");
}

/** A word for a POSIX shell. */
function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** Tells bodies apart: a changed form is another trigger. */
function hash(text) {
  let value = 0;
  for (const letter of text) value = (Math.imul(31, value) + letter.codePointAt(0)) | 0;
  return (value >>> 0).toString(16);
}
