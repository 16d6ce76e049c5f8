"use strict";
// The script of a report: language and theme, curves, sorting, the confusion matrix, large pictures, refreshing.
(() => {
  const one = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const data = JSON.parse(one("#report-data").textContent);
  const words = JSON.parse(one("#report-words").textContent);
  const page = document.documentElement;
  const LANGUAGES = ["en", "zh-Hans"];
  const AROUND = { left: 8, right: 14, top: 12, bottom: 34 };

  // What is remembered. A browser may forbid a file to store anything: then it is remembered while the page is open.
  const memory = new Map();
  const stored = (storage, key, value) => {
    try {
      if (value === undefined) return storage().getItem(key) ?? memory.get(key) ?? null;
      memory.set(key, value);
      storage().setItem(key, value);
    } catch {
      return memory.get(key) ?? null;
    }
    return value;
  };
  const choice = (key, value) => stored(() => localStorage, `jaxfood-${key}`, value);
  const STATE = `jaxfood-report ${location.pathname}`;
  const before = JSON.parse(stored(() => sessionStorage, STATE) ?? "null") ?? { charts: {}, open: [] };

  // Words and numbers.

  let language = 0;
  const fill = (text, values) => text.replace(/\{(\d)\}/g, (_, place) => values[place]);
  const say = (key, ...values) => (words[key] ? fill(words[key][language], values) : key);
  const isolated = (name) => `\u2068${name}\u2069`; // its direction of writing changes nothing around it
  const parsed = (element) => JSON.parse(element.dataset.values ?? "[]");

  function shown(value, style) {
    if (value === null || value === undefined) return "–";
    if (style === "percent") return `${trimmed(100 * value, 4)} %`;
    return trimmed(value, 4);
  }
  function trimmed(value, digits) {
    const size = Math.abs(value);
    if (value === 0) return "0";
    if (size < 1e-3 || size >= 1e6) return value.toExponential(digits - 2).replace(/\.?0+e/, "e").replace("e+", "e");
    const text = size >= 10 ** (digits - 1) ? value.toFixed(0) : value.toPrecision(digits);
    return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
  }

  function make(name, properties = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key in element && key !== "role") element[key] = value;
      else element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  }
  const namespace = one("#drawing").namespaceURI;
  function draw(name, attributes, text) {
    const element = document.createElementNS(namespace, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  }
  const button = (key, press) => {
    const element = make("button", { type: "button" }, say(key));
    element.dataset.word = key;
    element.addEventListener("click", () => press(element));
    return element;
  };

  function speak(next) {
    language = next;
    page.lang = LANGUAGES[language];
    for (const element of all("[data-word]")) element.textContent = say(element.dataset.word, ...parsed(element));
    for (const element of all("[data-word-label]")) {
      element.setAttribute("aria-label", say(element.dataset.wordLabel, ...parsed(element)));
    }
    const switcher = one("#language");
    switcher.textContent = language ? "English" : "中文";
    switcher.lang = LANGUAGES[1 - language];
    nameTheme();
    [...charts, ...surfaces].forEach((each) => each.draw());
    all("details.filled").forEach(fillValues);
  }

  // Theme.

  const isDark = () =>
    page.dataset.theme ? page.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  function nameTheme() {
    const key = isDark() ? "light" : "dark";
    one("#theme").dataset.word = key;
    one("#theme").textContent = say(key);
  }
  one("#theme").addEventListener("click", () => {
    page.dataset.theme = choice("theme", isDark() ? "light" : "dark");
    nameTheme();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);

  // Scales.

  function linearTicks(low, high, count, whole) {
    const rough = (high - low) / Math.max(count, 1);
    const power = 10 ** Math.floor(Math.log10(rough));
    let step = [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999) * power;
    if (whole) step = Math.max(1, Math.round(step));
    const ticks = [];
    for (let place = Math.ceil(low / step - 1e-9); place <= high / step + 1e-9; place++) {
      ticks.push(Number((place * step).toPrecision(12)));
    }
    return ticks;
  }
  function logTicks(low, high, count) {
    const decades = Math.log10(high / low);
    if (decades < 1) return linearTicks(low, high, count).filter((tick) => tick > 0);
    const factors = decades < 2.5 ? [1, 2, 5] : [1];
    const every = Math.max(1, Math.ceil(decades / count));
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += every) {
      for (const factor of factors) {
        const tick = Number(`${factor}e${power}`);
        if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
      }
    }
    return ticks;
  }

  // Curves.

  class Chart {
    constructor(box, spec) {
      Object.assign(this, { box, spec, zoom: null, log: false, hidden: new Set(), cursor: null, drag: null });
      const kept = before.charts[spec.id];
      if (kept) Object.assign(this, { zoom: kept.zoom, log: kept.log, hidden: new Set(kept.hidden) });
      this.series = spec.series.map((series) => this.resolve(series));
      const title = one("h3", box);
      this.plot = make("div", { className: "plot", tabIndex: 0, role: "slider", id: `plot-${spec.id}` });
      this.plot.setAttribute("aria-labelledby", title.id);
      this.tip = make("div", { className: "tip", hidden: true });
      this.note = make("p", { className: "how note", hidden: true });
      this.logSwitch = button("log_axis", () => this.change({ log: !this.log }));
      this.resetButton = button("reset", () => this.change({ zoom: null }));
      this.tools = make("div", { className: "tools" }, ...(spec.range ? [] : [this.logSwitch]), this.resetButton);
      this.legend = make("div", { className: "legend" });
      title.after(this.tools);
      box.append(this.plot, this.legend, this.note);
      this.listen();
      this.makeLegend();
      new ResizeObserver(() => this.draw()).observe(this.plot);
    }

    resolve(series) {
      const run = data.runs[series.run];
      if (!run) return { ...series, colour: series.quiet ? "quiet" : "run0" };
      const single = data.runs.length === 1;
      const colour = single ? (series.dashed ? "run1" : "run0") : `run${series.run % 7}`;
      return { ...series, x: run.columns.epoch, y: run.columns[series.column], colour, name: single ? "" : run.name };
    }

    label(series) {
      const isNamed = series.name && series.word === this.spec.id; // the heading says the word
      return [series.name && isolated(series.name), !isNamed && say(series.word)].filter(Boolean).join(" · ");
    }

    makeLegend() {
      this.keys = this.series.map((series, place) => {
        const text = make("span");
        const key = make("button", { type: "button" }, make("i", { className: `key ${series.colour}` }), text);
        key.classList.toggle("dashed", Boolean(series.dashed));
        key.addEventListener("click", () => {
          this.hidden.has(place) ? this.hidden.delete(place) : this.hidden.add(place);
          this.draw();
        });
        this.legend.append(key);
        return [key, text];
      });
    }

    change(change) {
      Object.assign(this, change);
      this.draw();
    }

    get visible() {
      return this.series.filter((_, place) => !this.hidden.has(place));
    }

    // All places along the axis that have a value, ascending.
    places() {
      const [low, high] = this.domain ?? [-Infinity, Infinity];
      const found = new Set();
      for (const { x, y, quiet } of this.visible) {
        if (!quiet) x.forEach((at, place) => y[place] !== null && at >= low && at <= high && found.add(at));
      }
      return [...found].sort((a, b) => a - b);
    }

    extent() {
      if (this.spec.domain) return this.spec.domain;
      const places = this.series.flatMap(({ x, y }) => x.filter((_, place) => y[place] !== null));
      const low = places.reduce((a, b) => Math.min(a, b), Infinity);
      const high = places.reduce((a, b) => Math.max(a, b), -Infinity);
      return low < high ? [low, high] : [low - 1, low + 1];
    }

    range() {
      if (this.spec.range) return this.spec.range;
      const [from, to] = this.domain;
      let low = Infinity;
      let high = -Infinity;
      for (const { x, y } of this.visible) {
        for (let place = 0; place < x.length; place++) {
          if (x[place] < from || x[place] > to || y[place] === null || (this.log && y[place] <= 0)) continue;
          low = Math.min(low, y[place]);
          high = Math.max(high, y[place]);
        }
      }
      if (low > high) return null;
      if (this.log) return low < high ? [low / (high / low) ** 0.05, high * (high / low) ** 0.05] : [low / 2, high * 2];
      const pad = low < high ? 0.06 * (high - low) : Math.abs(low) * 0.1 || 1;
      return [low >= 0 ? Math.max(0, low - pad) : low - pad, high + pad];
    }

    draw() {
      const width = this.plot.clientWidth;
      const height = this.plot.clientHeight;
      if (!width || !height) return;
      this.domain = this.zoom ?? this.extent();
      const range = this.range();
      const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
      if (range) this.drawInside(svg, width, height, range);
      else svg.append(draw("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, say("no_values")));
      this.plot.replaceChildren(svg, this.tip);
      this.svg = svg;
      this.tell();
      this.point(this.cursor);
    }

    drawInside(svg, width, height, [low, high]) {
      const rows = Math.max(2, Math.round(height / 55));
      const ticks = this.log ? logTicks(low, high, rows) : linearTicks(low, high, rows);
      const labels = ticks.map((tick) => shown(tick, this.spec.style));
      const left = AROUND.left + 7.2 * Math.max(...labels.map((label) => label.length), 2);
      const right = width - AROUND.right;
      const bottom = height - AROUND.bottom;
      const [from, to] = this.domain;
      const level = this.log ? (y) => Math.log(y / low) / Math.log(high / low) : (y) => (y - low) / (high - low);
      this.inside = { left, right, bottom };
      this.toX = (x) => left + ((x - from) / (to - from)) * (right - left);
      this.toY = (y) => bottom - level(y) * (bottom - AROUND.top);
      this.fromX = (pixel) => from + ((pixel - left) / (right - left)) * (to - from);
      ticks.forEach((tick, place) => {
        const y = this.toY(tick);
        svg.append(draw("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }));
        svg.append(draw("text", { x: left - 7, y: y + 4, "text-anchor": "end" }, labels[place]));
      });
      const whole = !this.spec.x_style;
      for (const tick of linearTicks(from, to, (right - left) / 70, whole)) {
        const x = this.toX(tick);
        svg.append(draw("line", { class: "tick", x1: x, x2: x, y1: bottom, y2: bottom + 4 }));
        svg.append(draw("text", { x, y: bottom + 17, "text-anchor": "middle" }, shown(tick, this.spec.x_style)));
      }
      svg.append(draw("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }));
      const name = say(this.spec.x_word ?? "epoch");
      svg.append(draw("text", { class: "name", x: right, y: height - 3, "text-anchor": "end" }, name));
      const clip = draw("clipPath", { id: `clip-${this.spec.id}` });
      clip.append(draw("rect", { x: left - 4, y: 0, width: right - left + 8, height: bottom + 1 }));
      const lines = draw("g", { "clip-path": `url(#clip-${this.spec.id})` });
      svg.append(clip, lines);
      if (data.runs.length === 1 && this.spec.best) this.drawBest(lines, bottom);
      for (const series of this.visible) this.drawSeries(lines, series);
      this.marks = draw("g", { class: "marks" });
      svg.append(this.marks);
    }

    drawBest(lines, bottom) {
      const best = data.runs[0].best;
      if (!best || best < this.domain[0] || best > this.domain[1]) return;
      const x = this.toX(best);
      const nearEnd = x > this.inside.right - 40;
      lines.append(draw("line", { class: "best", x1: x, x2: x, y1: AROUND.top, y2: bottom }));
      const anchor = nearEnd ? "end" : "start";
      lines.append(draw("text", { class: "name", x: x + (nearEnd ? -5 : 5), y: 20, "text-anchor": anchor }, say("best")));
    }

    drawSeries(lines, { x, y, colour, dashed, points }) {
      const isShown = (value) => value !== null && value !== undefined && (!this.log || value > 0);
      let path = "";
      const dots = [];
      for (let place = 0; place < x.length; place++) {
        if (!isShown(y[place])) continue;
        const joined = place > 0 && isShown(y[place - 1]);
        const goesOn = place + 1 < x.length && isShown(y[place + 1]);
        path += `${joined ? "L" : "M"}${this.toX(x[place]).toFixed(1)} ${this.toY(y[place]).toFixed(1)}`;
        if (points || (!joined && !goesOn)) dots.push([x[place], y[place]]);
      }
      lines.append(draw("path", { class: `curve ${colour}${dashed ? " dashed" : ""}`, d: path }));
      for (const [at, value] of dots) {
        lines.append(draw("circle", { class: `dot ${colour}`, cx: this.toX(at), cy: this.toY(value), r: 3.5 }));
      }
    }

    // Everything around the drawing that depends on its state.
    tell() {
      this.logSwitch.setAttribute("aria-pressed", String(this.log));
      this.resetButton.disabled = !this.zoom;
      this.keys.forEach(([key, text], place) => {
        text.textContent = this.label(this.series[place]);
        key.setAttribute("aria-pressed", String(!this.hidden.has(place)));
      });
      const lost = this.log ? this.visible.flatMap(({ y }) => y).filter((y) => y !== null && y <= 0).length : 0;
      this.note.hidden = !lost;
      this.note.textContent = lost ? say("hidden_values", lost) : "";
      const places = this.places();
      this.plot.setAttribute("aria-valuemin", places[0] ?? 0);
      this.plot.setAttribute("aria-valuemax", places.at(-1) ?? 0);
      const at = this.cursor ?? places.at(-1) ?? 0;
      this.plot.setAttribute("aria-valuenow", at);
      const told = this.valuesAt(at).map(([series, value]) => `${this.label(series)} ${shown(value, this.spec.style)}`);
      this.plot.setAttribute("aria-valuetext", [this.titleAt(at), ...told].join("; "));
    }

    titleAt(at) {
      return this.spec.x_word ? `${say(this.spec.x_word)} ${shown(at, this.spec.x_style)}` : say("epoch_n", at);
    }

    valuesAt(at) {
      return this.visible
        .filter(({ x, quiet }) => !quiet && x.includes(at))
        .map((series) => [series, series.y[series.x.indexOf(at)]]);
    }

    // Shows the values at a place along the axis; null: none.
    point(at) {
      this.cursor = at;
      this.tip.hidden = at === null || !this.marks;
      this.marks?.replaceChildren();
      if (this.tip.hidden) return;
      const x = this.toX(at);
      const { bottom, left, right } = this.inside;
      this.marks.append(draw("line", { class: "cursor", x1: x, x2: x, y1: AROUND.top, y2: bottom }));
      const rows = this.valuesAt(at).map(([series, value]) => {
        if (value !== null && (!this.log || value > 0)) {
          this.marks.append(draw("circle", { class: `dot ${series.colour}`, cx: x, cy: this.toY(value), r: 4 }));
        }
        const name = make("span", {}, make("i", { className: `key ${series.colour}` }), this.label(series));
        return make("div", {}, name, make("b", {}, shown(value, this.spec.style)));
      });
      this.tip.replaceChildren(make("strong", {}, this.titleAt(at)), ...rows);
      this.tip.style.left = `${x < (left + right) / 2 ? Math.min(x + 12, right) : Math.max(x - 12 - this.tip.offsetWidth, 0)}px`;
      this.tell();
    }

    nearest(pixel) {
      const wanted = this.fromX(pixel);
      return this.places().reduce((a, b) => (a !== null && Math.abs(a - wanted) <= Math.abs(b - wanted) ? a : b), null);
    }

    listen() {
      const pixel = (event) => event.clientX - this.plot.getBoundingClientRect().left;
      this.plot.addEventListener("pointerdown", (event) => {
        if (event.button || !this.marks) return;
        this.drag = { from: pixel(event), to: pixel(event) };
        this.plot.setPointerCapture(event.pointerId);
      });
      this.plot.addEventListener("pointermove", (event) => {
        touched = Date.now();
        if (!this.marks) return;
        this.point(this.nearest(pixel(event)));
        if (!this.drag) return;
        this.drag.to = Math.max(this.inside.left, Math.min(this.inside.right, pixel(event)));
        const from = Math.min(this.drag.from, this.drag.to);
        const width = Math.abs(this.drag.to - this.drag.from);
        this.marks.append(draw("rect", { class: "drag", x: from, y: AROUND.top, width, height: this.inside.bottom - AROUND.top }));
      });
      this.plot.addEventListener("pointerup", (event) => {
        const drag = this.drag;
        this.drag = null;
        if (drag && Math.abs(drag.to - drag.from) > 8) this.enlarge(this.fromX(drag.from), this.fromX(drag.to));
        else if (drag && this.marks) this.point(this.nearest(pixel(event)));
      });
      this.plot.addEventListener("pointercancel", () => this.change({ drag: null }));
      this.plot.addEventListener("pointerleave", () => {
        if (!this.drag && document.activeElement !== this.plot) this.point(null);
      });
      this.plot.addEventListener("blur", () => this.point(null));
      this.plot.addEventListener("dblclick", () => this.change({ zoom: null }));
      this.plot.addEventListener("keydown", (event) => this.key(event));
    }

    enlarge(a, b) {
      const [from, to] = [Math.min(a, b), Math.max(a, b)];
      const [low, high] = this.extent();
      const least = this.spec.domain ? 0.05 : 1;
      if (to - from >= least) this.change({ zoom: from <= low && to >= high ? null : [Math.max(from, low), Math.min(to, high)] });
      else this.draw();
    }

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const places = this.places();
      const now = places.indexOf(this.cursor ?? places.at(-1));
      const moves = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
      const middle = this.cursor ?? (this.domain[0] + this.domain[1]) / 2;
      const half = (this.domain[1] - this.domain[0]) / 2;
      touched = Date.now();
      if (event.key in moves) {
        const next = now + moves[event.key] * (event.shiftKey ? 10 : 1);
        this.point(places[Math.max(0, Math.min(places.length - 1, this.cursor === null ? now : next))] ?? null);
      } else if (event.key === "Home" || event.key === "End") this.point(places.at(event.key === "Home" ? 0 : -1) ?? null);
      else if (event.key === "+" || event.key === "=") this.enlarge(middle - half / 2, middle + half / 2);
      else if (event.key === "-") this.enlarge(middle - half * 2, middle + half * 2);
      else if (event.key === "0" || event.key === "Escape") this.change({ zoom: null, cursor: null });
      else return;
      event.preventDefault();
    }
  }

  // Every value as a table, made only when it is opened: a thousand epochs are ten thousand cells.

  function fillValues(details) {
    const place = one(".values", details);
    const run = data.runs[place.dataset.run];
    const columns = Object.keys(run.columns);
    const title = (key) => (words[key] && key !== "step" ? say(key) : key.replaceAll("_", " "));
    const head = make("tr", {}, ...columns.map((key) => make("th", { scope: "col" }, title(key))));
    const rows = run.columns.epoch.map((_, row) =>
      make("tr", {}, ...columns.map((key) => make("td", {}, shown(run.columns[key][row], "number")))),
    );
    const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
    const scroll = make("div", { className: "scroll tall", tabIndex: 0, role: "group" }, table);
    scroll.setAttribute("aria-label", say("all_values", run.name));
    place.replaceChildren(scroll);
    details.classList.add("filled");
  }
  for (const place of all(".values")) {
    const details = place.closest("details");
    details.addEventListener("toggle", () => details.open && fillValues(details));
  }

  // Sorting.

  for (const table of all("table.sortable")) {
    all("thead th", table).forEach((heading, column) => {
      one("button", heading).addEventListener("click", () => sortBy(table, heading, column));
    });
  }
  function sortBy(table, heading, column) {
    const isNumber = column > 0 && !Number.isNaN(Number(table.rows[1]?.cells[column].dataset.value ?? NaN));
    const ascending = heading.ariaSort ? heading.ariaSort === "descending" : !isNumber;
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const compare = isNumber
      ? (a, b) => Number(value(a)) - Number(value(b))
      : (a, b) => value(a).localeCompare(value(b), page.lang, { numeric: true });
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort((a, b) => (ascending ? compare(a, b) : compare(b, a))));
    all("th[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  }

  // Confusion matrix.

  for (const table of all("table.confusion")) {
    const readout = one(".readout", table.closest("section"));
    const names = all("tbody th", table).map((heading) => heading.textContent);
    const inPercent = one(".per-cent", table.closest("section"));
    const cells = all("td[data-share]", table);
    cells.forEach((cell) => (cell.dataset.count = cell.textContent));
    let here = null;
    const tell = (cell) => {
      here?.classList.remove("here");
      here = cell;
      cell.classList.add("here");
      const truth = isolated(names[cell.parentNode.rowIndex - 1]);
      const answer = isolated(names[cell.cellIndex - 1]);
      const text = say("confusion_cell", truth, answer, cell.dataset.count, shown(Number(cell.dataset.share), "percent"));
      readout.textContent = cell.title = text;
    };
    const cellOf = (event) => event.target.closest("td[data-share]");
    table.addEventListener("pointerover", (event) => cellOf(event) && tell(cellOf(event)));
    table.addEventListener("click", (event) => cellOf(event) && tell(cellOf(event)));
    table.closest(".scroll").addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
      if (!(event.key in moves)) return;
      const [down, right] = here ? moves[event.key] : [0, 0];
      const row = table.rows[(here?.parentNode.rowIndex ?? 1) + down];
      const cell = row?.cells[(here?.cellIndex ?? 1) + right];
      if (cell?.dataset.share) {
        tell(cell);
        cell.scrollIntoView({ block: "nearest", inline: "nearest" });
      }
      event.preventDefault();
    });
    inPercent.addEventListener("click", () => {
      const pressed = inPercent.getAttribute("aria-pressed") !== "true";
      inPercent.setAttribute("aria-pressed", String(pressed));
      for (const cell of cells) {
        cell.textContent = pressed ? Math.round(100 * cell.dataset.share) : cell.dataset.count;
      }
    });
  }

  // Large pictures.

  const viewer = one("#viewer");
  for (const enlarge of all("button.enlarge")) {
    enlarge.addEventListener("click", () => {
      const picture = one("img", enlarge);
      viewer.setAttribute("aria-label", picture.alt);
      one(".scroll", viewer).replaceChildren(make("img", { src: picture.src, alt: picture.alt }));
      viewer.showModal();
    });
  }
  one("#close").addEventListener("click", () => viewer.close());

  // Refreshing, while nobody is in the middle of something; what was opened, enlarged and switched stays so.

  let touched = 0;
  let paused = choice("paused") === "yes";
  const isBusy = () => paused || viewer.open || Date.now() - touched < 4000 || !getSelection().isCollapsed;
  function keep() {
    const kept = charts.map(({ spec, zoom, log, hidden }) => [spec.id, { zoom, log, hidden: [...hidden] }]);
    const open = all("details[open]").map((details) => details.id);
    const focus = document.activeElement?.id;
    const views = surfaces.map(({ turn, tilt, log }) => ({ turn, tilt, log }));
    const state = { scroll: scrollY, open, focus, charts: Object.fromEntries(kept), views };
    stored(() => sessionStorage, STATE, JSON.stringify(state));
  }
  function refresh() {
    if (isBusy() || document.hidden) {
      setTimeout(refresh, 1000);
      return;
    }
    keep();
    location.reload();
  }
  if (data.refresh) {
    const pause = one("#pause");
    const name = () => {
      pause.dataset.word = paused ? "resume" : "pause";
      pause.textContent = say(pause.dataset.word);
    };
    pause.addEventListener("click", () => {
      paused = !paused;
      choice("paused", paused ? "yes" : "no");
      name();
    });
    name();
    setTimeout(refresh, 1000 * data.refresh);
  }

  const boxes = new Map(all(".chart").map((box) => [box.dataset.chart, box]));
  const charts = data.charts.map((spec) => new Chart(boxes.get(spec.id), spec));
  const Surface = surfaceClass({ make, draw, say, shown, button, one, touch: () => (touched = Date.now()) });
  const surfaces = data.surfaces.map(
    (spec, place) => new Surface(one(`[data-surface="${spec.id}"]`), spec, before.views?.[place]),
  );
  const chosen = choice("language");
  speak(chosen === null ? Number(navigator.language.startsWith("zh")) : Number(chosen));
  one("#language").addEventListener("click", () => speak(Number(choice("language", String(1 - language)))));
  for (const id of before.open) document.getElementById(id)?.setAttribute("open", "");
  if (data.refresh && before.scroll !== undefined) {
    scrollTo(0, before.scroll);
    if (before.focus) document.getElementById(before.focus)?.focus({ preventScroll: true });
  }
})();
