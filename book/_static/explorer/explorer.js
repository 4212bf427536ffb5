/* The explorer of the chapter "Linear regions": move a point through the toy network's plane.

   Reads the network from <script type="application/json" id="explorer-network">, draws into
   <div id="explorer">, and offers window.robustlibExplorer.compute(x, y) to tests and readers.
   Everything is exact geometry in the plane: a linear region is a polygon, the inputs of the other
   class in it are a smaller polygon, and rho is the distance to that one. */
(function () {
  "use strict";

  const BOX = [[0, 0], [1, 0], [1, 1], [0, 1]];
  const STEP = 0.01;
  const SIZE = 600; // of the drawing, in its own units
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1];
  const gap = (p, q) => Math.max(Math.abs(p[0] - q[0]), Math.abs(p[1] - q[1]));
  const clamp = (v) => Math.min(1, Math.max(0, v));

  // ---- geometry -------------------------------------------------------------------------------

  /** The part of a convex polygon where row · p <= bound. */
  function clip(polygon, row, bound) {
    const kept = [];
    polygon.forEach((p, i) => {
      const q = polygon[(i + 1) % polygon.length];
      const atP = dot(row, p) - bound;
      const atQ = dot(row, q) - bound;
      if (atP <= 0) kept.push(p);
      if (atP * atQ < 0) {
        const s = atP / (atP - atQ);
        kept.push([p[0] + s * (q[0] - p[0]), p[1] + s * (q[1] - p[1])]);
      }
    });
    return kept;
  }

  /** The point of a convex polygon (not holding x) that is nearest to x in the maximum norm.
      Along an edge the distance bends only where a coordinate of p - x is 0 or both are equal in
      size: the minimum is there or at an end. Of equally near points the Euclidean one wins. */
  function nearest(x, polygon) {
    let best = { distance: Infinity, point: null, length: Infinity };
    polygon.forEach((p, i) => {
      const q = polygon[(i + 1) % polygon.length];
      const a = [p[0] - x[0], p[1] - x[1]];
      const d = [q[0] - p[0], q[1] - p[1]];
      const bends = [[a[0], d[0]], [a[1], d[1]], [a[0] - a[1], d[0] - d[1]], [a[0] + a[1], d[0] + d[1]]];
      const places = [0, 1];
      bends.forEach(([value, slope]) => {
        if (slope !== 0 && -value / slope > 0 && -value / slope < 1) places.push(-value / slope);
      });
      if (dot(d, d) > 0) places.push(clamp(-dot(a, d) / dot(d, d)));
      places.forEach((s) => {
        const point = [p[0] + s * d[0], p[1] + s * d[1]];
        const distance = gap(point, x);
        const length = Math.hypot(point[0] - x[0], point[1] - x[1]);
        const nearer = distance < best.distance - 1e-12;
        if (nearer || (distance < best.distance + 1e-12 && length < best.length)) {
          best = { distance: Math.min(distance, best.distance), point, length };
        }
      });
    });
    return best;
  }

  function area(polygon) {
    let twice = 0;
    polygon.forEach((p, i) => {
      const q = polygon[(i + 1) % polygon.length];
      twice += p[0] * q[1] - p[1] * q[0];
    });
    return Math.abs(twice) / 2;
  }

  const centroid = (polygon) =>
    [0, 1].map((k) => polygon.reduce((sum, p) => sum + p[k], 0) / polygon.length);

  // ---- the network ----------------------------------------------------------------------------

  /** The pattern at x (a unit at 0 counts as active) and the affine logits of its region. */
  function restrict(net, x) {
    const pattern = net.w1.map((row, j) => dot(row, x) + net.b1[j] >= 0);
    const logits = net.w2.map((out, c) => {
      const weight = [0, 0];
      let bias = net.b2[c];
      out.forEach((v, j) => {
        if (!pattern[j]) return;
        weight[0] += v * net.w1[j][0];
        weight[1] += v * net.w1[j][1];
        bias += v * net.b1[j];
      });
      return { weight, bias, value: dot(weight, x) + bias };
    });
    const label = logits[1].value > logits[0].value ? 1 : 0;
    const [own, other] = [logits[label], logits[1 - label]];
    return {
      pattern,
      label,
      // own - other <= 0: the inputs of the other class
      lead: [own.weight[0] - other.weight[0], own.weight[1] - other.weight[1]],
      bound: other.bias - own.bias,
    };
  }

  /** The half-space row · x <= bound that unit j keeps in the pattern. */
  function halfSpace(net, pattern, j) {
    const sign = pattern[j] ? -1 : 1;
    return { row: [sign * net.w1[j][0], sign * net.w1[j][1]], bound: -sign * net.b1[j] };
  }

  function regionOf(net, pattern) {
    return pattern.reduce((polygon, _, j) => {
      const { row, bound } = halfSpace(net, pattern, j);
      return clip(polygon, row, bound);
    }, BOX);
  }

  /** The two ends of the edge that unit j gives to the region, null if it gives none. */
  function edgeOf(net, pattern, region, j) {
    const { row, bound } = halfSpace(net, pattern, j);
    const on = region.filter((p) => Math.abs(dot(row, p) - bound) < 1e-10);
    return on.some((p) => gap(p, on[0]) > 1e-9) ? on : null;
  }

  /** All linear regions of the box, each with the part that has label 1. */
  function allRegions(net) {
    let polygons = [BOX];
    net.w1.forEach((row, j) => {
      polygons = polygons
        .flatMap((p) => [clip(p, row, -net.b1[j]), clip(p, [-row[0], -row[1]], net.b1[j])])
        .filter((p) => area(p) > 1e-12);
    });
    return polygons.map((polygon) => {
      const inside = restrict(net, centroid(polygon));
      const other = clip(polygon, inside.lead, inside.bound);
      const own = clip(polygon, [-inside.lead[0], -inside.lead[1]], -inside.bound);
      return { polygon, parts: inside.label === 1 ? [other, own] : [own, other] };
    });
  }

  function compute(net, regions, x, y) {
    const point = [x, y];
    const { pattern, label, lead, bound } = restrict(net, point);
    const region = regionOf(net, pattern);
    const found = nearest(point, clip(region, lead, bound));
    return {
      label,
      pattern,
      region,
      active: pattern.map((_, j) => j).filter((j) => edgeOf(net, pattern, region, j)),
      rho: found.distance,
      witness: found.point,
      exact: Math.min(...regions.map((r) => nearest(point, r.parts[1 - label]).distance)),
      gradientSign: lead.map((v) => -Math.sign(v)),
    };
  }

  // ---- the page -------------------------------------------------------------------------------

  const SVG = "http://www.w3.org/2000/svg";

  function make(parent, name, attributes, text) {
    const html = !["svg", "g", "polygon", "line", "circle", "rect", "text", "path"].includes(name);
    const node = html ? document.createElement(name) : document.createElementNS(SVG, name);
    Object.entries(attributes || {}).forEach(([key, value]) => node.setAttribute(key, value));
    if (text !== undefined) node.textContent = text;
    parent.appendChild(node);
    return node;
  }

  const px = (v) => +(v * SIZE).toFixed(2);
  const py = (v) => +((1 - v) * SIZE).toFixed(2);
  const path = (polygon) => polygon.map((p) => `${px(p[0])},${py(p[1])}`).join(" ");
  const number = (v) => (Number.isFinite(v) ? v.toFixed(4) : "∞");
  const pair = (p) => `(${p[0].toFixed(3)}, ${p[1].toFixed(3)})`;

  function arrow(parent, from, to, kind) {
    const [x1, y1, x2, y2] = [px(from[0]), py(from[1]), px(to[0]), py(to[1])];
    const length = Math.hypot(x2 - x1, y2 - y1);
    if (length < 1) return;
    const [ux, uy] = [(x2 - x1) / length, (y2 - y1) / length];
    const [bx, by] = [x2 - 14 * ux, y2 - 14 * uy];
    make(parent, "line", { x1, y1, x2: bx, y2: by, class: kind });
    const head = `${x2},${y2} ${bx - 6 * uy},${by + 6 * ux} ${bx + 6 * uy},${by - 6 * ux}`;
    make(parent, "polygon", { points: head, class: `${kind} head` });
  }

  /** The part of the line w · x + b = 0 inside the box, as two points. */
  function chord(net, j) {
    const side = clip(BOX, net.w1[j], -net.b1[j]);
    return side.filter((p) => Math.abs(dot(net.w1[j], p) + net.b1[j]) < 1e-10);
  }

  function build(place, net) {
    const regions = allRegions(net);
    const at = (x, y) => compute(net, regions, x, y);
    let point = net.start.slice();

    place.textContent = "";
    const svg = make(place, "svg", {
      viewBox: `-12 -12 ${SIZE + 24} ${SIZE + 24}`,
      class: "plane",
      tabindex: "0",
      role: "application",
      "aria-label":
        "The plane of the toy network. Arrow keys move the point, with Shift in larger steps; " +
        "Home returns to the red point of the figure.",
      "aria-describedby": "explorer-says",
    });
    const still = make(svg, "g");
    regions.forEach((r) =>
      r.parts.forEach((part, label) => {
        if (part.length > 2) make(still, "polygon", { points: path(part), class: `class${label}` });
      })
    );
    net.w1.forEach((_, j) => {
      const ends = chord(net, j);
      if (ends.length > 1) make(still, "polygon", { points: path(ends), class: "kink" });
    });
    net.points.forEach(([x, y, label]) =>
      make(still, "circle", { cx: px(x), cy: py(y), r: 4, class: `dot${label}` })
    );
    const moving = make(svg, "g");
    const handle = make(svg, "circle", { r: 32, class: "handle" });

    const says = make(place, "p", { id: "explorer-says", role: "status", "aria-live": "polite" });
    const facts = make(place, "dl");
    const rows = {};
    [
      ["point", "point x*"],
      ["units", "units"],
      ["edges", "half-spaces that bound the region"],
      ["rho", "ρ̂, nearest in the region"],
      ["exact", "ρ, nearest of all"],
      ["gradient", "step ρ̂ along the signed gradient"],
    ].forEach(([key, title]) => {
      const row = make(facts, "div");
      make(row, "dt", { class: `key-${key}` }, title);
      rows[key] = make(row, "dd", { "data-fact": key });
    });
    const back = make(place, "button", { type: "button" }, "Back to the red point");

    function drawEdge(result, j) {
      const edge = edgeOf(net, result.pattern, result.region, j);
      const { row } = halfSpace(net, result.pattern, j);
      const size = Math.hypot(row[0], row[1]);
      const beside = centroid(edge).map((v, k) => {
        return Math.min(0.97, Math.max(0.03, v + (0.032 * row[k]) / size));
      });
      make(moving, "polygon", { points: path(edge), class: "edge" });
      make(moving, "text", { x: px(beside[0]), y: py(beside[1]), class: "unit" }, String(j + 1));
    }

    function draw() {
      const result = at(point[0], point[1]);
      moving.textContent = "";
      make(moving, "polygon", { points: path(result.region), class: "region" });
      result.active.forEach((j) => drawEdge(result, j));
      const radius = Math.min(result.rho, 2);
      const stepped = point.map((v, k) => v + radius * result.gradientSign[k]);
      let verdict = "no adversarial example in the region";
      rows.gradient.textContent = "–";
      if (result.witness) {
        const box = [[-1, -1], [1, -1], [1, 1], [-1, 1]];
        const ball = box.map((c) => [point[0] + radius * c[0], point[1] + radius * c[1]]);
        make(moving, "polygon", { points: path(ball), class: "ball" });
        arrow(moving, point, stepped, "gradient");
        arrow(moving, point, result.witness, "program");
        verdict = `nearest adversarial example at ${pair(result.witness)}`;
        const landed = stepped.map(clamp);
        const other = restrict(net, landed).label !== result.label;
        const same = gap(landed, result.witness) < 1e-6;
        rows.gradient.textContent = same
          ? "the same point"
          : other ? "another label, but another point" : "still the same label";
      }
      make(moving, "circle", { cx: px(point[0]), cy: py(point[1]), r: 8, class: "point" });
      handle.setAttribute("cx", px(point[0]));
      handle.setAttribute("cy", py(point[1]));
      rows.point.textContent = `${pair(point)}, class ${result.label}`;
      rows.units.textContent = "";
      result.pattern.forEach((on, j) => {
        const kind = on ? "unit on" : "unit off";
        make(rows.units, "span", { class: kind }, `${j + 1} ${on ? "on" : "off"}`);
      });
      rows.edges.textContent = result.active.map((j) => j + 1).join(", ") || "none but the box";
      rows.rho.textContent = number(result.rho);
      rows.exact.textContent = number(result.exact);
      says.textContent = `Class ${result.label}, ρ̂ = ${number(result.rho)}: ${verdict}.`;
    }

    function moveTo(x, y) {
      point = [clamp(x), clamp(y)];
      draw();
    }

    function follow(event) {
      const box = svg.getBoundingClientRect();
      const scale = (SIZE + 24) / box.width;
      const x = ((event.clientX - box.left) * scale - 12) / SIZE;
      const y = 1 - ((event.clientY - box.top) * scale - 12) / SIZE;
      moveTo(x, y);
    }

    // A drag starts anywhere with a mouse, on the handle with a finger; elsewhere a finger scrolls
    // the page and a tap moves the point.
    const keepPage = (event) => event.target === handle && event.preventDefault();
    svg.addEventListener("touchstart", keepPage, { passive: false });
    svg.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      if (event.pointerType !== "mouse" && event.target !== handle) return;
      svg.setPointerCapture(event.pointerId);
      if (event.pointerType === "mouse") follow(event);
    });
    svg.addEventListener("pointermove", (event) => {
      if (svg.hasPointerCapture(event.pointerId)) follow(event);
    });
    svg.addEventListener("click", follow);
    svg.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 5 * STEP : STEP;
      const move = {
        ArrowLeft: [-step, 0],
        ArrowRight: [step, 0],
        ArrowUp: [0, step],
        ArrowDown: [0, -step],
      }[event.key];
      if (move) moveTo(point[0] + move[0], point[1] + move[1]);
      else if (event.key === "Home") moveTo(net.start[0], net.start[1]);
      else return;
      event.preventDefault();
    });
    back.addEventListener("click", () => moveTo(net.start[0], net.start[1]));
    draw();
    return { compute: at, moveTo, point: () => point.slice() };
  }

  function start() {
    const place = document.getElementById("explorer");
    const data = document.getElementById("explorer-network");
    if (!place || !data) return;
    window.robustlibExplorer = build(place, JSON.parse(data.textContent));
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
