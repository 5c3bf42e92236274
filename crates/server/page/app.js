// The page: who says what to whom.

import { answer } from "./answer.js";
import { Cache } from "./cache.js";
import { Conversation } from "./conversation.js";
import { Server } from "./server.js";
import { Settings } from "./settings.js";
import { Transcript } from "./transcript.js";
import { count, some } from "./words.js";

const element = (id) => document.getElementById(id);
const message = element("message");
const page = document.scrollingElement;
// Within this many pixels of the end the reader is at the end.
const NEAR = 80;
// An answer of up to so many characters is read aloud whole when it is there, a longer one only announced.
const ALOUD = 400;

const server = new Server(askKey);
const conversation = new Conversation();
const settings = new Settings();
const cache = new Cache();
const transcript = new Transcript(element("transcript"), { edit, retry, copy });
let model = null;
// The answer that streams: {stop(), ended}.
let running = null;
// What is to be said aloud at once.
const unsaid = [];
// Where the conversation was scrolled to when the settings unfolded.
let conversationTop = 0;

async function connect() {
  hush();
  try {
    model = await server.model();
    offer(await server.kv());
  } catch (error) {
    notify(error.message, "Try again", connect);
    return;
  }
  element("model").textContent = model.id;
  document.title = `${model.id} in sketchkv`;
  transcript.model(model);
  settings.chat(model.chat);
  if (!model.chat) {
    element("send").textContent = "Continue";
    element("message-label").textContent = "Text";
    message.placeholder = "Begin a text";
  }
  show();
}

function offer(kv) {
  settings.offer(kv);
  cache.memory(kv.memory);
}

function show() {
  transcript.show(conversation.turns);
  cache.show(conversation.kv);
  element("welcome").hidden = conversation.turns.length > 0 || !model;
  element("welcome").textContent = welcome();
}

function welcome() {
  if (!model) return "";
  const about = `${model.id} runs on this server and reads up to ${count(model.context)} tokens. Its memory of what was`
    + " said, the KV cache, stays within the bytes you give it; the bar shows what it takes.";
  return model.chat ? about : `${about} It is a base model: it does not answer, it goes on with the text that you begin.`;
}

// What is typed is sent; a base model may also just go on.
async function send() {
  if (!model) await connect();
  const content = message.value;
  const goesOn = model && !model.chat && conversation.turns.length > 0;
  if (!model || running || (content.trim() === "" && !goesOn)) return;
  message.value = "";
  conversation.draft = "";
  if (content.trim() !== "") conversation.add({ role: "user", content });
  await respond();
}

async function edit(turn, content) {
  await stop();
  const before = conversation.copy();
  conversation.cut(turn);
  conversation.add({ role: "user", content });
  const response = respond();
  element("stop").focus();
  undoable("What followed the message was replaced.", before);
  await response;
}

async function retry(turn) {
  await stop();
  const before = conversation.copy();
  conversation.cut(turn);
  const response = respond();
  element("stop").focus();
  undoable("The answer was replaced.", before);
  await response;
}

async function newChat() {
  await stop();
  const before = conversation.copy();
  conversation.clear();
  settings.forgive();
  hush();
  show();
  message.value = "";
  message.focus();
  if (before.turns.length > 0) undoable("A new chat has begun.", before);
}

function undoable(words, before) {
  notify(words, "Undo", async () => {
    await stop();
    hush();
    conversation.restore(before);
    message.value = conversation.draft;
    show();
    message.focus();
  });
}

async function stop() {
  running?.stop();
  await running?.ended;
}

// Lets the model answer the conversation as it stands.
async function respond() {
  hush();
  settings.forgive();
  const controller = new AbortController();
  const turns = [...conversation.turns];
  const turn = conversation.add({ role: "assistant", content: "", state: "streaming" });
  show();
  page.scrollTop = page.scrollHeight;
  const ended = stream(turn, turns, controller.signal);
  running = { stop: () => controller.abort(), ended };
  busy(true);
  say(model.chat ? "Answering." : "Writing.");
  await ended;
  running = null;
  busy(false);
  server.kv().then(({ memory }) => cache.memory(memory), () => {});
}

async function stream(turn, turns, signal) {
  const screen = new Screen(() => {
    transcript.update(turn);
    cache.show(conversation.kv);
  });
  const began = { at: 0 };
  let [state, aloud] = ["done", false];
  try {
    for await (const event of answer(server, model, turns, settings.fields(), signal)) {
      take(event, turn, began);
      state = event.finish === "length" ? "length" : state;
      screen.soon();
      conversation.saveSoon();
    }
  } catch (error) {
    state = signal.aborted ? "stopped" : "failed";
    aloud = !signal.aborted;
    if (aloud) fail(turn, error);
    if (signal.aborted) hush();
  }
  turn.state = state;
  screen.now(() => (aloud ? transcript.alarm(turn) : transcript.update(turn)));
  conversation.save();
  if (!aloud) say(ending(turn));
}

function take({ text, kv, usage, wait }, turn, began) {
  if (text) {
    began.at ||= performance.now();
    turn.content += text;
  }
  if (kv) conversation.kv = kv;
  if (usage) {
    turn.tokens = usage.completion_tokens;
    const seconds = (performance.now() - began.at) / 1000;
    // The first token came of the prompt; its time is not the others'.
    if (turn.tokens > 1 && seconds > 0) turn.rate = (turn.tokens - 1) / seconds;
  }
  if (wait !== undefined) waiting(wait);
}

function fail(turn, error) {
  turn.error = error.message;
  // The panel may be folded away where the screen is small.
  if (settings.blame(error)) panel(true);
}

function waiting(seconds) {
  if (seconds === 0) return hush();
  const aloud = element("notice").hidden;
  element("notice-words").textContent = `The server is full. Trying again in ${seconds} s.`;
  element("notice").hidden = false;
  element("notice-action").hidden = true;
  if (aloud) say(element("notice-words").textContent);
}

function ending(turn) {
  if (turn.state === "stopped") return "Stopped.";
  const text = transcript.textOf(turn).trim();
  return text.length <= ALOUD ? text : `The answer is complete: ${some(text.split(/\s+/).length, "word")}.`;
}

// Draws at most once a frame, and stays at the end if the reader is there.
class Screen {
  #draw;
  #frame = 0;

  constructor(draw) {
    this.#draw = draw;
  }

  soon() {
    this.#frame ||= requestAnimationFrame(() => this.now());
  }

  now(last = () => {}) {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const atEnd = page.scrollHeight - page.clientHeight - page.scrollTop < NEAR;
    this.#draw();
    last();
    if (atEnd) page.scrollTop = page.scrollHeight;
  }
}

function busy(is) {
  const stopping = document.activeElement === element("stop");
  element("stop").hidden = !is;
  element("send").hidden = is;
  // Focus is not lost with the button; where typing opens a keyboard over half of the screen, the answer has it.
  if (is || !stopping) return;
  if (matchMedia("(pointer: coarse)").matches) transcript.focus(conversation.turns.at(-1));
  else message.focus();
}

// A line above the message, with at most one thing to do about it.
function notify(words, label, act) {
  element("notice-words").textContent = words;
  element("notice-action").textContent = label;
  element("notice-action").hidden = false;
  element("notice-action").onclick = act;
  element("notice").hidden = false;
  say(words);
}

function hush() {
  element("notice").hidden = true;
}

// To those who listen. Emptied first, or the same words twice would be heard once; what comes at the same time is said together.
function say(words) {
  unsaid.push(words);
  element("announcer").textContent = "";
  setTimeout(() => {
    if (unsaid.length > 0) element("announcer").textContent = unsaid.splice(0).join(" ");
  }, 50);
}

async function copy(text, from) {
  const words = from.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    if (!copyOld(text)) return say("The browser does not let this page copy.");
  }
  say("Copied.");
  from.textContent = "Copied";
  setTimeout(() => { from.textContent = words; }, 1500);
}

// Without https a page has no clipboard but this: a phone that reads from the computer in the next room.
function copyOld(text) {
  const [focused, area] = [document.activeElement, document.createElement("textarea")];
  area.className = "hidden";
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return copied;
}

function askKey(refused) {
  const dialog = element("key-dialog");
  element("key").value = "";
  element("key-error").hidden = !refused;
  element("key-error").textContent = refused ? "The server did not take this key." : "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "use" ? element("key").value : null), { once: true });
  });
}

// Where the screen is small the settings unfold above the conversation, and fold back to where one was in it.
function panel(open) {
  element("panel-toggle").setAttribute("aria-expanded", open);
  document.body.classList.toggle("panel-open", open);
}

function togglePanel() {
  const open = !document.body.classList.contains("panel-open");
  if (open) conversationTop = page.scrollTop;
  panel(open);
  page.scrollTop = open ? 0 : conversationTop;
}

function listen() {
  element("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  message.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  message.addEventListener("input", () => {
    conversation.draft = message.value;
    conversation.saveSoon();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !element("key-dialog").open) stop();
  });
  element("stop").addEventListener("click", stop);
  element("new-chat").addEventListener("click", newChat);
  element("panel-toggle").addEventListener("click", togglePanel);
  element("to-end").addEventListener("click", () => {
    page.scrollTop = page.scrollHeight;
    message.focus({ preventScroll: true });
  });
  new IntersectionObserver(([end]) => { element("to-end").hidden = end.isIntersecting; }).observe(element("end"));
  element("key-cancel").addEventListener("click", () => element("key-dialog").close());
  // A reload stops the answer; it is no failure of the server's.
  addEventListener("pagehide", () => {
    running?.stop();
    conversation.save();
  });
}

listen();
message.value = conversation.draft;
show();
page.scrollTop = page.scrollHeight;
await connect();
page.scrollTop = page.scrollHeight;
