// The log of a job: its last lines, followed while it runs, with search, headings and errors.

import { ApiError, path, query, request } from "./api.js";
import { fill, h, setText } from "./dom.js";
import { bytes, count, number } from "./format.js";

const HELD = 5000; // lines that are held, beside those that were loaded on demand
const BLOCK = 200; // lines that the browser lays out together, or not at all while they can't be seen
const SLICE = 250; // lines that are drawn between two frames
const EARLIER = 256 * 1024; // bytes that are loaded on demand
const LONGEST = 16 * EARLIER; // bytes of a line that may be loaded as a whole
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
    Object.assign(this, { job, signal, parts: [], undrawn: [], held: HELD, hit: -1, hits: [] });
    this.follows = h("input", { type: "checkbox", checked: true, on: { change: () => this.toEnd() } });
    this.search = h("input", { type: "search", placeholder: "Search", "aria-label": "Search in the lines that are shown", on: { input: () => this.find(), keydown: (event) => this.onKey(event) } });
    this.found = h("span", { class: "faint number", role: "status" });
    this.errorButton = h("button", { class: "quiet", hidden: true, on: { click: () => this.showFirstError() } }, "First error");
    this.download = h("button", { class: "quiet", on: { click: () => this.save() } }, "Download");
    this.earlier = h("button", { class: "quiet earlier", hidden: true, on: { click: () => this.loadEarlier() } }, "Show earlier lines");
    this.text = h("div", { class: "lines" });
    this.empty = h("p", { class: "empty" }, "No output yet.");
    this.box = h("div", { class: "log", tabindex: 0, role: "region", "aria-label": "Log", on: { scroll: () => this.onScroll() } }, this.earlier, this.text, this.empty);
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
    const gap = part.dropped > 0 ? `… ${bytes(part.dropped)} of output were dropped to keep it under its cap …\n` : "";
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
    while (this.undrawn.length > 1 && lineCount(this.undrawn.slice(1)) >= this.held) {
      for (const part of this.parts.splice(0)) part.element.remove();
      this.letGo(this.undrawn.shift());
    }
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
    while (this.parts.length > 1 && lineCount(this.parts.slice(1)) >= this.held) this.letGo(this.parts.shift());
    this.drawn();
    this.toEnd();
  }

  letGo(part) {
    part.element.remove();
    const next = this.parts[0] ?? this.undrawn[0];
    this.first = next.offset;
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
  }

  async loadEarlier() {
    this.earlier.disabled = true;
    try {
      await this.load(EARLIER);
      setText(this.earlier, "Show earlier lines");
    } catch (error) {
      if (this.signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      setText(this.earlier, `${error.message} Try again.`);
    } finally {
      this.earlier.disabled = false;
    }
  }

  async load(size) {
    const { first } = this;
    const response = await request(path`jobs/${this.job}/log` + query({ tail: size, end: first }), { signal: this.signal });
    const text = await response.text();
    const start = Number(response.headers.get("Log-Start"));
    if (start >= first && first - size > this.oldest && size < LONGEST) return this.load(4 * size); // inside of a long line
    if (first !== this.first) return; // other parts were let go meanwhile
    if (start >= first || first - size > start) this.oldest = start; // what was before is gone
    this.insert(newPart(Math.min(start, first), text));
  }

  /** Put a part before those that are shown, which stay where they are. */
  insert(part) {
    this.follows.checked = false;
    const height = this.box.scrollHeight;
    part.drawn = part.lines.length;
    drawLines(part, part.lines);
    this.text.prepend(part.element);
    this.parts.unshift(part);
    this.held += part.lines.length;
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

  /** Go to the first error, now or once it has come. */
  showFirstError() {
    const line = this.lines().find(isError);
    this.seeksError = line === undefined;
    this.go(line);
  }

  find() {
    const words = this.search.value.toLowerCase();
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
      const begin = line.text.toLowerCase().indexOf(words);
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
    const response = await request(path`jobs/${this.job}/log` + "?download", { signal: this.signal });
    const url = URL.createObjectURL(await response.blob());
    h("a", { href: url, download: `${this.job}.log` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }
}

function newPart(offset, text) {
  const lines = text ? text.replace(/\n$/, "").split("\n").map((line) => ({ text: line })) : [];
  return { offset, lines, drawn: 0, element: h("div", {}) };
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
  return parts.reduce((sum, part) => sum + part.lines.length, 0);
}

function isError(line) {
  return line.kind === "error";
}
