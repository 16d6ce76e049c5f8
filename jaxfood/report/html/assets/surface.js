"use strict";
// The loss over a plane as a surface that turns: drawn as polygons, the farthest first, without WebGL.
const surfaceClass = ({ make, draw, say, shown, button, one, touch }) =>
  class Surface {
    constructor(box, spec, kept) {
      Object.assign(this, { box, spec, turn: 35, tilt: 30, log: false, place: null, from: null }, kept ?? {});
      const title = one(".title", box);
      this.plot = make("div", { className: "plot", tabIndex: 0, role: "slider", id: spec.id });
      this.plot.setAttribute("aria-labelledby", title.id);
      this.plot.setAttribute("aria-valuemin", 0);
      this.plot.setAttribute("aria-valuemax", 359);
      this.tip = make("div", { className: "tip", hidden: true });
      this.logSwitch = button("log_axis", () => this.change({ log: !this.log }));
      const tools = make("div", { className: "tools" },
        button("turn_left", () => this.look(-15, 0)), button("turn_right", () => this.look(15, 0)),
        button("tilt_up", () => this.look(0, 10)), button("tilt_down", () => this.look(0, -10)),
        this.logSwitch, button("view_reset", () => this.change({ turn: 35, tilt: 30, place: null })));
      this.scale = make("p", { className: "how ramp" });
      one(".turning", box).append(tools, this.plot, this.scale);
      this.losses = spec.losses.flat().filter((loss) => loss !== null);
      this.logSwitch.disabled = Math.min(...this.losses) <= 0;
      this.log = this.log && !this.logSwitch.disabled;
      this.listen();
      new ResizeObserver(() => this.draw()).observe(this.plot);
    }

    change(change) {
      Object.assign(this, change);
      this.draw();
    }

    look(right, up) {
      touch();
      this.change({ turn: (((this.turn + right) % 360) + 360) % 360, tilt: Math.max(0, Math.min(90, this.tilt + up)) });
    }

    // A loss between the lowest, 0, and the highest, 1.
    level(loss) {
      const on = (value) => (this.log ? Math.log(value) : value);
      const low = on(Math.min(...this.losses));
      const high = on(Math.max(...this.losses));
      return high > low ? (on(loss) - low) / (high - low) : 0.5;
    }

    // Where a place of the unit box is seen, and how far away: sides from -1 to 1, height from 0 to 1.
    seen(x, y, height) {
      const [turn, tilt] = [(this.turn * Math.PI) / 180, (this.tilt * Math.PI) / 180];
      const across = x * Math.cos(turn) - y * Math.sin(turn);
      const away = x * Math.sin(turn) + y * Math.cos(turn);
      const up = 1.3 * (height - 0.5);
      return {
        x: this.middle.x + this.size * across,
        y: this.middle.y - this.size * (away * Math.sin(tilt) + up * Math.cos(tilt)),
        far: away * Math.cos(tilt) - up * Math.sin(tilt),
      };
    }

    draw() {
      const [width, height] = [this.plot.clientWidth, this.plot.clientHeight];
      if (!width || !height || !this.losses.length) return;
      this.middle = { x: width / 2, y: height / 2 };
      this.size = Math.min((width - 28) / 2.83, (height - 28) / 2.83);
      const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
      const labels = this.drawFloor(svg);
      const { steps, other_steps: others, losses } = this.spec;
      const side = (place, count) => (count > 1 ? (2 * place) / (count - 1) - 1 : 0);
      this.corners = losses.map((row, i) =>
        row.map((loss, j) =>
          loss === null ? null : { i, j, loss, ...this.seen(side(i, steps.length), side(j, others.length), this.level(loss)) },
        ),
      );
      const pieces = [];
      for (let i = 0; i + 1 < steps.length; i++) {
        for (let j = 0; j + 1 < others.length; j++) {
          const around = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]].map(([a, b]) => this.corners[a][b]);
          if (around.every(Boolean)) pieces.push(around);
        }
      }
      const mean = (corners, of) => corners.reduce((sum, corner) => sum + of(corner), 0) / corners.length;
      pieces.sort((a, b) => mean(b, ({ far }) => far) - mean(a, ({ far }) => far));
      for (const corners of pieces) {
        const points = corners.map(({ x, y }) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
        const piece = draw("polygon", { class: "piece", points });
        piece.style.setProperty("--level", `${Math.round(100 * this.level(mean(corners, ({ loss }) => loss)))}%`);
        svg.append(piece);
      }
      this.marks = draw("g", {});
      svg.append(...labels, this.marks);
      this.plot.replaceChildren(svg, this.tip);
      this.tell();
      this.point(this.place);
    }

    // The square below; the texts that tell which of its sides is which, to be drawn over the surface.
    drawFloor(svg) {
      const corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([x, y]) => this.seen(x, y, 0));
      svg.append(draw("polygon", { class: "floor", points: corners.map(({ x, y }) => `${x},${y}`).join(" ") }));
      const { steps, other_steps: others } = this.spec;
      const labels = [];
      for (const [name, ends, places] of [["λ max", steps, (a, b) => [a, b]], ["λ min", others, (a, b) => [b, a]]]) {
        const near = [-1, 1].map((b) => this.seen(...places(0, b), 0)).sort((a, b) => a.far - b.far)[0];
        const which = this.seen(...places(0, -1), 0).far <= this.seen(...places(0, 1), 0).far ? -1 : 1;
        const text = (at, words) => draw("text", { x: at.x, y: at.y + 13, "text-anchor": "middle" }, words);
        labels.push(text(near, name));
        labels.push(text(this.seen(...places(-0.8, which * 1.06), 0), shown(ends[0], "number")));
        labels.push(text(this.seen(...places(0.8, which * 1.06), 0), shown(ends.at(-1), "number")));
      }
      return labels;
    }

    // Everything around the drawing that depends on its state.
    tell() {
      this.logSwitch.setAttribute("aria-pressed", String(this.log));
      const [low, high] = [Math.min(...this.losses), Math.max(...this.losses)].map((loss) => shown(loss, "number"));
      const all = this.spec.losses.flat().length;
      const gaps = all > this.losses.length ? ` ${say("surface_gaps", all - this.losses.length, all)}` : "";
      this.scale.replaceChildren(`${say("loss_value")} ${low} `, make("i"), ` ${high}. ${say("surface_axes")}${gaps}`);
      this.plot.setAttribute("aria-valuenow", Math.round(this.turn) % 360);
      const view = say("surface_view", Math.round(this.turn) % 360, Math.round(this.tilt));
      this.plot.setAttribute("aria-valuetext", this.place ? `${this.said(this.place)}; ${view}` : view);
    }

    said([i, j]) {
      const { steps, other_steps: others, losses } = this.spec;
      return say("surface_place", ...[steps[i], others[j], losses[i][j]].map((value) => shown(value, "number")));
    }

    // Shows the loss at a place of the grid; null: none.
    point(place) {
      this.place = place;
      const at = place && this.corners[place[0]][place[1]];
      this.tip.hidden = !place;
      this.marks.replaceChildren();
      const origin = this.corners[(this.spec.steps.length - 1) / 2]?.[(this.spec.other_steps.length - 1) / 2];
      if (origin) this.marks.append(draw("circle", { class: "dot run1", cx: origin.x, cy: origin.y, r: 5 }));
      if (at) this.marks.append(draw("circle", { class: "dot run0", cx: at.x, cy: at.y, r: 5 }));
      if (place) this.tip.textContent = this.said(place);
      this.tell();
    }

    nearest(event) {
      const box = this.plot.getBoundingClientRect();
      const [x, y] = [event.clientX - box.left, event.clientY - box.top];
      let [best, distance] = [null, 40 ** 2];
      for (const corner of this.corners.flat()) {
        if (!corner) continue;
        const away = (corner.x - x) ** 2 + (corner.y - y) ** 2 + corner.far; // of two at one place the nearer
        if (away < distance) [best, distance] = [[corner.i, corner.j], away];
      }
      return best;
    }

    listen() {
      this.plot.addEventListener("pointerdown", (event) => {
        if (event.button) return;
        this.from = { x: event.clientX, y: event.clientY };
        this.plot.setPointerCapture(event.pointerId);
      });
      this.plot.addEventListener("pointermove", (event) => {
        touch();
        if (!this.corners) return;
        if (!this.from) {
          this.point(this.nearest(event));
          return;
        }
        const [right, down] = [event.clientX - this.from.x, event.clientY - this.from.y];
        this.from = { x: event.clientX, y: event.clientY };
        this.place = null;
        this.look(-right / 2, event.pointerType === "touch" ? 0 : down / 2); // a finger's way down scrolls the page
      });
      for (const end of ["pointerup", "pointercancel"]) {
        this.plot.addEventListener(end, (event) => {
          this.from = null;
          if (end === "pointerup" && this.corners) this.point(this.nearest(event));
        });
      }
      this.plot.addEventListener("pointerleave", () => {
        if (!this.from && this.corners && document.activeElement !== this.plot) this.point(null);
      });
      this.plot.addEventListener("keydown", (event) => this.key(event));
    }

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
      touch();
      if (event.key in moves && event.shiftKey) this.step(...moves[event.key]);
      else if (event.key in moves) this.look(...moves[event.key].map((way) => 5 * way));
      else if (event.key === "0" || event.key === "Escape") this.change({ turn: 35, tilt: 30, place: null });
      else return;
      event.preventDefault();
    }

    // The marked place one further along a direction; first the middle.
    step(along, other) {
      const ends = [this.spec.steps.length - 1, this.spec.other_steps.length - 1];
      const next = this.place ? [this.place[0] + along, this.place[1] + other] : ends.map((end) => Math.floor(end / 2));
      this.point(next.map((place, axis) => Math.max(0, Math.min(ends[axis], place))));
    }
  };
