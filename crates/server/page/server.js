// The server's API: what it offers, and answers as they stream.

const KEY = "sketchkv.key";
const LOST = "The connection to the server was lost before the answer ended.";

export class ServerError extends Error {
  // `param`: the field of the request that is to blame; `wait`: in how many seconds to try again.
  constructor(message, { status = 0, param = null, wait = null } = {}) {
    super(message);
    Object.assign(this, { status, param, wait });
  }
}

export class Server {
  #askKey;

  // `askKey(refused)` resolves to a key, or null if there is none; `refused` tells that the last one was wrong.
  constructor(askKey) {
    this.#askKey = askKey;
  }

  async model() {
    return (await (await this.#call("/v1/models")).json()).data[0];
  }

  async kv() {
    return (await this.#call("/kv")).json();
  }

  // The events of an answer, parsed. Ends where the server says so, and throws if it ends before.
  async *stream(path, body, signal) {
    const headers = { "Content-Type": "application/json" };
    const response = await this.#call(path, { method: "POST", headers, body: JSON.stringify(body), signal });
    for await (const data of dataOf(response.body, signal)) {
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new ServerError(event.error.message, { param: event.error.param });
      yield event;
    }
    throw new ServerError(LOST);
  }

  async #call(path, options = {}) {
    for (;;) {
      const key = sessionStorage.getItem(KEY);
      const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
      const response = await reach(path, { ...options, headers });
      if (response.ok) return response;
      const given = response.status === 401 ? await this.#askKey(key !== null) : null;
      if (given === null) throw await errorOf(response);
      sessionStorage.setItem(KEY, given);
    }
  }
}

async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ServerError("The server does not answer. Is `sketchkv serve` still running?");
  }
}

async function errorOf(response) {
  const body = await response.json().catch(() => null);
  const message = body?.error?.message ?? `The server answered ${response.status} ${response.statusText}`.trim();
  const wait = Number.parseFloat(response.headers.get("Retry-After"));
  return new ServerError(message, {
    status: response.status,
    param: body?.error?.param ?? null,
    wait: Number.isFinite(wait) ? wait : null,
  });
}

// The data of a stream of server-sent events, whose events are one line each.
async function* dataOf(body, signal) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
    }
  } catch (error) {
    throw signal?.aborted ? error : new ServerError(LOST);
  } finally {
    // Whoever stops reading early must not keep the server busy.
    reader.cancel().catch(() => {});
  }
}
