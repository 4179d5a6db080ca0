// The list of questions. Texts become text nodes. Nothing here parses HTML.
(() => {
  const { make, option, letter } = page;
  const island = document.getElementById("island");
  if (!island) return;
  const data = JSON.parse(island.textContent);
  const CHUNK = 10;
  const OUTCOMES = {
    fixed: "fixed by training", broken: "broken by training", bothRight: "right both times",
    bothWrong: "wrong both times", right: "right", wrong: "wrong", none: "not scored",
  };
  const filters = document.getElementById("filters");
  const list = document.getElementById("list");
  const more = document.getElementById("more");
  const status = document.getElementById("status");
  const taskClass = new Map(data.teachers.map((name, i) => [name, `c${(i + 1) % 6}`])); // 0 is the answer's
  const haystacks = new Map();
  let found = [];
  let shown = 0;

  // --- what a question is -------------------------------------------------------------------------------------

  function rightAt(row, stage, scorer) {
    const choice = row[stage] ? row[stage].pred[scorer] : -1;
    return choice === -1 || row.answer === null ? null : choice === row.answer; // null in the data: the text matches no choice, so it is wrong
  }

  function outcome(row, scorer) {
    const before = rightAt(row, "before", scorer);
    const after = rightAt(row, "after", scorer);
    if (before === null && after === null) return "none";
    if (before === null || after === null) return before || after ? "right" : "wrong";
    return after ? (before ? "bothRight" : "fixed") : before ? "broken" : "bothWrong";
  }

  function haystack(row) {
    if (!haystacks.has(row)) {
      const texts = [row.id, row.question, row.context, ...(row.choices || [])];
      for (const note of [...(row.kept || []), ...(row.rejected || [])]) texts.push(note.text, note.reason);
      for (const stage of [row.before, row.after]) {
        if (stage) texts.push(stage.text, ...Object.values(stage.rationales || {}));
      }
      haystacks.set(row, texts.filter(Boolean).join("\n").toLowerCase());
    }
    return haystacks.get(row);
  }

  // --- drawing one question -----------------------------------------------------------------------------------

  function drawItem(row, scorer) {
    const kind = outcome(row, scorer);
    const tone = { bothRight: "right", bothWrong: "wrong" }[kind] || kind;
    const title = make("h3", "", row.question === undefined ? `Question ${row.id}` : row.question);
    const top = make("div", "top", make("span", "", row.split), make("span", "", row.id));
    if (kind !== "none") top.prepend(make("b", tone, OUTCOMES[kind]));
    return make("article", "item", top, title, drawContext(row), drawChoices(row, scorer), ...drawSaid(row), ...drawOpinions(row), drawVoices(row));
  }

  function drawContext(row) {
    if (!row.context) return null;
    const box = make("details", "context", make("summary", "", "Context"), make("p", "", row.context));
    box.open = row.context.length <= 400;
    return box;
  }

  function drawChoices(row, scorer) {
    if (!row.choices) return null;
    const values = data.scorers[scorer][0] === "likelihood_normalised" ? "mean" : "total";
    const items = row.choices.map((text, index) => {
      const cell = make("span", "", text);
      if (index === row.answer) cell.append(" ", make("span", "pill key-answer", "✓ right answer"));
      for (const stage of ["before", "after"]) {
        if (row[stage] && row[stage].pred[scorer] === index) cell.append(" ", make("span", `pill ${stage}`, `student ${stage}`));
      }
      const bars = make("div", "bars", drawBar(row, "before", values, index), drawBar(row, "after", values, index));
      return make("li", index === row.answer ? "choice answer" : "choice", make("span", "letter", letter(index)), cell, bars);
    });
    return make("ol", "choices", ...items);
  }

  // The length is the probability of the choice, the number its log-likelihood.
  function drawBar(row, stage, values, index) {
    const scores = row[stage] && row[stage][values];
    if (!scores) return null;
    const finite = scores.filter((score) => score !== null);
    const best = Math.max(...finite);
    const weights = scores.map((score) => (score === null ? 0 : Math.exp(score - best)));
    const share = finite.length ? weights[index] / weights.reduce((sum, weight) => sum + weight, 0) : 0;
    const length = make("i");
    length.style.width = `${(100 * share).toFixed(1)}%`;
    const number = scores[index] === null ? "−∞" : scores[index].toFixed(2).replace("-", "−");
    const bar = make("div", `bar ${stage}`, make("span", "", make("span", "hidden", `log-likelihood ${stage} training `), length), make("b", "", number));
    bar.title = `${stage} training: log-likelihood ${number}, ${(100 * share).toFixed(1)} % among the choices`;
    return bar;
  }

  function drawSaid(row) {
    return ["before", "after"].filter((stage) => row[stage] && row[stage].text !== undefined).map((stage) => {
      const choice = row[stage].pred[data.scorers.findIndex(([name]) => name === "generation")];
      const read = choice === null ? "not readable as a choice" : `read as ${letter(choice)}`;
      const words = row[stage].text.trim() ? make("q", "", row[stage].text.trim()) : "nothing";
      return make("p", "said", make("span", "muted", `Student wrote ${stage} training: `), words, make("span", "muted", ` (${read})`));
    });
  }

  function drawOpinions(row) {
    return (row.opinions || []).map(([name, shares]) => {
      const best = shares.indexOf(Math.max(...shares));
      const mark = row.answer === null ? "" : best === row.answer ? ", right" : ", wrong";
      const who = make("span", "muted", name ? `Opinion of ${name}: ` : "Pooled opinion: ");
      const how = make("span", "muted", ` (${(100 * shares[best]).toFixed(0)} %${mark})`);
      return make("p", "said", who, make("b", "", letter(best)), ` ${row.choices[best]}`, how);
    });
  }

  function drawVoices(row) {
    const own = (stage, name) => ((row[stage] || {}).rationales || {})[name];
    const named = [...Object.keys((row.before || {}).rationales || {}), ...Object.keys((row.after || {}).rationales || {})];
    const voices = [...new Set([...data.teachers, ...named])].map((name) => {
      const kept = (row.kept || []).filter((note) => note.teacher === name);
      const rejected = (row.rejected || []).filter((note) => note.teacher === name);
      const before = own("before", name);
      const after = own("after", name);
      if (!kept.length && !rejected.length && before === undefined && after === undefined) return null;
      const voice = make("div", `voice ${taskClass.get(name) || "c5"}`, make("h4", "", name));
      for (const note of kept) {
        voice.append(make("p", "", note.text));
        if (note.pooled) voice.append(make("p", "note", "explains the pooled opinion; the answer is not known"));
        if (note.repaired) voice.append(make("p", "note", `repaired: ${note.repaired.join(", ")}`));
      }
      for (const note of rejected) {
        const summary = make("summary", "", `${note.opinion ? "No opinion" : "Rejected reply"}: ${note.reason}`);
        voice.append(make("details", "", summary, make("p", "", note.text || "(empty)")));
      }
      for (const [stage, text] of [["before", before], ["after", after]]) {
        if (text !== undefined) voice.append(make("h5", "", `Student's own, ${stage} training`), make("p", "", text || "(nothing)"));
      }
      return voice;
    });
    return voices.some(Boolean) ? make("div", "voices", ...voices) : null;
  }

  // --- the list -----------------------------------------------------------------------------------------------

  function showMore(focus) {
    const scorer = Number(filters.elements.scorer.value);
    const items = found.slice(shown, shown + CHUNK).map((row) => drawItem(row, scorer));
    list.append(...items);
    shown += items.length;
    more.hidden = shown >= found.length;
    status.textContent = `${found.length.toLocaleString("en")} of ${data.questions.length.toLocaleString("en")} questions`
      + (shown < found.length ? `, ${shown.toLocaleString("en")} shown` : "");
    if (focus && items.length) page.focusOn(items[0]);
  }

  function update() {
    const { text, split, scorer, outcome: wanted } = filters.elements;
    const words = text.value.toLowerCase().trim().split(/\s+/).filter(Boolean);
    const inSplit = data.questions.filter((row) => !split.value || row.split === split.value);
    countOutcomes(inSplit, Number(scorer.value));
    found = inSplit.filter((row) => (!wanted.value || outcome(row, Number(scorer.value)) === wanted.value)
      && words.every((word) => haystack(row).includes(word)));
    list.replaceChildren();
    shown = 0;
    showMore(false);
  }

  function countOutcomes(rows, scorer) {
    const select = filters.elements.outcome;
    const counts = new Map();
    for (const row of rows) counts.set(outcome(row, scorer), (counts.get(outcome(row, scorer)) || 0) + 1);
    const options = Object.keys(OUTCOMES).filter((kind) => counts.has(kind) || kind === select.value)
      .map((kind) => option(kind, `${OUTCOMES[kind]} (${counts.get(kind) || 0})`));
    const value = select.value;
    select.replaceChildren(option("", "all"), ...options);
    select.value = value;
  }

  const splits = [...new Set(data.questions.map((row) => row.split))];
  filters.elements.split.append(option("", "all"), ...splits.map((name) => option(name, name)));
  const used = data.scorers.map((_, i) => i).filter((i) => data.questions.some((row) => outcome(row, i) !== "none"));
  filters.elements.scorer.append(...(used.length ? used : [0]).map((i) => option(String(i), data.scorers[i][1])));
  page.onChange(filters, update);
  more.addEventListener("click", () => showMore(true));
  for (const label of filters.querySelectorAll(".scored")) label.hidden = used.length === 0;
  filters.hidden = false;
  update();
})();
