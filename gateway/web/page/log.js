// The log of a job: its last lines, followed while it runs, with search, headings and errors.

import { ApiError, path, query, request } from "./api.js";
import { fill, h, setText } from "./dom.js";
import { bytes, count, number } from "./format.js";

const HELD = 5000; // lines that are held, beside those that were loaded on demand
const WIDE = 200; // characters, of which a line counts as more than one
const BLOCK = 200; // lines that the browser lays out together, or not at all while they can't be seen
const SLICE = 250; // lines that are drawn between two frames
const EARLIER = 256 * 1024; // bytes that are loaded on demand
const LOADS = 8; // of earlier lines, in search of the first error
const READ = 20_000; // lines that are held beside those while a person reads, who would be moved otherwise
const SETTLING = 4; // frames
const LINE = 1.21875; // rem, the height of a line: see .line in page.css
const HEADING = /^==> .* <==$/;
const ERROR = /\b(ERROR(?!=)|FAIL(?:ED)?(?!=)|FATAL|CRITICAL|Traceback|[A-Z]\w*(?:Error|Exception))\b|\berror:/;
const WARNING = /\bWARN(?:ING)?(?!=)\b|\bwarning:/i;

/**
 * The log is held in parts, as they came: each begins at an offset from which the gateway can be asked again, so that
 * what is let go can be loaded once more, and nothing is shown twice or left out.
 */
export class LogView {
  constructor(job, signal) {
    Object.assign(this, { job, signal, parts: [], undrawn: [], held: HELD, isLoading: false, hit: -1, hits: [] });
    this.follows = h("input", { type: "checkbox", checked: true, on: { change: () => this.toEnd() } });
    this.search = h("input", { type: "search", placeholder: "Search", "aria-label": "Search in the lines that are shown", on: { input: () => this.find(), keydown: (event) => this.onKey(event) } });
    this.found = h("span", { class: "faint number", role: "status" });
    this.errorButton = h("button", { class: "quiet", hidden: true, on: { click: () => this.findFirstError() } }, "First error");
    this.download = h("button", { class: "quiet", on: { click: () => this.save() } }, "Download");
    this.earlier = h("button", { class: "quiet earlier", hidden: true, on: { click: () => this.loadEarlier() } }, "Show earlier lines");
    this.gone = h("p", { class: "faint", hidden: true });
    this.text = h("div", { class: "lines" });
    this.empty = h("p", { class: "empty" }, "No output yet.");
    this.box = h("div", { class: "log", tabindex: 0, role: "region", "aria-label": "Log", on: { scroll: () => this.onScroll() } }, this.earlier, this.gone, this.text, this.empty);
    const tools = h("div", { class: "tools" }, h("label", { class: "choice" }, this.follows, "Follow"), this.search, this.found, this.errorButton, this.download);
    this.element = h("div", {}, tools, this.box);
    window.CSS?.highlights?.delete("found");
  }

  /** What comes begins at byte `offset`; the oldest kept one is `oldest`. */
  begin(offset, oldest) {
    Object.assign(this, { first: offset, oldest });
    this.showEarlier();
  }

  append(part) {
    const isFirst = this.parts.length + this.undrawn.length === 0;
    if (isFirst) this.begin(part.offset, part.dropped > 0 ? part.offset : this.oldest);
    const gap = part.dropped > 0 && !isFirst ? `… ${bytes(part.dropped)} of output were dropped to keep it under its cap …\n` : "";
    this.undrawn.push(newPart(part.offset, gap + part.text));
    this.schedule();
  }

  finish() {
    setText(this.empty, "The job printed nothing.");
    this.follows.parentElement.hidden = true; // the end stays in view, until the reader scrolls
  }

  schedule() {
    if (this.isScheduled || this.undrawn.length === 0) return;
    this.isScheduled = true;
    const draw = () => {
      this.isScheduled = false;
      this.draw();
      this.schedule();
    };
    if (document.hidden) setTimeout(draw, 100); // a hidden tab has no frames
    else requestAnimationFrame(draw);
  }

  /** Draw some lines of the parts that came, and let the oldest parts go. */
  draw() {
    for (let spare; (spare = this.spare(this.undrawn)) > 0; ) this.letGo([...this.parts.splice(0), ...this.undrawn.splice(0, spare)]);
    for (let room = SLICE; room > 0 && this.undrawn.length > 0; ) {
      const [part] = this.undrawn;
      const lines = part.lines.slice(part.drawn, part.drawn + room);
      part.drawn += lines.length;
      room -= Math.max(1, lines.length);
      if (part !== this.parts.at(-1)) this.parts.push(part);
      drawLines(part, lines);
      if (!part.element.isConnected) this.text.append(part.element);
      if (part.drawn === part.lines.length) this.undrawn.shift();
    }
    for (let spare; (spare = this.spare(this.parts)) > 0; ) this.letGo(this.parts.splice(0, spare));
    this.drawn();
    this.toEnd();
  }

  /** How many of the first of these parts can go: up to the end of a line, where enough lines follow. */
  spare(parts) {
    const until = parts.findIndex((part) => part.endsLine) + 1;
    const enough = this.held + (this.follows.checked ? 0 : READ);
    return !this.isLoading && until < parts.length && lineCount(parts.slice(until)) >= enough ? until : 0;
  }

  letGo(parts) {
    for (const part of parts) part.element.remove();
    this.first = (this.parts[0] ?? this.undrawn[0]).offset;
    this.showEarlier();
  }

  drawn() {
    this.empty.hidden = this.parts.length > 0;
    this.errorButton.hidden = !this.parts.some((part) => part.hasError);
    if (this.search.value) this.find();
    if (this.seeksError) this.showFirstError();
  }

  lines() {
    return this.parts.flatMap((part) => part.lines.slice(0, part.drawn));
  }

  showEarlier() {
    this.earlier.hidden = this.first <= this.oldest;
    this.gone.hidden = !this.earlier.hidden || this.oldest === 0;
    setText(this.gone, `The first ${bytes(this.oldest)} of the output were dropped to keep it under its cap.`);
  }

  async loadEarlier() {
    this.earlier.disabled = this.isLoading = true;
    try {
      await this.load();
      setText(this.earlier, "Show earlier lines");
    } catch (error) {
      if (this.signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      setText(this.earlier, `${error.message} Try again.`);
    } finally {
      this.earlier.disabled = this.isLoading = false;
    }
  }

  async load() {
    const response = await request(path`jobs/${this.job}/log` + query({ tail: EARLIER, end: this.first }), { signal: this.signal });
    const text = await response.text();
    const start = Math.min(this.first, Number(response.headers.get("Log-Start")));
    if (start === this.first || Number(response.headers.get("Log-Dropped")) > 0) this.oldest = start; // what was before is gone
    this.insert(newPart(start, text));
  }

  /** Put a part before those that are shown, which stay where they are. */
  insert(part) {
    this.follows.checked = false;
    const height = this.box.scrollHeight;
    part.drawn = part.lines.length;
    drawLines(part, part.lines);
    this.text.prepend(part.element);
    this.parts.unshift(part);
    this.held += part.weight;
    this.first = part.offset;
    this.showEarlier();
    this.box.scrollTop += this.box.scrollHeight - height;
    this.drawn();
  }

  /** The log can be seen again. */
  shown() {
    requestAnimationFrame(() => this.toEnd());
  }

  toEnd() {
    if (this.follows.checked) this.box.scrollTop = this.box.scrollHeight;
  }

  onScroll() {
    const isAtEnd = this.box.scrollTop + this.box.clientHeight >= this.box.scrollHeight - 30;
    if (!isAtEnd && this.box.scrollTop < (this.scrolled ?? 0)) this.follows.checked = false;
    this.scrolled = this.box.scrollTop;
  }

  /** Go to the first error; earlier lines are loaded for it, up to LOADS parts. */
  async findFirstError() {
    for (let loads = 0; this.first > this.oldest && loads < LOADS && !this.signal.aborted; loads += 1) await this.loadEarlier();
    this.showFirstError();
  }

  /** Go to the first error of the lines that are held, now or once it has come. */
  showFirstError() {
    const line = this.lines().find(isError);
    this.seeksError = line === undefined;
    this.go(line);
  }

  find() {
    const words = this.search.value.toLowerCase();
    if (words !== this.words) Object.assign(this, { words, hit: 0 });
    this.hits = words ? this.lines().filter((line) => line.text.toLowerCase().includes(words)) : [];
    this.hit = Math.min(this.hit, this.hits.length - 1);
    if (this.hit < 0 && this.hits.length) this.hit = 0;
    this.mark(words);
  }

  mark(words) {
    const place = this.hits.length ? `${number(this.hit + 1)} of ` : "";
    setText(this.found, words ? `${place}${count(this.hits.length, "line")}` : "");
    if (!window.CSS?.highlights) return;
    const ranges = this.hits.map((line) => {
      const begin = Math.min(line.text.length, line.text.toLowerCase().indexOf(words)); // some letters are two in lower case
      const range = new Range();
      range.setStart(line.element.firstChild, begin);
      range.setEnd(line.element.firstChild, Math.min(line.text.length, begin + words.length));
      return range;
    });
    CSS.highlights.set("found", new Highlight(...ranges));
  }

  onKey(event) {
    if (event.key !== "Enter" || !this.hits.length) return;
    event.preventDefault();
    const isCurrent = this.hits[this.hit].element.classList.contains("current");
    if (isCurrent) this.hit = (this.hit + (event.shiftKey ? -1 : 1) + this.hits.length) % this.hits.length;
    this.go(this.hits[this.hit]);
    this.mark(this.search.value.toLowerCase());
  }

  go(line) {
    if (!line) return;
    this.follows.checked = false;
    this.text.querySelector(".current")?.classList.remove("current");
    line.element.classList.add("current");
    bringIntoView(line.element, SETTLING);
  }

  async save() {
    try {
      const response = await request(path`jobs/${this.job}/log` + "?download", { signal: this.signal });
      const url = URL.createObjectURL(await response.blob());
      h("a", { href: url, download: `${this.job}.log` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (error) {
      if (!this.signal.aborted) setText(this.found, `The log could not be loaded: ${error.message}`);
    }
  }
}

function newPart(offset, text) {
  const lines = text ? text.replace(/\n$/, "").split("\n").map((line) => ({ text: line })) : [];
  const weight = Math.max(lines.length, text.length / WIDE);
  return { offset, lines, weight, endsLine: text.endsWith("\n"), drawn: 0, element: h("div", {}) };
}

function drawLines(part, lines) {
  for (const line of lines) {
    const last = part.element.lastElementChild;
    const block = last && last.childElementCount < BLOCK ? last : part.element.appendChild(h("div", { class: "block" }));
    line.kind = HEADING.test(line.text) ? "heading" : ERROR.test(line.text) ? "error" : WARNING.test(line.text) ? "warning" : "plain";
    part.hasError ||= isError(line);
    line.element = h("div", { class: `line ${line.kind}` });
    line.element.textContent = line.text;
    block.append(line.element);
    block.style.containIntrinsicSize = `auto ${LINE * block.childElementCount}rem`;
  }
}

/** Show an element, and again in the next frames: until the lines around it are laid out, their heights are guesses. */
function bringIntoView(element, frames) {
  element.scrollIntoView({ block: "center" });
  if (frames > 0) requestAnimationFrame(() => bringIntoView(element, frames - 1));
}

function lineCount(parts) {
  return parts.reduce((sum, part) => sum + part.weight, 0);
}

function isError(line) {
  return line.kind === "error";
}
