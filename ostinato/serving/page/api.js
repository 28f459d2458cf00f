// Requests to the server: the key, errors with one form, and whether the server can be reached.

const KEY = "ostinato-key";
const RECONNECT_MS = 1000;
const TIMEOUT_MS = 60_000;

/** Events: "down" when the server cannot be reached, "up" when it answers again. */
export const connection = new EventTarget();
let down = false;
let key = sessionStorage.getItem(KEY) || "";
let askKey = null; // shows the dialog; resolves with the key
let asking = null;

export class ApiError extends Error {
  constructor(status, code, message, { details = [], retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { status, code, details, retryAfter });
  }
}

/** How a key is asked for: a function (wrong) => Promise of the key. */
export function onKey(ask) {
  askKey = ask;
}

export const isDown = () => down;

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function lost() {
  if (down) return;
  down = true;
  connection.dispatchEvent(new Event("down"));
  for (;;) {
    await wait(RECONNECT_MS);
    try {
      if ((await fetch("/health/live", { cache: "no-store" })).ok) break;
    } catch {
      // not yet
    }
  }
  down = false;
  connection.dispatchEvent(new Event("up"));
}

async function send(path, options, signal) {
  const headers = { ...options.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  const both = signal ? AbortSignal.any([signal, timeout]) : timeout;
  try {
    return await fetch(path, { ...options, headers, signal: both });
  } catch (error) {
    if (signal?.aborted) throw error;
    if (timeout.aborted) throw new ApiError(0, "timeout", "The server did not answer in time.");
    lost();
    throw new ApiError(0, "unreachable", "The server cannot be reached.");
  }
}

async function failure(response) {
  const retryAfter = Number(response.headers.get("Retry-After")) || 0;
  try {
    const { code, message, details } = (await response.json()).error;
    return new ApiError(response.status, code, message, { details, retryAfter });
  } catch {
    const text = `The server answered with status ${response.status}.`;
    return new ApiError(response.status, "error", text, { retryAfter });
  }
}

/** A response that is no error; asks for a key where the server needs one. */
export async function request(path, { body = null, headers = {}, signal = null } = {}) {
  const options = body === null ? {} : {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json", ...headers },
  };
  let sent = key;
  let response = await send(path, options, signal);
  while (response.status === 401 && askKey) {
    if (key === sent) {
      asking ||= askKey(sent !== "").finally(() => (asking = null));
      key = await asking;
      sessionStorage.setItem(KEY, key);
    }
    sent = key;
    response = await send(path, options, signal);
  }
  if (!response.ok) throw await failure(response);
  return response;
}

export const get = async (path) => (await request(path)).json();

/** The answer of a model: {model, version, request_id, responses}; unless `log`, no log has it. */
export async function predict(model, inputs, params = {}, { log = true } = {}) {
  const path = `/v1/models/${encodeURIComponent(model)}:predict`;
  const headers = log ? {} : { "X-Log": "no" };
  return (await request(path, { body: { inputs, params }, headers })).json();
}

export const feedback = async (body) => (await request("/v1/feedback", { body })).json();

/** One request at a time: while one is answered only the newest of the others waits. */
export class Latest {
  #work;
  #next = null;
  #running = false;
  #generation = 0;

  /** @param work (argument, isCurrent) => Promise; it shows nothing unless isCurrent(). */
  constructor(work) {
    this.#work = work;
  }

  async push(argument) {
    this.#next = { argument };
    if (this.#running) return;
    this.#running = true;
    while (this.#next) {
      const { argument: newest } = this.#next;
      this.#next = null;
      const generation = this.#generation;
      try {
        await this.#work(newest, () => generation === this.#generation);
      } catch (error) {
        console.error(error); // a bug; later requests must not wait for it
      }
    }
    this.#running = false;
  }

  /** Answers to all that was asked before are dropped. */
  drop() {
    this.#generation++;
    this.#next = null;
  }
}
