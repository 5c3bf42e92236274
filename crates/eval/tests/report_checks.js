(async () => {
  "use strict";
  const wrong = [];
  const check = (holds, what) => holds || wrong.push(what);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const box = (element) => element.getBoundingClientRect();
  const onScreen = (element) => box(element).left >= -1 && box(element).right <= innerWidth + 1;

  // Charts: in one size, whole, described, and no text of them cut or on another.
  for (const plot of all(".plot")) {
    const name = plot.closest("figure").id;
    const drawings = all("svg", plot).filter((svg) => box(svg).width > 0);
    check(drawings.length === 1, `${name} is drawn once`);
    const [drawing] = drawings;
    check(onScreen(drawing) && box(drawing).height > 200, `${name} is on the screen`);
    check(all("circle, rect", drawing).length > 1, `${name} has marks`);
    check(drawing.getAttribute("role") === "img" && drawing.getAttribute("aria-label").length > 20, `${name} is described`);
    const texts = all("text", drawing);
    check(all("text.label", drawing).length > 1, `${name} has labels`);
    const inside = (inner, outer) => inner.left >= outer.left - 1 && inner.right <= outer.right + 1
      && inner.top >= outer.top - 1 && inner.bottom <= outer.bottom + 1;
    texts.filter((text) => !inside(box(text), box(drawing))).forEach((text) => wrong.push(`${name}: ${text.textContent} is cut`));
    // Half a pixel of two lines' empty margins may meet.
    const meet = (a, b) => a.left < b.right && b.left < a.right && a.top + 1 < b.bottom && b.top + 1 < a.bottom;
    texts.forEach((one, i) => texts.slice(i + 1).filter((other) => meet(box(one), box(other))).forEach((other) =>
      wrong.push(`${name}: ${one.textContent} lies on ${other.textContent}`)));
  }

  // The first screen answers.
  const cards = all(".card").slice(0, 3);
  check(cards.length === 3, "three budgets");
  const seen = innerWidth >= 1280 ? cards : cards.slice(0, 1);
  check(seen.every((card) => box(card).top + scrollY >= 0 && box(card).bottom + scrollY <= innerHeight),
    "the answer is on the first screen");
  const first = document.querySelector(".copy");
  const [command, button] = [first.querySelector("code"), first.querySelector("button")];
  check(!button.hidden && /^sketchkv run --model \S+ --kv /.test(command.textContent), "a command to copy");
  button.click();
  await new Promise((done) => setTimeout(done, 300));
  const said = first.querySelector("[role=status]").textContent;
  check(said === "Copied" || getSelection().toString().trim() === command.textContent, `copied or selected: ${said}`);
  getSelection().removeAllRanges();

  // For readers who do not see the page, or have no pointer.
  check(all("figure").every((figure) => figure.querySelector("figcaption code")), "every figure names its command");
  check(all("table").every((table) => table.caption && table.tHead), "every table has a caption and a head");
  check(all("th").every((th) => ["col", "row", "rowgroup"].includes(th.getAttribute("scope"))), "every head has a scope");
  check(document.documentElement.lang === "en" && document.title.length > 10, "language and title");
  const levels = all("h1, h2, h3").map((heading) => Number(heading.tagName[1]));
  check(levels[0] === 1 && levels.every((level, i) => i === 0 || level > 1 && level <= levels[i - 1] + 1), "headings in order");
  const ids = all("[id]").map((element) => element.id);
  check(new Set(ids).size === ids.length, "every id is there once");
  const skip = document.querySelector("a.skip");
  check(!onScreen(skip) && document.querySelector(skip.getAttribute("href")), "a link that skips is hidden");
  skip.focus();
  check(onScreen(skip), "and shows when it has the focus");
  button.focus();
  check(getComputedStyle(button).outlineStyle !== "none", "the focus is visible");
  check(all("div.scroll").every((part) => part.tabIndex === 0 && part.getAttribute("aria-label")), "what scrolls has a name");
  check(document.documentElement.scrollWidth <= innerWidth + 1, "the page itself does not scroll sideways");

  // Tables.
  const table = document.querySelector("#comparison table");
  const heads = [...table.tHead.rows[0].cells];
  const column = heads.findIndex((head) => head.textContent === "mean KL");
  check(onScreen(heads[column]), "the loss is on the screen");
  const values = (at) => [...table.tBodies[0].rows].map((row) => Number(row.cells[at].dataset.value));
  const sorted = (list, sign) => list.every((value, i) => i === 0 || sign * (value - list[i - 1]) >= 0);
  const by = heads.findIndex((head) => head.getAttribute("aria-sort") === "ascending");
  check(by > 0 && sorted(values(by), 1), "comes sorted, and says by what");
  const press = heads[column].querySelector("button");
  press.click();
  check(sorted(values(column), 1), "sorts up");
  check(heads[column].getAttribute("aria-sort") === "ascending", "says that it is sorted");
  press.click();
  check(sorted(values(column), -1), "sorts down");
  check(all("td.bar", table).some((cell) => getComputedStyle(cell).backgroundImage.includes("gradient")), "bars");

  wrong.push(...faintTexts("p, li, h1, h2, h3, td, th, dt, dd, small, strong, caption, code, figcaption, button, summary, svg text")
    .slice(0, 1));
  return wrong.length ? wrong.slice(0, 8).join("; ") : "passed";
})();
