// How the next answer is made: the cache's spec and cap, instruction, sampling. Kept in the browser.

const KEPT = "sketchkv.settings";
const MIB = 2 ** 20;
const CAPS = [8, 16, 32, 64, 128, 256];
const OWN = "own";
// Field of a request → the input that it comes from.
const INPUTS = {
  kv: "spec", kv_bytes: "cap", messages: "system", temperature: "temperature", max_tokens: "max-tokens", seed: "seed",
};
const TYPED = ["spec", "cap", "cap-mebibytes", "system", "temperature", "max-tokens", "seed"];

const element = (id) => document.getElementById(id);
const numberIn = (id) => (element(id).value === "" ? undefined : element(id).valueAsNumber);

export class Settings {
  #form = element("settings");
  #chosen = "";

  constructor() {
    element("cap").append(
      new Option("no cap", ""), ...CAPS.map((cap) => new Option(`${cap} MiB`, cap)), new Option("another number", OWN));
    this.#load();
    this.#form.addEventListener("input", (event) => this.#changed(event));
    this.#form.addEventListener("submit", (event) => event.preventDefault());
  }

  // What the server offers: {default, presets: [{spec, words}]}.
  offer({ default: first, presets }) {
    const known = presets.some(({ spec }) => spec === first);
    const offers = known ? [...presets] : [{ spec: first, words: "as this server was started" }, ...presets];
    const kept = offers.some(({ spec }) => spec === this.#chosen) || this.#chosen === OWN;
    if (!kept) this.#chosen = first;
    offers.push({ spec: OWN, words: "a spec of your own" });
    element("presets").replaceChildren(...offers.map((offer) => this.#radio(offer)));
    this.#show();
  }

  // A base model takes no instruction.
  chat(chat) {
    element("instruction").hidden = !chat;
  }

  // The fields of a request. What is empty is left to the server.
  fields() {
    const cap = element("cap").value === OWN ? numberIn("cap-mebibytes") : Number(element("cap").value);
    return {
      kv: this.#spec() || undefined,
      kv_bytes: cap > 0 ? Math.round(cap * MIB) : undefined,
      system: element("system").value.trim() || undefined,
      temperature: numberIn("temperature"),
      max_tokens: numberIn("max-tokens"),
      seed: numberIn("seed"),
    };
  }

  // Puts an error of the server beside the input that is to blame; false if none is.
  blame({ param, message }) {
    const input = INPUTS[param];
    if (!input || (input === "system" && element("system").value === "")) return false;
    const place = input === "spec" && this.#chosen !== OWN ? "specs" : input;
    element(place).setAttribute("aria-invalid", "true");
    element(`${input}-error`).textContent = message;
    element(`${input}-error`).hidden = false;
    element(place).closest("details")?.setAttribute("open", "");
    return true;
  }

  forgive() {
    for (const invalid of this.#form.querySelectorAll("[aria-invalid]")) invalid.removeAttribute("aria-invalid");
    for (const error of this.#form.querySelectorAll(".error")) error.hidden = true;
  }

  #spec() {
    return this.#chosen === OWN ? element("spec").value.trim() : this.#chosen;
  }

  #radio({ spec, words }) {
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "preset", value: spec, checked: spec === this.#chosen });
    const text = document.createElement("span");
    if (spec !== OWN) {
      const code = document.createElement("code");
      code.textContent = spec;
      text.append(code, " ");
    }
    text.append(words);
    const label = document.createElement("label");
    label.className = "choice";
    label.append(input, text);
    return label;
  }

  #changed({ target }) {
    if (target.name === "preset") this.#chosen = target.value;
    this.forgive();
    this.#show();
    this.#save();
  }

  #show() {
    element("own-spec").hidden = this.#chosen !== OWN;
    element("own-cap").hidden = element("cap").value !== OWN;
    element("cap").options[0].text = this.#spec().includes("@") ? "as the spec says" : "no cap";
  }

  #load() {
    let kept = {};
    try {
      kept = JSON.parse(localStorage.getItem(KEPT)) ?? {};
    } catch {
      // What cannot be read was never chosen.
    }
    for (const id of TYPED) if (typeof kept[id] === "string") element(id).value = kept[id];
    if (!element("cap").value) element("cap").value = "";
    this.#chosen = kept.preset ?? "";
    this.#show();
  }

  #save() {
    const kept = Object.fromEntries(TYPED.map((id) => [id, element(id).value]));
    try {
      localStorage.setItem(KEPT, JSON.stringify({ ...kept, preset: this.#chosen }));
    } catch {
      // As with the conversation: it goes on without being kept.
    }
  }
}
