// What the cache takes and holds, as bars and in words.

import { bits, count, size, some } from "./words.js";

const element = (id) => document.getElementById(id);

export class Cache {
  #bytes = new Bar(element("cache-bytes"));
  #shares = new Bar(element("cache-shares"));
  #shown;

  // `kv`: what the server says of it, or null while there is nothing in it.
  show(kv) {
    if (kv === this.#shown) return;
    this.#shown = kv;
    element("cache-held").hidden = !kv;
    if (!kv) return this.#empty();
    const held = holds(kv);
    this.#size(kv, held);
    element("cache-full").textContent = besideFull(kv);
    element("cache-tokens").textContent = `${some(kv.tokens, "token")}:`;
    this.#shares.show(kv.tokens, held);
    element("cache-kinds").replaceChildren(...kinds(kv, held));
    element("cache-spec").textContent = kv.spec;
    element("cache-ledger").replaceChildren(...ledger(kv.ledger ?? {}));
  }

  memory({ used, limit }) {
    element("cache-memory").textContent = limit
      ? `All caches of this server: ${size(used)} of ${size(limit)}.`
      : `All caches of this server: ${size(used)}.`;
  }

  #empty() {
    element("cache-size").textContent = "empty";
    element("cache-full").textContent = "What the model remembers of the conversation. It fills as you talk.";
    element("cache-bytes").setAttribute("aria-valuenow", 0);
    element("cache-bytes").setAttribute("aria-valuetext", "empty");
    this.#bytes.show(1, {});
  }

  // Of the cap if there is one, else of what an uncompressed cache would take.
  #size({ bytes, cap, full_bytes: full, tokens }, held) {
    const words = cap ? `${size(bytes)} of ${size(cap)}` : size(bytes);
    const scale = Math.max(cap ?? full, bytes, 1);
    const exact = Math.min(bytes, tokens > 0 ? (held.exact * full * (held.exact_bits / 16)) / tokens : 0);
    element("cache-size").textContent = words;
    const meter = element("cache-bytes");
    meter.setAttribute("aria-valuemax", scale);
    meter.setAttribute("aria-valuenow", bytes);
    meter.setAttribute("aria-valuetext", words);
    this.#bytes.show(scale, { exact, coded: bytes - exact });
  }
}

// Parts side by side, each as long as its share of `scale`.
class Bar {
  #parts = {};

  constructor(root) {
    for (const kind of ["exact", "coded", "evicted"]) {
      const part = document.createElement("span");
      part.className = kind;
      root.append(part);
      this.#parts[kind] = part;
    }
  }

  show(scale, amounts) {
    for (const [kind, part] of Object.entries(this.#parts)) {
      const share = (amounts[kind] ?? 0) / Math.max(scale, 1);
      part.style.width = `${(100 * share).toFixed(2)}%`;
    }
  }
}

// Tokens as they are held: means over the heads, so rounded such that they add up.
function holds({ tokens, kept, exact, exact_bits }) {
  const [all, some, whole] = [tokens, Math.min(kept, tokens), Math.min(exact, kept)].map(Math.round);
  return { exact: whole, exact_bits, coded: some - whole, evicted: all - some };
}

function besideFull({ bytes, full_bytes: full }) {
  const share = full > 0 ? `, of which this is ${count((100 * bytes) / full)}\u00a0%` : "";
  return `An uncompressed cache would take ${size(full)}${share}.`;
}

function kinds({ key_bits: keys, value_bits: values }, held) {
  const [k, v] = [bits(keys ?? 0), bits(values ?? 0)];
  const coded = k === v ? `${k} bits a number` : `${k} bits (keys) and ${v} (values)`;
  return [
    item("exact", `${count(held.exact)} first and newest, in ${bits(held.exact_bits)} bits a number`),
    item("coded", held.coded > 0 ? `${count(held.coded)} in ${coded}` : "none in fewer bits"),
    item("evicted", held.evicted > 0 ? `${count(held.evicted)} evicted` : "none evicted"),
  ];
}

function item(kind, words) {
  const line = document.createElement("li");
  line.className = kind;
  line.textContent = words;
  return line;
}

function ledger(items) {
  return Object.entries(items).map(([name, bytes]) => {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = name.replaceAll("_", " ");
    const cell = document.createElement("td");
    cell.className = "number";
    cell.textContent = count(bytes);
    row.append(head, cell);
    return row;
  });
}
