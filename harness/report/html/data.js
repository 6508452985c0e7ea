// What encode.py wrote, read: every figure on the page comes from here.

const STATES = ["nothing", "pass", "fail", "unmeasured", "listed", "expected"];
const WORDS = {
  nothing: "not compared in this way", pass: "pass", fail: "fail", unmeasured: "unmeasured",
  listed: "unmeasured, as listed", expected: "fails, as expected",
};
const MARKS = { nothing: "·", pass: "", fail: "✕", unmeasured: "?", listed: "–", expected: "○" };
// Of several cases the one that says most is shown.
const SEVERITY = { fail: 5, unmeasured: 4, expected: 3, listed: 2, pass: 1, nothing: 0 };
const VIEWS = ["whole", "worst row", "worst channel"];
const DECADE = 1600, LOWEST = -20, INFINITE = 65534, NONE = 65535;
const WORST_OF_ALL = "";

function decoded(code) {
  if (code === 0) return 0;
  if (code >= INFINITE) return code === NONE ? null : Infinity;
  return 10 ** ((code - 1) / DECADE + LOWEST);
}

function bytes(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

// The largest quotient of the views: what decides whether a component passes.
function over(error, allowed) {
  if (error[0] === null || allowed[0] === null) return NaN;
  return Math.max(...error.map((value, view) => allowed[view] ? value / allowed[view] : value ? Infinity : 0));
}

// Two digits: 0.21, 3.5, 41, 3.1e+06.
function amount(value) {
  if (value === null || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return "infinite";
  if (value === 0) return "0";
  if (value >= 9.95 && value < 1000) return value.toFixed(0);
  const [digits, power] = value.toExponential(1).split("e").map(Number);
  return power < -4 || power >= 3 ? value.toExponential(1) : String(Number(`${digits}e${power}`));
}

class Run {
  constructor(data) {
    Object.assign(this, data);
    this.index = new Map(this.components.map((name, place) => [name, place]));
    this.blockOf = new Map(this.blocks.map((block) => [this.key(block.dtype, block.case, block.mode), block]));
    this.worstOf = new Map(this.worst.map(([name, kase, dtype, mode, ...element]) =>
      [this.key(name, kase, dtype, mode), element]));
    this.pictureOf = new Map(this.pictures.map((picture) => {
      const { component, case: kase, dtype, mode } = picture.place;
      return [this.key(component, dtype, mode), picture];
    }));
    this.trendOf = new Map(this.trends.margins.map(([component, dtype, mode, codes]) =>
      [this.key(component, dtype, mode), codes.map((code) => code === null ? null : decoded(code))]));
  }

  key(...parts) {
    return JSON.stringify(parts);
  }

  text(number) {
    return number === undefined ? "" : this.texts[number];
  }

  // A result; kase: WORST_OF_ALL for the one that says most.
  at(component, dtype, mode, kase) {
    if (kase === WORST_OF_ALL) return this.all(component, dtype, mode)[0] ?? null;
    const block = this.blockOf.get(this.key(dtype, kase, mode));
    if (!block) return null;
    this.unpack(block);
    const place = this.index.get(component);
    const state = STATES[block.state[place]];
    if (state === "nothing") return null;
    const numbers = Array.from(block.codes.subarray(9 * place, 9 * place + 9), decoded);
    const [error, floor, limit] = [numbers.slice(0, 3), numbers.slice(3, 6), numbers.slice(6)];
    const said = block.words.get(place) ?? {};
    return {
      component, dtype, mode, case: kase, state, error, floor, limit,
      kind: this.kinds[place],
      overLimit: over(error, limit), overFloor: over(error, floor),
      reason: this.text(said.reason), listed: this.text(said.listed),
      tolerance: this.text(said.tolerance), expected: this.text(said.expected),
    };
  }

  // All cases of a component, the one that says most first.
  all(component, dtype, mode) {
    const results = this.cases.map((kase) => this.at(component, dtype, mode, kase)).filter(Boolean);
    const size = (result) => Number.isNaN(result.overLimit) ? Infinity : result.overLimit;
    return results.sort((a, b) => SEVERITY[b.state] - SEVERITY[a.state] || (size(b) > size(a) ? 1 : size(b) < size(a) ? -1 : 0));
  }

  unpack(block) {
    if (block.state) return block;
    block.state = bytes(block.states);
    const packed = bytes(block.numbers);
    const view = new DataView(packed.buffer);
    block.codes = Uint16Array.from({ length: packed.length / 2 }, (_, place) => view.getUint16(2 * place, true));
    block.words = new Map(block.said);
    return block;
  }

  // Only these comparisons again.
  command({ component, case: kase, dtype, mode }) {
    const words = ["--include", component, "--case", kase, "--dtype", dtype, "--mode", mode];
    return [this.replay, ...words.map(quoted)].join(" ");
  }
}

function quoted(word) {
  return /^[\w./:=@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}
