// What is known of one component: figures, pictures, explanation, and how to run it again.

const panel = {
  node: document.getElementById("panel"),
  from: null,

  show(title, ...content) {
    hideTip();
    this.node.replaceChildren(
      element("button", { class: "close", type: "button", "aria-label": "Close", onclick: () => this.close() }, "×"),
      element("h2", { id: "panel-title" }, title),
      ...content.flat().filter(Boolean));
    this.node.hidden = false;
    this.node.scrollTop = 0;
    document.body.classList.add("open");
    this.node.focus({ preventScroll: true });
    this.from?.scrollIntoView({ block: "nearest", inline: "nearest" });
  },

  close() {
    if (this.node.hidden) return;
    this.node.hidden = true;
    document.body.classList.remove("open");
    this.mark(null);
  },

  // Which cell it tells of; where the focus goes back to.
  mark(cell) {
    const before = this.from;
    before?.classList.remove("shown");
    this.from = cell;
    cell?.classList.add("shown");
    if (!cell) before?.focus({ preventScroll: true });
  },
};

function section(title, ...content) {
  return element("section", {}, element("h3", {}, title), ...content);
}

function verdictLine(result) {
  return element("p", { class: "told" },
    element("b", { class: `badge ${result.state}` }, `${MARKS[result.state]} ${WORDS[result.state]}`.trim()),
    ` ${result.case} · ${result.dtype} · ${MODES[result.mode][0]}`);
}

// A component in a mode; kase: which case, of the ones that the panel offers.
function openResult(view, component, mode, cell, kase = view.choice.case) {
  const { run, choice } = view;
  const result = run.at(component, choice.dtype, mode, kase);
  panel.mark(cell);
  if (!result) {
    panel.show(component, element("p", {}, `Not replayed: ${choice.dtype}, ${MODES[mode][0]}.`));
    return;
  }
  panel.show(component, verdictLine(result), reasons(result), explanation(run, component), figures(result),
    pictures(run, result), others(view, result, cell), trend(run, result), command(run, result));
}

function reasons(result) {
  const lines = [
    [result.state === "fail" ? "found" : "reason", result.reason], ["listed", result.listed],
    ["tolerance", result.tolerance], ["expected to fail", result.expected],
  ].filter(([, text]) => text);
  return lines.map(([name, text]) => element("p", { class: "reason" }, element("b", {}, `${name}: `), text));
}

function explanation(run, component) {
  const lines = run.explained[component];
  return lines && element("div", { class: "explained" }, lines.map((line) => element("p", {}, run.text(line))));
}

function figures(result) {
  if (result.error[0] === null) return null;
  const row = (name, values, decides) => element("tr", { class: decides ? "decides" : null }, element("th", { scope: "row" }, name),
    values.map((value) => element("td", {}, amount(value))));
  const quotients = (allowed) => result.error.map((value, view) => over([value], [allowed[view]]));
  return section("Figures",
    element("table", { class: "figures" },
      element("thead", {}, element("tr", {}, element("td"), VIEWS.map((view) => element("th", { scope: "col" }, view)))),
      element("tbody", {}, row("error", result.error), row("noise floor", result.floor), row("limit", result.limit),
        row("error ÷ limit", quotients(result.limit), true), row("error ÷ floor", quotients(result.floor)))));
}

function pictures(run, result) {
  const picture = run.pictureOf.get(run.key(result.component, result.dtype, result.mode));
  if (!picture) return [worstElements(run, result), result.error[0] === null ? null :
    element("p", { class: "where" }, "No picture was kept of this one: the command below makes it.")];
  const other = picture.place.case !== result.case ? element("p", { class: "where" }, `Of the case ${picture.place.case}.`) : null;
  return [
    section("Where it differs", other, picture.maps.map(mapOf),
      element("p", { class: "where ramp" }, amount(picture.low), element("i"), amount(picture.high), " |port − golden|")),
    section("How much it differs", histogram(picture), element("p", { class: "where" },
      `Elements by difference, in noise floors of a typical element (${amount(picture.unit)})${picture.same ? `; ${picture.same} are equal` : ""}.`)),
    elements(picture.worst.map((worst) => [worst.index, worst.port, worst.golden])),
  ];
}

function mapOf(map) {
  const size = (axis) => map.size[axis] < map.shape[axis] ? `${map.shape[axis]} in ${map.size[axis]} pixels` : map.shape[axis];
  return element("figure", { class: "picture" },
    element("div", {}, element("span", { class: "rows" }, `${map.rows} (${size(0)})`), canvasOf(map)),
    element("figcaption", {}, `${map.columns} (${size(1)})`));
}

function worstElements(run, result) {
  const worst = run.worstOf.get(run.key(result.component, result.case, result.dtype, result.mode));
  return worst ? elements([worst]) : null;
}

function elements(rows) {
  if (!rows.length) return null;
  return section("Worst elements", element("table", { class: "figures" },
    element("thead", {}, element("tr", {}, ["index", "port", "golden"].map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, rows.map(([index, port, golden]) => element("tr", {},
      element("th", { scope: "row" }, `[${index.join(", ")}]`), element("td", {}, String(port)), element("td", {}, String(golden)))))));
}

// The component's other cases in this mode, and its other modes.
function others(view, result, cell) {
  const { run, choice } = view;
  const button = (other) => element("button", { type: "button", class: `case ${other.state}`,
    "aria-current": other.case === result.case && other.mode === result.mode ? "true" : null,
    onclick: () => openResult(view, other.component, other.mode, cell, other.case) },
    element("span", {}, other.mode === result.mode ? other.case : MODES[other.mode][0]),
    element("span", {}, `${MARKS[other.state]} ${Number.isNaN(other.overLimit) ? WORDS[other.state] : amount(other.overLimit)}`));
  const modes = run.modes.filter((mode) => mode !== result.mode)
    .map((mode) => run.at(result.component, choice.dtype, mode, WORST_OF_ALL)).filter(Boolean);
  return section("Other cases and modes: error ÷ limit", element("div", { class: "cases" },
    run.all(result.component, result.dtype, result.mode).map(button), modes.map(button)));
}

function trend(run, result) {
  const past = run.trendOf.get(run.key(result.component, result.dtype, result.mode));
  if (!past) return null;
  const now = run.all(result.component, result.dtype, result.mode)[0].overLimit;
  const before = past.at(-1);
  return section("Run by run: error ÷ limit", sparkline([...past, now]), element("p", { class: "where" },
    before === null ? "" : `Before: ${amount(before)}, in the run of ${run.trends.runs.at(-1)}. Now: ${amount(now)}.`));
}

function command(run, place) {
  const text = run.command(place);
  const code = element("code", {}, text);
  const button = element("button", { type: "button", onclick: () => copy(text, code, button) }, "Copy");
  return section("Run it again", element("div", { class: "command" }, code, button));
}

// Where the browser lets no page near the clipboard, the text is selected.
async function copy(text, code, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code);
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

// A family of facts: what fails, what was not measured, and how many pass.
function openFamily(view, family, cell) {
  const { run } = view;
  const facts = factsOf(view, family);
  const shown = facts.filter((fact) => STATES[fact.state] !== "pass" || run.text(fact.finding));
  panel.mark(cell);
  panel.show(family, element("p", { class: "told" }, `${facts.length} facts, ${facts.length - shown.length} of them pass and need no word.`),
    shown.slice(0, 100).map((fact) => element("section", { class: "fact" },
      element("h3", {}, fact.component),
      verdictLine({ ...fact, state: STATES[fact.state] }),
      reasons({ state: STATES[fact.state], reason: run.text(fact.finding), listed: run.text(fact.listed),
        tolerance: run.text(fact.tolerance), expected: run.text(fact.expected) }),
      explanation(run, fact.component), command(run, fact))),
    shown.length > 100 ? element("p", {}, `and ${shown.length - 100} more`) : null);
}

function factsOf(view, family) {
  return view.run.facts.filter((fact) => fact.family === family);
}
