// What stands within a block of Markdown: emphasis, code, links. The delimiters are paired as CommonMark says.

// More marks than this in one block are no emphasis; a bound on the work, and on how deep elements nest.
const MARKS = 400;
const SPECIAL = /[\\`*_~[\]!<\n]|https?:\/\//g;
const TAGS = { "*": ["em", "strong"], _: ["em", "strong"], "~": [null, "del"] };

// The nodes of `text`. `open`: the text is not complete, so that bold or code begun and not ended reaches to its end.
export function inline(text, open = false) {
  const line = new Line(open ? text.replace(/[*_~`]{1,3}$/, "") : text, open);
  line.read();
  return [...line.nodes.childNodes];
}

// The address if it is one that a link may have, else null. Scripts, files and data are never linked.
export function address(text) {
  try {
    const { protocol, href } = new URL(text);
    return ["http:", "https:", "mailto:"].includes(protocol) ? href : null;
  } catch {
    return null;
  }
}

function link(href, ...children) {
  const element = document.createElement("a");
  element.href = href;
  element.rel = "noopener noreferrer";
  element.target = "_blank";
  element.append(...children);
  // No link within a link.
  for (const inner of element.querySelectorAll("a")) inner.replaceWith(...inner.childNodes);
  if (element.textContent === "") element.append(href);
  if (element.textContent !== href) element.title = href;
  return element;
}

class Line {
  nodes = document.createDocumentFragment();
  #text;
  #open;
  #at = 0;
  #marks = [];
  #brackets = [];
  #ticks;

  constructor(text, open) {
    this.#text = text;
    this.#open = open;
  }

  read() {
    while (this.#at < this.#text.length) {
      SPECIAL.lastIndex = this.#at;
      const next = SPECIAL.exec(this.#text)?.index ?? this.#text.length;
      if (next > this.#at) this.#say(this.#text.slice(this.#at, next));
      this.#at = next;
      if (next < this.#text.length) this.#special(this.#text[next]);
    }
    pair(this.#marks, 0);
    if (this.#open) this.#close();
  }

  #special(mark) {
    if (mark === "\\") return this.#escape();
    if (mark === "`") return this.#code();
    if (mark === "[") return this.#bracket("[");
    if (mark === "!") return this.#text[this.#at + 1] === "[" ? this.#bracket("![") : this.#take(1);
    if (mark === "]") return this.#link();
    if (mark === "<") return this.#angle();
    if (mark === "\n") return this.#break();
    return mark === "h" ? this.#bare() : this.#mark(mark);
  }

  #say(text) {
    const node = document.createTextNode(text);
    this.nodes.append(node);
    return node;
  }

  // The next `length` characters stand for themselves.
  #take(length) {
    this.#at += length;
    return this.#say(this.#text.slice(this.#at - length, this.#at));
  }

  // The match of a sticky expression here, which is then passed over.
  #match(expression) {
    expression.lastIndex = this.#at;
    const found = expression.exec(this.#text);
    if (found) this.#at += found[0].length;
    return found;
  }

  #escape() {
    const next = this.#text[this.#at + 1] ?? "";
    if (next === "\n") this.#at += 1;
    else if (/[!-/:-@[-`{-~]/.test(next)) {
      this.#at += 2;
      this.#say(next);
    } else this.#take(1);
  }

  #break() {
    this.#at += 1;
    this.nodes.append(document.createElement("br"));
  }

  #code() {
    const run = /`+/y;
    run.lastIndex = this.#at;
    const length = run.exec(this.#text)[0].length;
    const from = this.#at + length;
    const end = this.#closing(length, from) ?? (this.#open ? this.#text.length : null);
    if (end === null) return this.#take(length);
    const code = document.createElement("code");
    const inside = this.#text.slice(from, end).replaceAll("\n", " ");
    code.textContent = /^ .*[^ ].* $/.test(inside) ? inside.slice(1, -1) : inside;
    this.nodes.append(code);
    this.#at = Math.min(end + length, this.#text.length);
    return code;
  }

  // Where the next run of just so many backticks begins. All runs are found once: a line of them stays cheap.
  #closing(length, from) {
    this.#ticks ??= Map.groupBy([...this.#text.matchAll(/`+/g)], (run) => run[0].length);
    const runs = this.#ticks.get(length) ?? [];
    while (runs.length && runs[0].index < from) runs.shift();
    return runs[0]?.index ?? null;
  }

  #mark(mark) {
    let end = this.#at;
    while (this.#text[end] === mark) end += 1;
    const length = end - this.#at;
    const [before, after] = [this.#text[this.#at - 1] ?? " ", this.#text[end] ?? " "];
    const node = this.#take(length);
    if (length > 3 || (mark === "~" && length !== 2) || this.#marks.length >= MARKS) return;
    const space = (c) => /\s/.test(c);
    const sign = (c) => /[\p{P}\p{S}]/u.test(c);
    const left = !space(after) && (!sign(after) || space(before) || sign(before));
    const right = !space(before) && (!sign(before) || space(after) || sign(after));
    // Underscores within a word are part of its name.
    const opens = left && (mark !== "_" || !right || sign(before));
    const closes = right && (mark !== "_" || !left || sign(after));
    this.#marks.push({ mark, node, opens, closes, both: opens && closes, length, left: length });
  }

  #bracket(mark) {
    this.#brackets.push({ node: this.#take(mark.length), image: mark === "![", marks: this.#marks.length, from: this.#at });
  }

  // An image is a link to it: this page loads nothing from elsewhere.
  #link() {
    const opening = this.#brackets.pop();
    const text = opening ? this.#text.slice(opening.from, this.#at) : "";
    this.#at += 1;
    const to = opening && this.#match(
      /\(\s*(?:<([^<>\n]*)>|([^\s()<>]*(?:\([^\s()<>]*\)[^\s()<>]*)*))(?:\s+(?:"[^"\n]*"|'[^'\n]*'))?\s*\)/y);
    if (!to) return this.#say("]");
    pair(this.#marks, opening.marks);
    this.#marks.length = opening.marks;
    const inside = [];
    for (let node = opening.node.nextSibling; node; node = node.nextSibling) inside.push(node);
    const href = address(to[1] ?? to[2]);
    // What may not be linked keeps its text.
    opening.node.replaceWith(...(href ? [link(href, ...inside)] : text === "" ? ["[]"] : []));
    if (!opening.image && href) this.#brackets = this.#brackets.filter((bracket) => bracket.image);
    return null;
  }

  #angle() {
    const found = this.#match(/<(?:((?:https?|mailto):[^\s<>]+)|br ?\/?)>/y);
    if (!found) return this.#take(1);
    const href = found[1] && address(found[1]);
    if (found[1] === undefined) this.nodes.append(document.createElement("br"));
    else if (href) this.nodes.append(link(href, found[1]));
    else this.#say(found[0]);
    return null;
  }

  #bare() {
    const before = this.#text[this.#at - 1] ?? " ";
    const found = this.#match(/https?:\/\/[^\s<>"'`\\*|]*/y)[0];
    // The stop of the sentence, and the bracket around it, are not the address's.
    let url = found.replace(/[.,:;!?_~\]]{1,9}$/, "");
    if (url.endsWith(")") && !url.includes("(")) url = url.replace(/\)+[.,:;!?]*$/, "");
    this.#at -= found.length - url.length;
    const href = /\w/.test(before) ? null : address(url);
    this.nodes.append(href ? link(href, url) : url);
  }

  // Of text still to come, bold that has begun is bold already.
  #close() {
    const opener = this.#marks.find((mark) => mark.opens && mark.left === 2 && mark.node.nextSibling);
    if (opener) wrap(opener, null, 2);
  }
}

// Pairs the marks from index `bottom` on, closers in order, each with the nearest opener before it.
function pair(marks, bottom) {
  for (let i = bottom; i < marks.length; i += 1) {
    while (marks[i].closes && marks[i].left > 0) {
      let j = i - 1;
      while (j >= bottom && !fits(marks[j], marks[i])) j -= 1;
      if (j < bottom) break;
      wrap(marks[j], marks[i], Math.min(2, marks[j].left, marks[i].left));
      for (const between of marks.slice(j + 1, i)) between.left = 0;
    }
  }
}

function fits(opener, closer) {
  if (opener.mark !== closer.mark || !opener.opens || opener.left === 0) return false;
  if (opener.mark === "~") return opener.left === 2 && closer.left === 2;
  // CommonMark's rule of three, for runs that could do either.
  return !(opener.both || closer.both) || (opener.length + closer.length) % 3 !== 0
    || (opener.length % 3 === 0 && closer.length % 3 === 0);
}

// Puts what stands between the two marks into an element, and takes `size` characters from either.
function wrap(opener, closer, size) {
  const element = document.createElement(TAGS[opener.mark][size - 1]);
  for (let node = opener.node.nextSibling; node && node !== closer?.node; ) {
    const next = node.nextSibling;
    element.append(node);
    node = next;
  }
  opener.node.after(element);
  for (const side of closer ? [opener, closer] : [opener]) {
    side.left -= size;
    side.node.data = side.node.data.slice(size);
  }
}
