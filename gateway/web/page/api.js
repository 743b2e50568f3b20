// The jobs API, called with the token of this tab.

const KEY = "pipeline-gateway-token"; // in the tab's own storage, which ends with the tab
const AWAY = [502, 503, 504]; // how a proxy says that the gateway does not answer
const PAUSE = 2000; // milliseconds before the gateway is asked again
const LONGEST = { GET: 30_000 }; // milliseconds for an answer by the request's method
const LONGEST_OTHER = 120_000; // a trigger may have to fetch from a repository

/** What the page knows of its connection. Events: `change`, and `unauthorized` where a token is needed. */
export const connection = Object.assign(new EventTarget(), { lostAt: null, skew: 0 });

/** A refusal, or no answer: `status` 0. code: stable, see the manual. body: the whole refusal. */
export class ApiError extends Error {
  constructor(status, code, message, body = {}) {
    super(message);
    Object.assign(this, { status, code, body });
  }
}

export function token() {
  return sessionStorage.getItem(KEY);
}

export function setToken(value) {
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
}

/** A key for the header Idempotency-Key, by which a request that is sent again is answered and not done again. */
export function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Milliseconds since the epoch by the gateway's clock. */
export function now() {
  return Date.now() + connection.skew;
}

/** The address of the gateway, without a slash at its end. */
export const BASE = new URL(".", document.baseURI).href.replace(/\/$/, "");

/** A path of the API with its values escaped: path`jobs/${id}/log`. */
export function path(parts, ...values) {
  return parts.reduce((text, part, index) => text + encodeURIComponent(values[index - 1]) + part);
}

/** A query without the values that are not given; a list is joined by commas. */
export function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && String(value) !== "");
  return given.length ? `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}` : "";
}

/** Call the jobs API. Returns the response; throws ApiError, also where `limit` ends it, or AbortError where `signal` does. */
export async function request(where, { method = "GET", body, signal, limit, headers = {} } = {}) {
  const sent = { ...headers, ...(token() && { "X-AUTH-TOKEN": token() }) };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(`api/v1/${where}`, {
      method,
      headers: sent,
      signal: AbortSignal.any([signal, limit].filter(Boolean)),
      cache: "no-store",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    lost();
    throw new ApiError(0, "unreachable", `The gateway at ${BASE} does not answer.`);
  }
  if (response.ok) {
    found(response);
    return response;
  }
  const error = await refusal(response);
  if (AWAY.includes(error.status) && !error.body.code) lost(); // with a code it is the gateway's own
  else found(response);
  const isOfNow = sent["X-AUTH-TOKEN"] === (token() ?? undefined); // of several calls, the first one tells
  if (error.status === 401 && isOfNow) connection.dispatchEvent(new Event("unauthorized"));
  throw error;
}

/** Call the jobs API for JSON, in a limited time. Throws what `request` does. */
export async function call(where, options = {}) {
  const limit = AbortSignal.timeout(LONGEST[options.method ?? "GET"] ?? LONGEST_OTHER);
  const response = await request(where, { ...options, limit });
  if (!response.headers.get("Content-Type")?.startsWith("application/json")) {
    throw new ApiError(response.status, "unreadable", `What answers at ${BASE} is not the gateway: its answer is no JSON. Is there a proxy before it, and signed in to?`);
  }
  try {
    return await response.json();
  } catch (error) {
    if (options.signal?.aborted) throw error;
    lost();
    throw new ApiError(0, "unreachable", `The answer of the gateway at ${BASE} ended too early.`);
  }
}

/** Ask again and again, until the answer comes or `signal` ends it; a refusal other than of load is thrown. */
export async function persist(ask, signal) {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof ApiError) || ![0, 429, ...AWAY].includes(error.status)) throw error;
      await sleep(PAUSE, signal);
    }
  }
}

/** Wait; throws AbortError where `signal` ends it. */
export function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => reject(new DOMException("left", "AbortError"));
    if (signal?.aborted) return stop();
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), stop()), { once: true });
  });
}

/** Note that the gateway did not answer. */
export function lost() {
  if (connection.lostAt !== null) return;
  connection.lostAt = Date.now();
  connection.dispatchEvent(new Event("change"));
}

function found(response) {
  const date = Date.parse(response.headers.get("Date"));
  if (!Number.isNaN(date)) connection.skew = Math.abs(date - Date.now()) > 2000 ? date - Date.now() : 0;
  if (connection.lostAt === null) return;
  connection.lostAt = null;
  connection.dispatchEvent(new Event("change"));
}

async function refusal(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    // an answer of a proxy between
  }
  return new ApiError(response.status, body.code ?? "unknown", body.error ?? `The answer has the status ${response.status}.`, body);
}
