// The turns of a conversation, kept in the browser so that a reload loses nothing. Every tab has a conversation of its own; a
// new tab begins with what was said last in any.
//
// A turn: {role, content}; an answer also has its state (streaming, done, length, stopped, failed), the error's words, how
// many tokens it took and how many a second.

const KEPT = "sketchkv.conversation";
// The tab's own, which a reload finds again, and the one of all tabs, which outlives them.
const OWN = "sessionStorage";
const LAST = "localStorage";
// An answer that streams is saved this often.
const SAVE_MS = 500;

export class Conversation {
  turns = [];
  // What the cache held when the last answer ended.
  kv = null;
  // What is typed and not sent.
  draft = "";
  #timer = null;
  // As it is in the stores.
  #kept = "";

  constructor() {
    try {
      Object.assign(this, JSON.parse(read(OWN) ?? read(LAST)));
    } catch {
      // What cannot be read is no conversation.
    }
    if (!Array.isArray(this.turns)) this.turns = [];
    for (const turn of this.turns) if (turn.state === "streaming") turn.state = "stopped";
    this.#kept = this.#text();
    write(OWN, this.#kept);
  }

  add(turn) {
    this.turns.push(turn);
    this.save();
    return turn;
  }

  // What is needed to undo what comes next.
  copy() {
    return structuredClone({ turns: this.turns, kv: this.kv, draft: this.draft });
  }

  restore(copy) {
    Object.assign(this, copy);
    this.save();
  }

  // Forgets `turn` and all after it.
  cut(turn) {
    const at = this.turns.indexOf(turn);
    this.turns = at < 0 ? this.turns : this.turns.slice(0, at);
    this.save();
  }

  clear() {
    this.restore({ turns: [], kv: null, draft: "" });
  }

  saveSoon() {
    this.#timer ??= setTimeout(() => this.save(), SAVE_MS);
  }

  // A tab in which nothing has changed leaves what another has kept.
  save() {
    clearTimeout(this.#timer);
    this.#timer = null;
    const text = this.#text();
    if (text === this.#kept) return;
    this.#kept = text;
    write(OWN, text);
    write(LAST, text);
  }

  #text() {
    return JSON.stringify({ turns: this.turns, kv: this.kv, draft: this.draft });
  }
}

function read(store) {
  try {
    return globalThis[store].getItem(KEPT);
  } catch {
    return null;
  }
}

function write(store, text) {
  try {
    globalThis[store].setItem(KEPT, text);
  } catch {
    // A full or forbidden store: the conversation goes on, and is lost with the tab.
  }
}
