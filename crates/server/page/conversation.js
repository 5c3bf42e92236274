// The turns of a conversation, kept in the browser so that a reload loses nothing.
//
// A turn: {role, content}; an answer also has its state (streaming, done, length, stopped, failed), the error's words, how
// many tokens it took and how many a second.

const KEPT = "sketchkv.conversation";
// An answer that streams is saved this often.
const SAVE_MS = 500;

export class Conversation {
  turns = [];
  // What the cache held when the last answer ended.
  kv = null;
  // What is typed and not sent.
  draft = "";
  #timer = null;

  constructor() {
    try {
      Object.assign(this, JSON.parse(localStorage.getItem(KEPT)));
    } catch {
      // What cannot be read is no conversation.
    }
    if (!Array.isArray(this.turns)) this.turns = [];
    for (const turn of this.turns) if (turn.state === "streaming") turn.state = "stopped";
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

  save() {
    clearTimeout(this.#timer);
    this.#timer = null;
    try {
      localStorage.setItem(KEPT, JSON.stringify({ turns: this.turns, kv: this.kv, draft: this.draft }));
    } catch {
      // A full or forbidden store: the conversation goes on, and is lost with the tab.
    }
  }
}
