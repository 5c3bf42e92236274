// The conversation as it is read: an article for each turn, with what can be done to it.

import { Markdown } from "./markdown.js";
import { count, some } from "./words.js";

const make = (tag, className, ...children) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
};

function button(words, label, act, className = "") {
  const element = make("button", className, words);
  element.type = "button";
  if (label) element.setAttribute("aria-label", label);
  element.addEventListener("click", act);
  return element;
}

export class Transcript {
  #root;
  #act;
  #views = new Map();
  // What the model is called, and whether its text is Markdown: a base model's is whatever it goes on with.
  #name = "Model";
  #chat = true;

  // `act`: {edit(turn, content), retry(turn), copy(text)}.
  constructor(root, act) {
    this.#root = root;
    this.#act = act;
    root.addEventListener("click", ({ target }) => {
      if (target.dataset.copy === "code") act.copy(target.closest(".code-block").querySelector("code").textContent, target);
    });
  }

  model({ id, chat }) {
    [this.#name, this.#chat] = [id, chat];
    const turns = [...this.#views.keys()];
    this.show([]);
    this.show(turns);
  }

  // Makes the articles those of `turns`.
  show(turns) {
    for (const [turn, view] of this.#views) {
      if (turns.includes(turn)) continue;
      view.article.remove();
      this.#views.delete(turn);
    }
    for (const turn of turns) {
      if (this.#views.has(turn)) continue;
      const view = turn.role === "user" ? new Question(turn, this.#act) : new Answer(turn, this.#name, this.#chat, this.#act);
      this.#views.set(turn, view);
      this.#root.append(view.article);
    }
  }

  // Shows what has changed in an answer.
  update(turn) {
    this.#views.get(turn)?.update();
  }

  // Shows an answer's error, aloud.
  alarm(turn) {
    this.#views.get(turn)?.update(true);
  }

  textOf(turn) {
    return this.#views.get(turn)?.body.textContent ?? "";
  }

  focus(turn) {
    this.#views.get(turn)?.article.focus();
  }
}

class Question {
  article = make("article", "turn question");
  body = make("div", "body");
  #actions;

  constructor(turn, act) {
    this.turn = turn;
    this.act = act;
    this.article.tabIndex = -1;
    this.article.setAttribute("aria-label", "You");
    this.#actions = make("div", "actions", button("Edit", "Edit this message", () => this.#edit()));
    this.article.append(make("h3", "hidden", "You"), this.body, this.#actions);
    this.#show();
  }

  update() {}

  #show() {
    this.body.replaceChildren(this.turn.content);
    this.#actions.hidden = false;
  }

  #edit() {
    const text = make("textarea");
    Object.assign(text, { value: this.turn.content, rows: 3 });
    text.setAttribute("aria-label", "Your message");
    const cancel = () => {
      this.#show();
      this.#actions.firstChild.focus();
    };
    const send = make("button", "primary", "Send again");
    const form = make("form", "edit", text, make("div", "buttons", button("Cancel", null, cancel), send));
    const submit = () => (text.value.trim() === "" ? text.focus() : this.act.edit(this.turn, text.value));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      submit();
    });
    text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        submit();
      } else if (event.key === "Escape") {
        // Here it ends the edit, not the answer that may be streaming.
        event.stopPropagation();
        cancel();
      }
    });
    this.#actions.hidden = true;
    this.body.replaceChildren(form);
    text.focus();
    text.setSelectionRange(text.value.length, text.value.length);
  }
}

class Answer {
  article = make("article", "turn answer");
  body = make("div", "body");
  #markdown;
  #error = make("p", "error");
  #foot = make("p", "soft");
  #copy;
  #actions;

  constructor(turn, name, chat, act) {
    this.turn = turn;
    this.#markdown = chat ? new Markdown(this.body) : null;
    this.body.classList.toggle("plain", !chat);
    this.article.tabIndex = -1;
    this.article.setAttribute("aria-label", name);
    this.#copy = button("Copy", "Copy this answer", ({ target }) => act.copy(this.turn.content, target));
    const retry = button("Retry", "Retry this answer", () => act.retry(this.turn));
    this.#actions = make("div", "actions", this.#foot, retry, this.#copy);
    this.article.append(make("h3", "speaker", name), this.body, this.#error, this.#actions);
    this.update();
  }

  update(aloud = false) {
    const { content, state, error } = this.turn;
    const streaming = state === "streaming";
    if (this.#markdown) this.#markdown.update(content, streaming);
    else if (this.body.textContent !== content) this.body.textContent = content;
    this.article.setAttribute("aria-busy", streaming);
    this.article.classList.toggle("waiting", streaming && content === "");
    this.#error.hidden = state !== "failed";
    if (aloud) this.#error.setAttribute("role", "alert");
    if (this.#error.textContent !== (error ?? "")) this.#error.textContent = error ?? "";
    this.#foot.textContent = notes(this.turn);
    this.#copy.hidden = content === "";
    this.#actions.hidden = streaming;
  }
}

// "120 tokens, 37 a second. Stopped."
function notes({ state, tokens, rate }) {
  const took = tokens ? [`${some(tokens, "token")}${rate ? `, ${count(rate)} a second` : ""}.`] : [];
  if (state === "stopped") took.push("Stopped.");
  if (state === "length") took.push("Ended at the limit of tokens.");
  return took.join(" ");
}
