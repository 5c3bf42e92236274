// Markdown to DOM nodes, as it streams in. What a model writes becomes text nodes and nothing else, so that none of it can
// become markup of its own. Blocks are read here; what stands within a line, in inline.js.

import { inline } from "./inline.js";

// Lists in quotes in lists: deeper than any answer needs, and a bound on what the browser must lay out.
const DEPTH = 8;

const blank = (line) => line.trim() === "";
const indentOf = (line) => line.length - line.trimStart().length;
const make = (tag, ...children) => {
  const element = document.createElement(tag);
  element.append(...children);
  return element;
};

// Shows a text in `root`, again and again as it grows. Blocks that have not changed keep their nodes, and with them the
// reader's selection, focus and place in a wide table.
export class Markdown {
  #root;
  #shown = [];

  constructor(root) {
    this.#root = root;
  }

  // `open`: more is to come, so what is begun and not ended counts as ended here.
  update(text, open = false) {
    const blocks = read(text.replaceAll("\t", "    ").split("\n"), 0);
    if (open && blocks.length) blocks.at(-1).open = true;
    const same = (a, b) => b !== undefined && a.source === b.source && a.kind === b.kind && !a.open === !b.open;
    let kept = 0;
    while (kept < this.#shown.length && same(this.#shown[kept], blocks[kept])) kept += 1;
    const old = this.#shown.splice(kept);
    for (const block of blocks.slice(kept)) {
      block.node = follow(old.shift(), block) ?? block.build(block.open);
      if (!block.node.parentNode) this.#root.insertBefore(block.node, old[0]?.node ?? null);
      this.#shown.push(block);
    }
    for (const { node } of old) node.remove();
  }
}

// A code block or a thought that grows stays the node it was; any other old node goes, and null tells to build a new one.
function follow(old, block) {
  if (!old) return null;
  if (old.kind === block.kind && block.grow?.(old.node, block.open)) return old.node;
  old.node.remove();
  return null;
}

// The blocks of `lines`: each with its `kind`, its `source`, and how to `build` it.
function read(lines, depth) {
  const blocks = [];
  for (let at = 0; at < lines.length; ) {
    if (blank(lines[at])) {
      at += 1;
      continue;
    }
    const block = readBlock(lines, at, depth) ?? readParagraph(lines, at, depth);
    blocks.push({ ...block, source: lines.slice(at, block.end).join("\n") });
    at = block.end;
  }
  return blocks;
}

function build(lines, depth, open) {
  const blocks = read(lines, depth);
  return blocks.map((block, i) => block.build(open && i === blocks.length - 1));
}

function readBlock(lines, at, depth) {
  return readThought(lines, at, depth) ?? readFence(lines, at) ?? readHeading(lines, at) ?? readRule(lines, at)
    ?? (depth < DEPTH ? readQuote(lines, at, depth) ?? readList(lines, at, depth) : null) ?? readTable(lines, at);
}

// Some models think aloud before they answer: folded away, there for whoever wants to read it.
function readThought(lines, at, depth) {
  if (depth > 0 || !lines[at].startsWith("<think>")) return null;
  let end = at;
  while (end < lines.length && !lines[end].includes("</think>")) end += 1;
  const closed = end < lines.length;
  const inside = lines.slice(at, closed ? end + 1 : end).join("\n").replace("<think>", "");
  const thought = (closed ? inside.slice(0, inside.indexOf("</think>")) : inside).split("\n");
  const after = closed ? lines[end].slice(lines[end].indexOf("</think>") + 8) : "";
  // What follows on the same line is put on one of its own, for the next block to be read from.
  if (!blank(after)) lines.splice(end, 1, lines[end].slice(0, -after.length), after);
  return {
    kind: "thought",
    end: Math.min(end + 1, lines.length),
    build: (open) => {
      const details = make("details", make("summary", "Thought"), ...build(thought, 1, open));
      details.className = "thought";
      return details;
    },
    grow: (node, open) => {
      node.replaceChildren(node.firstChild, ...build(thought, 1, open));
      return true;
    },
  };
}

function readFence(lines, at) {
  const opening = /^( *)(`{3,}|~{3,})\s*([^`]*)$/.exec(lines[at]);
  if (!opening) return null;
  const [, indent, fence, info] = opening;
  const closes = (line) => {
    const mark = line.trim();
    return mark.length >= fence.length && mark.replaceAll(fence[0], "") === "";
  };
  let end = at + 1;
  while (end < lines.length && !closes(lines[end])) end += 1;
  const text = lines.slice(at + 1, end).map((line) => line.slice(Math.min(indentOf(line), indent.length))).join("\n");
  const language = info.trim().split(/\s/)[0];
  return {
    kind: `code ${language}`,
    end: Math.min(end + 1, lines.length),
    build: () => codeBlock(text, language),
    grow: (node) => {
      node.querySelector("code").textContent = text;
      return true;
    },
  };
}

// The button copies by an event that the transcript listens to: this file knows nothing of clipboards.
function codeBlock(text, language) {
  const copy = make("button", "Copy");
  copy.type = "button";
  copy.dataset.copy = "code";
  copy.setAttribute("aria-label", language ? `Copy the ${language} code` : "Copy the code");
  const pre = make("pre", make("code", text));
  pre.tabIndex = 0;
  pre.setAttribute("role", "group");
  pre.setAttribute("aria-label", language ? `Code, ${language}` : "Code");
  const figure = make("div", make("div", make("span", language), copy), pre);
  figure.className = "code-block";
  return figure;
}

function readHeading(lines, at) {
  const found = /^ {0,3}(#{1,6})(\s.*)?$/.exec(lines[at]);
  if (!found) return null;
  const text = (found[2] ?? "").trim().replace(/(^|\s)#+$/, "");
  // The page's own headings are the first three levels.
  const tag = `h${Math.min(found[1].length + 3, 6)}`;
  return { kind: "heading", end: at + 1, build: (open) => make(tag, ...inline(text, open)) };
}

function readRule(lines, at) {
  if (!/^ {0,3}([-*_])(\s*\1){2,}\s*$/.test(lines[at])) return null;
  return { kind: "rule", end: at + 1, build: () => make("hr") };
}

function readQuote(lines, at, depth) {
  const mark = /^ {0,3}> ?/;
  if (!mark.test(lines[at])) return null;
  let end = at;
  while (end < lines.length && mark.test(lines[end])) end += 1;
  const inside = lines.slice(at, end).map((line) => line.replace(mark, ""));
  return { kind: "quote", end, build: (open) => make("blockquote", ...build(inside, depth + 1, open)) };
}

// Indent, mark and text of a list item's first line; null for any other line.
function itemOf(line) {
  const found = /^( *)([-*+]|\d{1,9}[.)])(?: +(.*)|)$/.exec(line);
  if (!found) return null;
  const [, indent, mark, text = ""] = found;
  const number = parseInt(mark, 10);
  return { indent: indent.length, inner: indent.length + mark.length + 1, number, ordered: !Number.isNaN(number), text };
}

function readList(lines, at, depth) {
  const first = itemOf(lines[at]);
  if (!first) return null;
  const items = [];
  let end = at;
  for (let item = first; item && item.ordered === first.ordered && !readRule(lines, end); ) {
    const next = itemEnd(lines, end, item);
    items.push([item.text, ...lines.slice(end + 1, next).map((line) => line.slice(Math.min(indentOf(line), item.inner)))]);
    end = next;
    while (end < lines.length && blank(lines[end])) end += 1;
    item = end < lines.length ? itemOf(lines[end]) : null;
    // Blank lines after the last item are not the list's.
    if (!item || item.ordered !== first.ordered) end = next;
  }
  return {
    kind: "list",
    end,
    build: (open) => {
      const list = make(first.ordered ? "ol" : "ul");
      if (first.ordered && first.number !== 1) list.start = first.number;
      items.forEach((item, i) => list.append(make("li", ...build(item, depth + 1, open && i === items.length - 1))));
      return list;
    },
  };
}

// The line after an item: models indent what is nested by two, three or four spaces, so two are enough; a line right below
// that begins nothing of its own goes on with the item's text.
function itemEnd(lines, at, item) {
  const nested = Math.min(item.inner, item.indent + 2);
  let end = at + 1;
  for (let i = at + 1; i < lines.length; i += 1) {
    if (blank(lines[i])) continue;
    const goesOn = end === i && !itemOf(lines[i]) && !begins(lines, i);
    if (indentOf(lines[i]) < nested && !goesOn) break;
    end = i + 1;
  }
  return end;
}

function cellsOf(line) {
  const cells = line.trim().replace(/^\|/, "").split(/(?<!\\)\|/);
  if (cells.length > 1 && blank(cells.at(-1))) cells.pop();
  return cells.map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function readTable(lines, at) {
  if (!lines[at].includes("|") || !lines[at + 1]?.includes("|")) return null;
  const [head, marks] = [cellsOf(lines[at]), cellsOf(lines[at + 1])];
  if (head.length !== marks.length || !marks.every((mark) => /^:?-+:?$/.test(mark))) return null;
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|")) end += 1;
  const rows = lines.slice(at + 2, end).map(cellsOf);
  const align = marks.map((mark) => (mark.endsWith(":") ? (mark.startsWith(":") ? "center" : "right") : "left"));
  return { kind: "table", end, build: (open) => table(head, rows, align, open) };
}

function table(head, rows, align, open) {
  const cell = (tag, text, column, last) => {
    const element = make(tag, ...inline(text ?? "", open && last));
    if (tag === "th") element.scope = "col";
    element.className = align[column];
    return element;
  };
  const line = (tag, cells, last) => make("tr", ...head.map((_, i) => cell(tag, cells[i], i, last && i === cells.length - 1)));
  const body = rows.map((row, i) => line("td", row, i === rows.length - 1));
  const scroll = make("div", make("table", make("thead", line("th", head, false)), make("tbody", ...body)));
  scroll.className = "scroll";
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "group");
  scroll.setAttribute("aria-label", "Table");
  return scroll;
}

// Whether a block that may follow a paragraph's line without a blank one between begins here.
function begins(lines, at) {
  const item = itemOf(lines[at]);
  if (item) return item.text !== "" && (!item.ordered || item.number === 1);
  return Boolean(readFence([lines[at]], 0) ?? readHeading(lines, at) ?? readRule(lines, at) ?? readTable(lines, at))
    || /^ {0,3}>/.test(lines[at]);
}

// Every line of a paragraph is a line: chat has verses and addresses more often than text of fixed width.
function readParagraph(lines, at) {
  let end = at + 1;
  while (end < lines.length && !blank(lines[end]) && !begins(lines, end)) end += 1;
  const text = lines.slice(at, end).map((line) => line.trim()).join("\n");
  return { kind: "paragraph", end, build: (open) => make("p", ...inline(text, open)) };
}
