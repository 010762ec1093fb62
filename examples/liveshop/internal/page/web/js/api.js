// Calls of the HTTP API: {code, msg, data, trace} with real status codes.
import { sync } from "./clock.js";
import { has, t } from "./i18n.js";
import * as session from "./session.js";

const prefix = "/api/v1";
const patience = 7_000; // ms; the server gives up after 5 s
const attempts = 4;

export class ApiError extends Error {
  constructor(status, { code = "", msg = "", trace = "" } = {}, retryAfter = 0) {
    super(msg || `HTTP ${status}`);
    Object.assign(this, { status, code, trace, retryAfter });
  }

  // text is what a person is told.
  get text() {
    if (this.status === 429) return t("err.busy", { s: Math.max(1, this.retryAfter) });
    if (has("err." + this.code)) return t("err." + this.code, { msg: this.message });
    if (this.status === 0 || this.status >= 502) return t("err.away");
    return this.message;
  }
}

// explain is text for anything that was thrown.
export const explain = (err) => (err instanceof ApiError ? err.text : String(err?.message ?? err));

export const get = (path, options) => again(() => call("GET", path, undefined, options));

// send is for what the server knows again by a key in the body: an answer that was
// lost is asked for once more, and what was asked for happens once.
export const send = (method, path, body) => again(() => call(method, path, body));

// call does one request, once.
export async function call(method, path, body, { signal, timeout = patience } = {}) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const token = session.user()?.token;
  if (token) headers.Authorization = "Bearer " + token;

  const begun = performance.now();
  const limit = AbortSignal.timeout(timeout);
  let response, answer;
  try {
    response = await fetch(prefix + path, {
      method, headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
    answer = await response.json().catch(() => ({}));
  } catch (err) {
    if (signal?.aborted) throw err;
    throw new ApiError(0);
  }
  if (!response.ok) {
    // The token may be another login's by now: only the one that was refused ends.
    if (response.status === 401 && token && session.user()?.token === token) session.end();
    throw new ApiError(response.status, answer, Number(response.headers.get("Retry-After")) || 0);
  }
  const data = answer.data ?? {};
  if (data.server_time) sync(data.server_time, performance.now() - begun);
  return data;
}

// again repeats what a server that is just going down or coming up did not answer. That
// coupons rest is an answer, about which the visitor decides.
async function again(request) {
  for (let n = 1; ; n++) {
    try {
      return await request();
    } catch (err) {
      const away = err instanceof ApiError && err.code !== "coupons_off" && (err.status === 0 || (err.status >= 502 && err.status <= 504));
      if (!away || n === attempts) throw err;
      const pause = Math.max(2 ** n * 100, err.retryAfter * 1000) * (1 + Math.random());
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
}

// key names one intent of the user; the same key again is the same intent.
export function key() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}
