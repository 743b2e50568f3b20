// A job's events, over dropped connections and restarts of the gateway.

import { ApiError, lost, path, persist, request, sleep } from "./api.js";

const SILENCE = 40_000; // milliseconds; a gateway that is there says something every 15 s
const SHORTEST = 250; // milliseconds before it connects again
const LONGEST = 5000;

/**
 * Follow a job to its end: onState(record) whenever it changes, onLog({offset, next, text, dropped}) from byte `offset`
 * on. Returns once it has ended and all was read. Throws ApiError for a job that is not there, AbortError by `signal`.
 */
export async function follow(job, offset, { onState, onLog, signal }) {
  let ended = false;
  let pause = SHORTEST;
  const events = {
    state(record) {
      ended = record.phase === "ended";
      onState(record);
    },
    log(part) {
      offset = part.next;
      onLog(part);
    },
  };
  for (;;) {
    const left = new AbortController();
    const both = AbortSignal.any([signal, left.signal]);
    try {
      const response = await persist(() => request(path`jobs/${job}/events` + `?offset=${offset}`, { signal: both }), signal);
      await read(response.body, left, (name, data) => {
        pause = SHORTEST;
        events[name]?.(data);
      });
      if (ended) return;
    } catch (error) {
      if (signal.aborted || (error instanceof ApiError && error.status !== 0)) throw error;
      lost();
    }
    await sleep(pause, signal);
    pause = Math.min(2 * pause, LONGEST);
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
