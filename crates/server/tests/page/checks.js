// What must hold of the page in a browser. Evaluated in it (DevTools' Runtime.evaluate, awaited), beside a real server; the
// value is "reload" (reload, then evaluate this again), "passed", or what is wrong. Each run wants a browser context of its
// own. The server's errors are played by a `fetch` of our own: no test can wait until a server is full.
(async () => {
  "use strict";
  const wrong = JSON.parse(sessionStorage.getItem("wrong") ?? "[]");
  const check = (holds, what) => holds || wrong.push(what);
  const one = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const last = (selector) => all(selector).at(-1);
  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const shown = (element) => Boolean(element?.offsetParent);
  const text = (selector) => last(selector)?.innerText ?? "";

  async function until(holds, what, ms = 20000) {
    for (const end = Date.now() + ms; Date.now() < end; await pause(10)) if (holds()) return;
    throw new Error(`waited in vain until ${what}`);
  }
  const press = (target, key, more = {}) =>
    target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...more }));
  function set(input, value) {
    input.value = value;
    input.dispatchEvent(new Event("input", { bubbles: true }));
  }
  const answered = () => until(() => shown(one("#send")) && one(".answer") && !one("[aria-busy=true]"), "the answer ends");
  async function say(words) {
    set(one("#message"), words);
    press(one("#message"), "Enter");
    await until(() => one(".question") && !shown(one("#send")), "an answer begins");
  }

  // A server of our own for one exchange: `parts` are what it streams, and it hangs after them if it never ends.
  const real = globalThis.fetch;
  const event = (data) => `data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`;
  const words = (content) => event({ choices: [{ index: 0, delta: { content }, text: content, finish_reason: null }] });
  const end = event({ choices: [{ index: 0, delta: {}, text: "", finish_reason: "stop" }] }) + event("[DONE]");
  function stream(parts, { ends = true, signal } = {}) {
    return new Response(new ReadableStream({
      start(controller) {
        for (const part of parts) controller.enqueue(new TextEncoder().encode(part));
        if (ends) controller.close();
        signal?.addEventListener("abort", () => controller.error(signal.reason));
      },
    }));
  }
  const refusal = (status, message, { param = null, ...headers } = {}) =>
    new Response(JSON.stringify({ error: { message, type: "t", param, code: null } }), { status, headers });
  // `replies`: one for each exchange that follows, a function of the request's options.
  function pretend(...replies) {
    globalThis.fetch = async (path, options = {}) =>
      (options.method === "POST" && replies.length > 0 ? replies.shift()(options) : real(path, options));
  }

  // With the real server.
  async function talks() {
    await until(() => one("#model").textContent !== "" && one(".choice"), "the page knows its model");
    set(one("#max-tokens"), "16");
    set(one("#temperature"), "0");
    await say("The sea is");
    await answered();
    check(text(".answer .body").trim() !== "", "an answer streams");
    check(shown(one("#cache-size")) && /\d (B|KiB|MiB)/.test(text("#cache-size").replace("\u00a0", " ")), "the cache is in words");
    check(Number(one("#cache-bytes").getAttribute("aria-valuenow")) > 0, "the bar has a value");
    // What is shown of the cache waits for the next frame.
    await until(() => one("#cache-bytes .exact").offsetWidth + one("#cache-bytes .coded").offsetWidth > 0, "the bar is drawn");
    check(all("#cache-ledger tr").length > 0 && all("#cache-kinds li").length === 3, "the ledger and the kinds are listed");
    check(/\d tokens?[,.]/.test(text(".answer .actions")), "the answer's tokens are counted");
    const first = text(".answer .body");
    last(".answer .actions button").previousElementSibling.click();
    await until(() => one("[aria-busy=true]"), "it is answered again");
    check(document.activeElement.id === "stop", "focus goes to Stop");
    await answered();
    check(text(".answer .body") === first && all(".turn").length === 2, "at temperature 0 a retry is the same");
    one(".question .actions button").click();
    set(document.activeElement, "The land is");
    press(document.activeElement, "Enter");
    await until(() => text(".question") !== "" && one("[aria-busy=true]"), "the edit is answered");
    await answered();
    check(one(".question .body").innerText === "The land is" && all(".turn").length === 2, "an edit goes on from there");
    one("#notice-action").click();
    await until(() => one(".question .body").innerText === "The sea is", "an edit is undone");
    set(one("#cap"), "own");
    set(one("#cap-mebibytes"), "4");
    await say("And then");
    await answered();
    await until(() => text("#cache-size").replaceAll("\u00a0", " ").endsWith("of 4 MiB"), "the cap is said");
    one(".choice:last-child input").click();
    set(one("#spec"), "nonsense");
    await say("With a bad spec");
    await answered();
    check(text(".answer .error") !== "" && last(".answer .error").getAttribute("role") === "alert", "an error is said aloud");
    check(one("#spec").getAttribute("aria-invalid") === "true" && text("#spec-error") !== "", "the spec is to blame");
    one(".choice input").click();
    check(!one("#settings [aria-invalid]"), "and is forgiven");
  }

  // Two tabs: what is said in one is not lost by what is said in the other.
  async function sharesNothing(other) {
    const turns = (page) => [...page.document.querySelectorAll(".turn .body")].map((body) => body.textContent).join("\n");
    const mine = turns(window);
    const theirs = (selector) => other.document.querySelector(selector);
    const isThere = () => theirs("#model")?.textContent && theirs(".choice");
    const reload = async () => {
      other.isOld = true;
      other.location.reload();
      await until(() => !other.isOld && isThere(), "the other tab is there again");
    };
    await until(isThere, "the other tab is there");
    check(turns(other) === mine, "a new tab begins with what was said last");
    theirs("#new-chat").click();
    await until(() => turns(other) === "", "a new chat begins in the other tab");
    set(theirs("#message"), "Elsewhere");
    press(theirs("#message"), "Enter");
    await until(() => theirs(".answer") && !theirs("[aria-busy=true]") && !theirs("#send").hidden, "the other tab is answered");
    const said = turns(other);
    check(said.startsWith("Elsewhere") && turns(window) === mine, "each tab shows its own conversation");
    const { Conversation } = await import(`${location.origin}/conversation.js`);
    const contents = (conversation) => conversation.turns.map((turn) => turn.content).join("\n");
    const own = contents(new Conversation());
    check(own !== "" && !own.includes("Elsewhere"), "a reload would keep this tab's");
    set(one("#message"), "and here");
    await pause(600);
    await reload();
    check(turns(other) === said, "a reload keeps the other tab's");
    // One that was never here before.
    other.sessionStorage.clear();
    await reload();
    check(turns(other) === mine && theirs("#message").value === "and here", "a new tab begins with what was kept last");
    other.close();
    set(one("#message"), "");
  }

  // With the errors of a server.
  async function bears() {
    one("#new-chat").click();
    await until(() => all(".turn").length === 0, "a new chat begins");
    pretend(({ signal }) => stream([words("without "), words("end")], { ends: false, signal }));
    await say("one");
    await until(() => text(".answer .body").includes("without end"), "text streams in");
    press(document.body, "Escape");
    await answered();
    check(text(".answer").includes("Stopped"), "Escape stops");

    pretend(() => stream([words("half"), event({ error: { message: "It broke." } })]));
    await say("two");
    await answered();
    check(text(".answer .body").includes("half") && text(".answer .error") === "It broke.", "an error in mid-stream");

    pretend(() => stream([words("half")]));
    await say("three");
    await answered();
    check(text(".answer .error").includes("lost"), "a stream that is cut off");

    pretend(() => refusal(429, "Full.", { "Retry-After": "1" }), () => stream([words("at last"), end]));
    await say("four");
    await until(() => text("#notice").includes("Trying again in 1 s"), "it says when it tries again");
    await answered();
    check(text(".answer .body").includes("at last") && !shown(one("#notice")), "a full server is asked once more");

    pretend(() => refusal(429, "Full.", { "Retry-After": "1" }), () => refusal(429, "Still full."));
    await say("five");
    await answered();
    check(text(".answer .error") === "Still full.", "and no more than once");

    let authorization;
    pretend(() => refusal(401, "A key."), ({ headers }) => {
      authorization = headers.Authorization;
      return stream([words("let in"), end]);
    });
    await say("six");
    await until(() => one("#key-dialog").open, "the key is asked for");
    one("#key").value = "secret";
    one("#key-dialog .primary").click();
    await answered();
    check(authorization === "Bearer secret" && text(".answer .body").includes("let in"), "the key is sent");
    sessionStorage.removeItem("sketchkv.key");
    globalThis.fetch = real;
  }

  // Markdown: as CommonMark has it, the same however it streams in, and never markup of the model's own.
  async function renders() {
    const { Markdown } = await import(`${location.origin}/markdown.js`);
    const html = (source, pieces = [source.length]) => {
      const root = document.createElement("div");
      const markdown = new Markdown(root);
      for (const length of pieces) markdown.update(source.slice(0, length), true);
      markdown.update(source);
      return root.innerHTML.replace(/ (class|role|aria-label|tabindex|rel|target|title|type|data-copy)="[^"]*"/g, "");
    };
    const cases = [
      ["a *b* **c** `d` ~~e~~", "<p>a <em>b</em> <strong>c</strong> <code>d</code> <del>e</del></p>"],
      ["***a** b*", "<p><em><strong>a</strong> b</em></p>"],
      ["snake_case_name 2 * 3 * 4", "<p>snake_case_name 2 * 3 * 4</p>"],
      ["\\*a\\* `` ` ``", "<p>*a* <code>`</code></p>"],
      ["# a #\n## b", "<h4>a</h4><h5>b</h5>"],
      ["a\nb", "<p>a<br>b</p>"],
      ["- a\n  - b\n- c", "<ul><li><p>a</p><ul><li><p>b</p></li></ul></li><li><p>c</p></li></ul>"],
      ["3. a\n\n   b\n4. c", '<ol start="3"><li><p>a</p><p>b</p></li><li><p>c</p></li></ol>'],
      ["> a\n> - b", "<blockquote><p>a</p><ul><li><p>b</p></li></ul></blockquote>"],
      ["a\n\n---\n\nb", "<p>a</p><hr><p>b</p>"],
      ["| a | b |\n|--|:-:|\n| 1 | 2\\|3 |", '<div><table><thead><tr><th scope="col">a</th><th scope="col">b</th></tr></thead>'
        + "<tbody><tr><td>1</td><td>2|3</td></tr></tbody></table></div>"],
      ["```js\n<b>\n\n# c\n```", "<div><div><span>js</span><button>Copy</button></div><pre><code>&lt;b&gt;\n\n# c</code></pre></div>"],
      ["[a](https://b.c/d_(e)) <https://f.g>", '<p><a href="https://b.c/d_(e)">a</a> <a href="https://f.g/">https://f.g</a></p>'],
      ["see https://a.b/c.", '<p>see <a href="https://a.b/c">https://a.b/c</a>.</p>'],
      ["[a](javascript:b) [c](data:d) [e](/f)", "<p>a c e</p>"],
      ["<img src=x onerror=alert(1)>", "<p>&lt;img src=x onerror=alert(1)&gt;</p>"],
      ["<think>a</think>b", "<details><summary>Thought</summary><p>a</p></details><p>b</p>"],
    ];
    for (const [source, expected] of cases) {
      const whole = html(source);
      check(whole === expected, `${JSON.stringify(source)} gives ${whole}`);
      const each = Array.from({ length: source.length }, (_, i) => i + 1);
      check(html(source, each) === whole, `${JSON.stringify(source)} streams in as it is`);
    }
    const mixed = cases.map(([source]) => source).join("\n\n");
    check(html(mixed, Array.from({ length: mixed.length }, (_, i) => i + 1)) === html(mixed), "all of it streams in as it is");
    const began = performance.now();
    for (const hostile of ["*a ", "**a** ", "[", "![a](", "`a``", "> ", "- ", "|", "<", "[a](b) ", "_*~~"]) html(hostile.repeat(5000));
    check(performance.now() - began < 5000, "hostile text is read in time");
  }

  function isReadable() {
    check(document.documentElement.scrollWidth <= window.innerWidth, "the page does not scroll sideways");
    check(document.documentElement.lang === "en" && all("h1").length === 1, "language and one h1");
    check(["header", "aside", "main"].every((tag) => all(`body ${tag}`).length === 1), "landmarks");
    check(one("#transcript").getAttribute("role") === "log" && one("#transcript").ariaLive === "off", "the log is not read by token");
    for (const input of all("input, select, textarea")) {
      check(input.labels?.length > 0 || input.ariaLabel, `${input.id || input.name} has a label`);
    }
    for (const button of all("button")) check(button.textContent.trim() !== "", `${button.id} has a name`);
    for (const error of all("[aria-describedby]")) {
      check(error.getAttribute("aria-describedby").split(" ").every((id) => document.getElementById(id)), "descriptions are there");
    }
    const texts = "p, li, h1, h2, h3, td, th, caption, code, label, legend, summary, button, input, select, textarea";
    wrong.push(...faintTexts(texts));
  }

  try {
    if (sessionStorage.getItem("phase") === null) {
      await talks();
      isReadable();
      one("#panel-toggle").click();
      isReadable();
      one("#panel-toggle").click();
      set(one("#message"), "half a thought");
      await pause(600);
      const kept = { turns: all(".turn").map((turn) => turn.innerText), size: text("#cache-size") };
      sessionStorage.setItem("kept", JSON.stringify(kept));
      sessionStorage.setItem("phase", "reloaded");
      sessionStorage.setItem("wrong", JSON.stringify(wrong));
      return "reload";
    }
    // At once: a page may open another only so soon after a click.
    const other = window.open(location.href);
    await until(() => one("#model").textContent !== "" && one(".choice"), "the page is there again");
    const kept = JSON.parse(sessionStorage.getItem("kept"));
    check(all(".turn").map((turn) => turn.innerText).join("\n") === kept.turns.join("\n"), "a reload keeps the conversation");
    check(text("#cache-size") === kept.size && one("#message").value === "half a thought", "a reload keeps cache and draft");
    await sharesNothing(other);
    await bears();
    await renders();
  } catch (error) {
    wrong.push(String(error));
  }
  return wrong.length > 0 ? wrong.join("; ") : "passed";
})()
