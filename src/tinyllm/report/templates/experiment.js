// One scorer's tables at a time.
(() => {
  const scorers = document.getElementById("scorers");
  if (!scorers) return;
  const blocks = [...document.querySelectorAll(".by-scorer")];
  const show = () => {
    const chosen = Number(scorers.querySelector("input:checked").value);
    blocks.forEach((block, index) => { block.hidden = index !== chosen; });
  };
  scorers.addEventListener("change", show);
  scorers.hidden = false;
  show();
})();

// The list of questions of an experiment. Texts become text nodes. Nothing here parses HTML.
(() => {
  const { make, option, letter } = page;
  const islands = [...document.querySelectorAll("script.island")];
  if (!islands.length) return;
  const CHUNK = 10;
  const OUTCOMES = {
    fixed: "fixed by the method", broken: "broken by the method", bothRight: "right with both", bothWrong: "wrong with both",
  };
  const filters = document.getElementById("filters");
  const { text, island, split, method, outcome: wanted, teacher } = filters.elements;
  const list = document.getElementById("list");
  const more = document.getElementById("more");
  const status = document.getElementById("status");
  const parsed = new Map();
  const haystacks = new WeakMap();
  let data = null;
  let found = [];
  let shown = 0;

  // A dataset is parsed when it is first shown, because 20,000 questions take many megabytes.
  function open(index) {
    if (!parsed.has(index)) parsed.set(index, JSON.parse(islands[index].textContent));
    data = parsed.get(index);
    method.replaceChildren(...data.methods.map((label, i) => option(String(i), label)));
    method.value = String(data.chief);
    teacher.replaceChildren(option("", "all"), ...data.teachers.map((name) => option(name, name)));
  }

  // --- what a question is -------------------------------------------------------------------------------------

  // What most seeds did; null if the method has no answer, or the right answer is not known here.
  function isRight(row, index) {
    const answers = row.a && row.a[index];
    if (!answers || !answers.length || row.k === undefined) return null;
    return 2 * answers.filter((choice) => choice === row.k).length > answers.length;
  }

  function outcome(row) {
    const before = isRight(row, data.baseline);
    const after = isRight(row, Number(method.value));
    if (before === null || after === null) return "";
    return after ? (before ? "bothRight" : "fixed") : before ? "broken" : "bothWrong";
  }

  function notes(row) {
    return [...(row.kept || []), ...(row.rejected || []), ...(row.given || [])];
  }

  function haystack(row) {
    if (!haystacks.has(row)) {
      const texts = [row.id, row.q, row.x, ...(row.c || [])];
      for (const note of notes(row)) texts.push(note[1], note[2]);
      haystacks.set(row, texts.filter(Boolean).join("\n").toLowerCase());
    }
    return haystacks.get(row);
  }

  // --- drawing one question -----------------------------------------------------------------------------------

  function drawItem(row) {
    const kind = outcome(row);
    const tone = { bothRight: "right", bothWrong: "wrong" }[kind] || kind;
    const top = make("div", "top", make("span", "", row.split), make("span", "", row.id));
    if (kind) top.prepend(make("b", tone, OUTCOMES[kind]));
    const title = make("h3", "", row.q === undefined ? `Question ${row.id}` : row.q);
    return make("article", "item", top, title, drawContext(row), drawChoices(row), drawAnswers(row), drawVoices(row));
  }

  function drawContext(row) {
    if (!row.x) return null;
    return make("details", "context", make("summary", "", "Context"), make("p", "", row.x));
  }

  function drawChoices(row) {
    if (!row.c) return null;
    const items = row.c.map((choice, index) => {
      const cell = make("span", "", choice);
      if (index === row.k) cell.append(" ", make("span", "pill key-answer", "✓ right answer"));
      return make("li", index === row.k ? "choice answer" : "choice", make("span", "letter", letter(index)), cell);
    });
    return make("ol", "choices", ...items);
  }

  function drawAnswers(row) {
    if (!row.a) return null;
    const items = row.a.map((answers, index) => {
      if (!answers.length) return null;
      const said = answers.map((choice) => (choice < 0 ? "?" : letter(choice))).join(" ");
      const right = isRight(row, index);
      const tone = right === null ? "" : right ? "right" : "wrong";
      return make("li", tone, `${data.methods[index]}: `, make("b", "", said), make("span", "hidden", tone && ` (${tone})`));
    });
    return make("ul", "answers", ...items);
  }

  function drawVoices(row) {
    const names = [...new Set([...data.teachers, ...notes(row).map((note) => note[0])])];
    const voices = names.map((name, index) => {
      const own = (of) => (of || []).filter((note) => note[0] === name);
      const [kept, rejected, given] = [own(row.kept), own(row.rejected), own(row.given)];
      if (!kept.length && !rejected.length && !given.length) return null;
      const voice = make("div", `voice c${(index + 1) % 6}`, make("h4", "", name));
      for (const [, words, repaired] of kept) {
        voice.append(make("p", "", words), make("p", "note", repaired ? `kept; repaired: ${repaired}` : "kept"));
      }
      for (const [, words, reason] of rejected) {
        voice.append(make("details", "", make("summary", "", `Rejected: ${reason}`), make("p", "", words || "(empty)")));
      }
      for (const [, words] of given) voice.append(make("p", "", words), make("p", "note", "came with the data, not checked"));
      return voice;
    });
    return voices.some(Boolean) ? make("div", "voices", ...voices) : null;
  }

  // --- the list -----------------------------------------------------------------------------------------------

  function showMore(focus) {
    const items = found.slice(shown, shown + CHUNK).map(drawItem);
    list.append(...items);
    shown += items.length;
    more.hidden = shown >= found.length;
    status.textContent = `${found.length.toLocaleString("en")} of ${data.questions.length.toLocaleString("en")} questions`
      + (shown < found.length ? `, ${shown.toLocaleString("en")} shown` : "");
    if (focus && items.length) page.focusOn(items[0]);
  }

  function countOutcomes(rows) {
    const counts = new Map();
    for (const row of rows) counts.set(outcome(row), (counts.get(outcome(row)) || 0) + 1);
    const value = wanted.value;
    wanted.replaceChildren(option("", "all"), ...Object.keys(OUTCOMES).map((kind) => option(kind, `${OUTCOMES[kind]} (${counts.get(kind) || 0})`)));
    wanted.value = value;
  }

  function update() {
    const words = text.value.toLowerCase().trim().split(/\s+/).filter(Boolean);
    const rows = data.questions.filter((row) => row.split === split.value);
    countOutcomes(rows);
    found = rows.filter((row) => (!wanted.value || outcome(row) === wanted.value)
      && (!teacher.value || notes(row).some((note) => note[0] === teacher.value))
      && words.every((word) => haystack(row).includes(word)));
    list.replaceChildren();
    shown = 0;
    showMore(false);
  }

  page.onChange(filters, (name) => {
    if (name === "island") open(Number(island.value));
    update();
  });
  more.addEventListener("click", () => showMore(true));
  filters.hidden = false;
  open(0);
  update();
})();
