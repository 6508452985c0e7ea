// One section for each golden file: what is chosen, the grids, the facts, the drift along the layers.

class View {
  constructor(node) {
    this.run = new Run(JSON.parse(node.querySelector("script.data").textContent));
    this.map = node.querySelector(".map");
    const wrong = this.run.blocks.find((block) => this.run.first &&
      this.run.at(this.run.first, block.dtype, block.mode, block.case)?.state === "fail");
    this.choice = { dtype: wrong?.dtype ?? this.run.blocks[0]?.dtype ?? this.run.dtypes[0], case: WORST_OF_ALL };
    this.column = this.run.layout.columns.length - 1;
    this.grids = this.run.modes.map((mode) => new Grid(this, mode));
    this.curve = element("div", { class: "curve" });
    this.map.replaceChildren(...[this.controls(), this.strip(), this.grids.length ? legend(this.run) : null,
      element("div", { class: "grids" }, this.grids.map((grid) => grid.node)), this.driftFigure()].filter(Boolean));
    this.paint();
  }

  open(component, mode, cell) {
    openResult(this, component, mode, cell);
    const column = this.run.layout.layers.map(({ cells }) => cells.indexOf(this.run.index.get(component))).find((at) => at >= 0);
    if (column !== undefined && this.columnSelect) {
      this.column = column;
      this.columnSelect.value = String(column);
      this.drawCurve();
    }
  }

  select(label, options, chosen, change) {
    const select = element("select", { "aria-label": label, onchange: (event) => change(event.target.value) },
      options.map(([value, name]) => element("option", { value, selected: value === chosen }, name)));
    return [element("label", {}, element("span", {}, label), select), select];
  }

  controls() {
    const dtypes = [...new Set(this.run.blocks.map((block) => block.dtype))];
    const [dtype] = this.select("dtype", dtypes.map((name) => [name, name]), this.choice.dtype, (value) => {
      this.choice.dtype = value;
      this.paint();
    });
    const cases = [[WORST_OF_ALL, "worst of all"], ...this.run.cases.map((name) => [name, name])];
    const [kase] = this.select("case", cases, WORST_OF_ALL, (value) => {
      this.choice.case = value;
      this.paint();
    });
    return dtypes.length ? element("div", { class: "controls" }, dtype, kase) : null;
  }

  // Facts that are no step of the forward pass, a chip for each family.
  strip() {
    const families = [...new Set(this.run.facts.map((fact) => fact.family))];
    if (!families.length) return null;
    return element("div", { class: "facts", role: "group", "aria-label": "Facts" }, families.map((family) => {
      const states = factsOf(this, family).map((fact) => STATES[fact.state]);
      const worst = states.reduce((a, b) => SEVERITY[b] > SEVERITY[a] ? b : a, "nothing");
      const alike = states.filter((state) => state === worst).length;
      const chip = element("button", { type: "button", "data-state": worst, class: family === this.run.firstFamily ? "first" : "",
        onclick: () => openFamily(this, family, chip) },
        element("i", { class: "swatch" }, worst === "pass" ? "✓" : MARKS[worst]), ` ${family} `,
        element("span", {}, worst === "pass" ? String(states.length) : `${alike} of ${states.length}`));
      return chip;
    }));
  }

  driftFigure() {
    const columns = this.run.layout.columns;
    if (!columns.length) return null;
    const options = columns.map(({ group, name }, place) => [String(place), group ? `${group}.${name}` : name]);
    const [label, select] = this.select("along the layers", options, String(this.column), (value) => {
      this.column = Number(value);
      this.drawCurve();
    });
    this.columnSelect = select;
    this.driftNode = element("figure", { class: "along" }, element("figcaption", {},
      element("b", {}, "drift"), " relative error of the whole tensor, end to end ", label), this.curve);
    return this.driftNode;
  }

  drawCurve() {
    const mode = ["end-to-end", "decode", "isolated"].find((each) => this.run.modes.includes(each));
    const points = this.run.layout.layers.filter(({ cells }) => cells[this.column] >= 0).map(({ name, cells }) => {
      const component = this.run.components[cells[this.column]];
      const result = this.run.at(component, this.choice.dtype, mode, this.choice.case);
      return { label: name.split(".").at(-1), component, error: result?.error[0] ?? null, floor: result?.floor[0] ?? null,
        limit: result?.limit[0] ?? null, state: result?.state ?? "nothing" };
    });
    const width = Math.max(300, Math.min(960, this.curve.clientWidth));
    this.curve.replaceChildren(drift(points, `error by layer, ${MODES[mode][0]}`, width, (point) => {
      const grid = this.grids.find((each) => each.mode === mode);
      const cell = grid.cells.flat().find((each) => each?.component === point.component);
      openResult(this, point.component, mode, cell);
    }));
  }

  paint() {
    panel.close();
    for (const grid of this.grids) grid.paint();
    if (this.driftNode) this.drawCurve();
  }
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    hideTip();
    panel.close();
  }
});
addEventListener("scroll", hideTip, { passive: true, capture: true });
const views = [...document.querySelectorAll("section.run")].map((section) => new View(section));
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((node) => { node.open = true; }));
addEventListener("resize", () => views.forEach((view) => view.driftNode && view.drawCurve()));
document.body.dataset.ready = "true";
