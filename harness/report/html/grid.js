// The model as grids, one for each mode: layers down, components across. One tab stop each; arrow keys go from cell to cell.

const MODES = {
  isolated: ["isolated", "each component on golden inputs: one fault, one failure"],
  "end-to-end": ["end to end", "the port by itself: faults and drift add up"],
  decode: ["decode", "token by token through the cache"],
};

// How far a colour is along its scale: passes from a hundredth of the limit to the limit, failures to a million times it.
function depth(ratio) {
  if (Number.isNaN(ratio) || ratio === Infinity) return 1;
  if (ratio <= 0) return 0;
  return ratio <= 1 ? Math.max(0, 1 + Math.log10(ratio) / 2) : Math.min(1, Math.log10(ratio) / 6);
}

class Grid {
  // view: {run, choice: {dtype, case}, open(component, mode, cell)}
  constructor(view, mode) {
    this.view = view;
    this.mode = mode;
    this.cells = [];
    const { layout } = view.run;
    const [name, says] = MODES[mode];
    const table = element("table", { role: "grid", "aria-label": `${name}: layers by components` },
      element("tbody", {}, this.outside(layout.before, layout),
        layout.layers.length ? this.heads(layout) : null,
        layout.layers.map(({ name, cells }) => element("tr", {},
          element("th", { scope: "row", title: name }, name.split(".").at(-1)), this.row(cells, "td"))),
        this.outside(layout.after, layout)));
    table.addEventListener("keydown", (event) => this.key(event));
    this.node = element("figure", { class: "grid" },
      element("figcaption", {}, element("b", {}, name), ` ${says}`),
      element("div", { class: "scroll" }, table));
    const first = this.cells.flat().find(Boolean);
    if (first) first.tabIndex = 0;
  }

  heads(layout) {
    const groups = [];
    for (const { group } of layout.columns) {
      if (groups.length && groups.at(-1).group === group) groups.at(-1).span += 1;
      else groups.push({ group, span: 1 });
    }
    return [
      element("tr", { class: "groups" }, element("td"), groups.map(({ group, span }) =>
        element("th", { colspan: span, scope: "colgroup", class: group ? "named" : "" }, group))),
      element("tr", { class: "names" }, element("td"), layout.columns.map(({ name }) =>
        element("th", { scope: "col" }, element("span", {}, name))))];
  }

  // What is in no layer: a row of its own.
  outside(indices, layout) {
    if (!indices.length) return null;
    return element("tr", {}, element("td", { role: "presentation" }),
      element("td", { role: "presentation", colspan: Math.max(layout.columns.length, 1) },
        element("div", { class: "outside" }, this.row(indices, "span"))));
  }

  row(indices, name) {
    const row = [];
    this.cells.push(row);
    return indices.map((index, column) => {
      if (index < 0) return element(name);
      const component = this.view.run.components[index];
      const cell = element(name, { role: "gridcell", tabindex: -1 }, element("i", { class: "swatch" }),
        name === "span" ? element("span", { class: "label" }, component) : null);
      cell.component = component;
      cell.addEventListener("click", () => this.choose(cell));
      for (const event of ["focus", "mouseenter"]) cell.addEventListener(event, () => showTip(cell, cell.says));
      for (const event of ["blur", "mouseleave"]) cell.addEventListener(event, hideTip);
      row[column] = cell;
      return cell;
    });
  }

  choose(cell) {
    this.rove(cell);
    this.view.open(cell.component, this.mode, cell);
  }

  rove(cell) {
    for (const other of this.cells.flat()) if (other) other.tabIndex = -1;
    cell.tabIndex = 0;
    cell.focus({ preventScroll: true });
    cell.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  key(event) {
    const cell = event.target.closest("[role=gridcell]");
    if (!cell) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.choose(cell);
      return;
    }
    const row = this.cells.findIndex((cells) => cells.includes(cell));
    const to = this.neighbour(row, this.cells[row].indexOf(cell), event.key, event.ctrlKey);
    if (to) {
      event.preventDefault();
      this.rove(to);
    }
  }

  neighbour(row, column, key, control) {
    const along = (cells, from, step) => {
      for (let at = from; at >= 0 && at < cells.length; at += step) if (cells[at]) return cells[at];
      return null;
    };
    const nearest = (cells) => cells && (along(cells, Math.min(column, cells.length - 1), -1) ?? along(cells, column, 1));
    const cells = this.cells[row];
    switch (key) {
      case "ArrowRight": return along(cells, column + 1, 1);
      case "ArrowLeft": return along(cells, column - 1, -1);
      case "ArrowDown": return nearest(this.cells[row + 1]);
      case "ArrowUp": return nearest(this.cells[row - 1]);
      case "Home": return along(control ? this.cells[0] : cells, 0, 1);
      case "End": return along(control ? this.cells.at(-1) : cells, (control ? this.cells.at(-1) : cells).length - 1, -1);
      case "PageDown": return nearest(this.cells[Math.min(row + 10, this.cells.length - 1)]);
      case "PageUp": return nearest(this.cells[Math.max(row - 10, 0)]);
      default: return null;
    }
  }

  // Colour every cell for what is chosen.
  paint() {
    const { run, choice } = this.view;
    let any = false;
    for (const cell of this.cells.flat()) {
      if (!cell) continue;
      const result = run.at(cell.component, choice.dtype, this.mode, choice.case);
      paintCell(cell, cell.component, result, this.mode);
      cell.classList.toggle("first", cell.component === run.first && result?.state === "fail");
      any ||= result !== null;
    }
    this.node.hidden = !any;
  }
}

function paintCell(cell, component, result, mode) {
  const state = result?.state ?? "nothing";
  cell.dataset.state = state;
  cell.classList.toggle("own", Boolean(result?.tolerance));
  cell.style.setProperty("--depth", `${Math.round(100 * depth(result?.overLimit ?? 0))}%`);
  cell.querySelector(".swatch").textContent = MARKS[state];
  const margin = result && (Number.isNaN(result.overLimit) ? result.reason
    : result.overLimit ? `${amount(result.overLimit)} × its limit` : "no difference");
  cell.says = [component, WORDS[state], margin, result && `case ${result.case}`].filter(Boolean);
  cell.setAttribute("aria-label", `${cell.says.join(", ")}, ${mode}`);
}

// What the colours and marks mean; of what was said beforehand, only where it was.
function legend(run) {
  const states = new Set(run.blocks.flatMap((block) => [...new Set(run.unpack(block).state)].map((code) => STATES[code])));
  const mark = (state, says) => (["listed", "expected"].includes(state) && !states.has(state)) ? null : element("span", {}, element("i", { class: "swatch", "data-state": state }, MARKS[state]), ` ${says}`);
  return element("p", { class: "legend" },
    element("span", {}, "error ÷ limit ",
      element("span", { class: "scale" }, element("i", { class: "passing" }), element("i", { class: "failing" })),
      element("span", { class: "ticks" }, element("span", {}, "≤ 0.01"), element("span", {}, "1"), element("span", {}, "≥ 10⁶"))),
    element("span", { class: "first" }, element("i", { class: "swatch", "data-state": "fail" }, MARKS.fail), " first wrong"),
    mark("fail", "fail"), mark("unmeasured", "unmeasured"), mark("listed", "unmeasured, as listed"),
    mark("expected", "fails, as expected"));
}

function showTip(target, lines) {
  const tip = document.getElementById("tip");
  tip.replaceChildren(...lines.map((line, i) => element(i ? "span" : "b", {}, line)));
  tip.hidden = false;
  const box = target.getBoundingClientRect(), size = tip.getBoundingClientRect();
  const left = Math.max(8, Math.min(box.left + box.width / 2 - size.width / 2, innerWidth - size.width - 8));
  const above = box.top - size.height - 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${above < 8 ? box.bottom + 8 : above}px`;
}

function hideTip() {
  document.getElementById("tip").hidden = true;
}
