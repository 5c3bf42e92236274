// One answer: from the turns of a conversation to what streams back.

// Without Retry-After.
const WAIT_SECONDS = 5;

// Yields {text}, {kv}, {usage}, {finish}, and {wait} for each second of waiting until a full server is asked once more.
export async function* answer(server, model, turns, fields, signal) {
  const [path, body] = request(model, turns, fields);
  for await (const event of patiently(() => server.stream(path, body, signal), signal)) {
    if (event.wait !== undefined) {
      yield event;
      continue;
    }
    const choice = event.choices?.[0];
    const text = choice?.delta?.content ?? choice?.text;
    const kv = event.kv ?? event.usage?.kv;
    if (text) yield { text };
    if (kv) yield { kv };
    if (choice?.finish_reason) yield { finish: choice.finish_reason };
    if (event.usage) yield { usage: event.usage };
  }
}

function request(model, turns, { system, ...fields }) {
  const body = { model: model.id, stream: true, stream_options: { include_usage: true, include_kv: true }, ...fields };
  return model.chat
    ? ["/v1/chat/completions", { ...body, messages: messages(turns, system) }]
    : ["/v1/completions", { ...body, prompt: prompt(turns) }];
}

// A question whose answer never came is one with the next: templates want the roles to take turns.
function messages(turns, system) {
  const said = system ? [{ role: "system", content: system }] : [];
  for (const { role, content } of turns) {
    if (content.trim() === "") continue;
    const last = said.at(-1);
    if (last?.role === role) last.content += `\n\n${content}`;
    else said.push({ role, content });
  }
  return said;
}

// A base model goes on with the text: what it wrote joins without a seam, what the reader adds begins a new word.
function prompt(turns) {
  return turns.reduce((text, { role, content }) => {
    const seam = role === "user" && text !== "" && !/\s$/.test(text) && !/^[\s.,:;!?)]/.test(content);
    return text + (seam ? " " : "") + content;
  }, "");
}

async function* patiently(open, signal) {
  try {
    return yield* open();
  } catch (error) {
    if (error.status !== 429) throw error;
    for (let left = Math.ceil(error.wait ?? WAIT_SECONDS); left > 0; left -= 1) {
      yield { wait: left };
      await second(signal);
    }
    yield { wait: 0 };
  }
  return yield* open();
}

function second(signal) {
  return new Promise((resolve, reject) => {
    const stopped = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stopped);
      resolve();
    }, 1000);
    if (signal.aborted) stopped();
    signal.addEventListener("abort", stopped, { once: true });
  });
}
