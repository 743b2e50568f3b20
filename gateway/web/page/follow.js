// A job's events, over dropped connections and restarts of the gateway.

import { ApiError, call, lost, path, persist, request, sleep } from "./api.js";

const SILENCE = 40_000; // milliseconds; a gateway that is there says something every 15 s
const SHORTEST = 250; // milliseconds before it connects again
const LONGEST = 5000;
const HIDDEN = 5000; // milliseconds between two looks at a job in a tab that is hidden
const GONE = "the tab is hidden";
const ATTEMPTS = 5; // to read the rest of an ended job's output, which may be gone

/**
 * Follow a job to its end: onState(record) whenever it changes, onLog({offset, next, text, dropped}) from byte `offset`
 * on. A hidden tab asks for the record alone, since a browser has six connections to a host for all its tabs. Returns
 * once the job has ended and all was read. Throws ApiError for a job that is not there, AbortError by `signal`.
 */
export async function follow(job, offset, { onState, onLog, signal }) {
  let record = null;
  let pause = SHORTEST;
  const events = {
    state: (given) => onState((record = given)),
    log(part) {
      offset = part.next;
      onLog(part);
    },
  };
  for (let attempt = 0; attempt < ATTEMPTS; ) {
    await whileHidden(job, events.state, signal);
    const [began, from] = [performance.now(), offset];
    await readOnce(job, offset, events, signal);
    if (hasAll(record, offset)) return;
    attempt = record?.phase === "ended" && offset === from ? attempt + 1 : 0;
    pause = performance.now() - began > LONGEST ? SHORTEST : Math.min(2 * pause, LONGEST);
    if (!document.hidden) await sleep(pause, signal);
  }
}

/** Read events until the connection ends, for whatever reason. What the page itself does wrong is thrown. */
async function readOnce(job, offset, events, signal) {
  const left = new AbortController();
  const leave = () => document.hidden && left.abort(GONE);
  document.addEventListener("visibilitychange", leave);
  let bug = null;
  try {
    const response = await connect(job, offset, AbortSignal.any([signal, left.signal]), signal);
    await read(response.body, left, (name, data) => {
      try {
        events[name]?.(data);
      } catch (error) {
        bug = error;
        throw error;
      }
    });
  } catch (error) {
    if (bug || signal.aborted || (error instanceof ApiError && error.status !== 0)) throw error;
    if (left.signal.reason !== GONE) lost();
  } finally {
    document.removeEventListener("visibilitychange", leave);
    left.abort();
  }
}

function connect(job, offset, both, signal) {
  const ask = () => {
    const limit = new AbortController(); // for the begin of the answer, whose end is open
    const timer = setTimeout(() => limit.abort(), SILENCE);
    const asked = request(path`jobs/${job}/events` + `?offset=${offset}`, { signal: both, limit: limit.signal });
    return asked.finally(() => clearTimeout(timer));
  };
  return persist(ask, signal);
}

/** Whether a job has ended and all its output up to a byte was read. */
function hasAll(record, offset) {
  return record?.phase === "ended" && (record.outputBytes === null || offset >= record.outputBytes + (record.outputDroppedBytes ?? 0));
}

/** As long as the tab is hidden: tell the record of the job now and then, until it has ended. */
async function whileHidden(job, onState, signal) {
  if (!document.hidden) return;
  const shown = new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
  for (let ended = false; document.hidden; ) {
    if (!ended) {
      const record = await persist(() => call(path`jobs/${job}`, { signal }), signal);
      onState(record);
      ended = record.phase === "ended";
    }
    await Promise.race([sleep(HIDDEN, signal), shown]);
  }
}

/** Read events until the stream ends; a stream that is silent for too long is ended. */
async function read(body, left, onEvent) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let timer;
  const watch = () => {
    clearTimeout(timer);
    timer = setTimeout(() => left.abort(), SILENCE);
  };
  try {
    for (;;) {
      watch();
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parse(block);
        if (event !== null) onEvent(...event);
        if (left.signal.aborted) return;
      }
    }
  } finally {
    clearTimeout(timer);
  }
}

function parse(block) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    else if (line.startsWith("data: ")) data.push(line.slice(6));
  }
  return data.length ? [name, JSON.parse(data.join("\n"))] : null;
}
