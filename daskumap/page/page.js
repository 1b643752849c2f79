"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const canvas = byId("map"), pen = canvas.getContext("2d"), tip = byId("tip"), said = byId("said");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const numbers = (kind, text) => new kind(bytes(text).buffer);
  const say = (text) => { said.textContent = text; };
  const count = (n) => n.toLocaleString("en");

  const imagesOf = (sources) => Object.fromEntries(["light", "dark"].map((theme) => {
    const image = new Image();
    image.onload = () => draw();
    image.src = sources[theme];
    return [theme, image];
  }));

  // A run as it is drawn: places and numbers of its sampled rows, and its raster.
  const runs = data.runs.map((run) => {
    const places = numbers(Float32Array, run.places);
    return { ...run, places, rows: numbers(Float64Array, run.rows), rasters: imagesOf(run.raster), grid: null,
      columns: run.columns.map((column) => ({ ...column, codes: column.codes && numbers(Int16Array, column.codes),
        rasters: column.raster && imagesOf(column.raster) })) };
  });
  let run = runs[0], column = null, hidden = new Set(), chosen = new Set(), marked = -1;
  let view = { x: 0, y: 0, scale: 1 }, fitted = 1, lasso = null, selecting = false;
  let named = true;
  const page = { drawn: 0, density: 0, names: 0, runs: runs.length };
  window.daskumapPage = page;

  const size = () => [canvas.clientWidth, canvas.clientHeight];
  const toScreen = (x, y) => { const [w, h] = size(); return [w / 2 + (x - view.x) * view.scale, h / 2 - (y - view.y) * view.scale]; };
  const toMap = (px, py) => { const [w, h] = size(); return [view.x + (px - w / 2) / view.scale, view.y - (py - h / 2) / view.scale]; };

  const fit = () => { const [[left, right], [low, high]] = run.limits, [w, h] = size(); return Math.min(w / (right - left), h / (high - low)); };

  function whole() {
    const [[left, right], [low, high]] = run.limits;
    fitted = fit();
    view = { x: (left + right) / 2, y: (low + high) / 2, scale: fitted };
    draw();
  }

  // A window that changes, as on a phone that is turned, keeps what is in view.
  function resized() {
    const zoom = view.scale / fitted;
    fitted = fit();
    view.scale = zoom * fitted;
    draw();
  }

  function colourOf(i) {
    if (!column) return dark.matches ? "rgb(246,116,94)" : "rgb(110,38,150)";
    const code = column.codes[i], palette = column.palette[dark.matches ? "dark" : "light"];
    return code < 0 ? (dark.matches ? "rgb(105,108,120)" : "rgb(190,192,200)") : palette[code];
  }

  function draw() {
    const [w, h] = size(), ratio = devicePixelRatio || 1;
    if (!w) return;
    if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) { canvas.width = Math.round(w * ratio); canvas.height = Math.round(h * ratio); }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, w, h);
    const zoom = view.scale / fitted, near = Math.min(1, Math.max(0, (zoom - 1.5) / 2.5));
    // All rows from afar, the sampled ones near by; of a column without a picture of all rows the sample alone.
    const pictured = !column || (column.rasters && !hidden.size);
    drawRaster(pictured ? 1 - .85 * near : .25 * (1 - near));
    drawPoints(pictured ? near : 1, zoom);
    drawNames();
    drawLasso();
  }

  function drawRaster(strength) {
    const image = ((column && !hidden.size && column.rasters) || run.rasters)[dark.matches ? "dark" : "light"];
    page.density = image.complete && image.naturalWidth ? strength : 0;
    if (page.density <= 0) return;
    const [[left, right], [low, high]] = run.limits, [x0, y0] = toScreen(left, high), [x1, y1] = toScreen(right, low);
    pen.globalAlpha = strength;
    pen.drawImage(image, x0, y0, x1 - x0, y1 - y0);
    pen.globalAlpha = 1;
  }

  function drawPoints(strength, zoom) {
    const [w, h] = size(), n = run.rows.length;
    const radius = Math.min(6, Math.max(1, .35 * Math.sqrt(w * h / n)) * Math.sqrt(zoom));
    page.drawn = 0;
    if (strength > 0) {
      pen.globalAlpha = .85 * strength;
      for (let i = 0; i < n; i++) {
        if (column && hidden.has(column.codes[i])) continue;
        const [x, y] = toScreen(run.places[2 * i], run.places[2 * i + 1]);
        if (x < -9 || y < -9 || x > w + 9 || y > h + 9) continue;
        pen.fillStyle = colourOf(i);
        // Of a point this small nobody sees the corners, and squares are drawn in a third of the time.
        if (radius < 1.6) pen.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
        else { pen.beginPath(); pen.arc(x, y, radius, 0, 7); pen.fill(); }
        page.drawn++;
      }
      pen.globalAlpha = 1;
    }
    pen.strokeStyle = getComputedStyle(document.body).color;
    for (const i of marked >= 0 ? [...chosen, marked] : chosen) {
      const [x, y] = toScreen(run.places[2 * i], run.places[2 * i + 1]);
      pen.lineWidth = i === marked ? 3 : 1;
      pen.beginPath(); pen.arc(x, y, radius + (i === marked ? 5 : 1), 0, 7); pen.stroke();
    }
  }

  // Where the middle of each class is among the sampled rows: the median, which no row far out moves.
  function centresOf(c) {
    if (c.centres) return c.centres;
    const places = c.names.map(() => [[], []]), middle = (v) => Float32Array.from(v).sort()[v.length >> 1];
    for (let i = 0; i < run.rows.length; i++)
      if (c.codes[i] >= 0) for (const j of [0, 1]) places[c.codes[i]][j].push(run.places[2 * i + j]);
    return (c.centres = places.map(([x, y]) => x.length ? [middle(x), middle(y)] : null));
  }

  // Names that would cover one that stands already wait for a closer look; large classes come first.
  function drawNames() {
    page.names = 0;
    if (!column || column.span || !named) return;
    const style = getComputedStyle(document.body), taken = [];
    pen.font = "600 13px system-ui, sans-serif"; pen.textAlign = "center"; pen.textBaseline = "middle"; pen.lineJoin = "round";
    pen.strokeStyle = style.backgroundColor; pen.fillStyle = style.color; pen.lineWidth = 4;
    const order = column.names.map((_, code) => code).sort((a, b) => column.counts[b] - column.counts[a]);
    for (const code of order) {
      const centre = centresOf(column)[code];
      if (!centre || hidden.has(code)) continue;
      const [x, y] = toScreen(...centre), half = pen.measureText(column.names[code]).width / 2 + 2;
      if (taken.some(([tx, ty, other]) => Math.abs(x - tx) < half + other && Math.abs(y - ty) < 17)) continue;
      taken.push([x, y, half]);
      pen.strokeText(column.names[code], x, y); pen.fillText(column.names[code], x, y);
      page.names++;
    }
  }

  function drawLasso() {
    if (!lasso || lasso.length < 2) return;
    pen.strokeStyle = getComputedStyle(document.body).color; pen.lineWidth = 1.5; pen.setLineDash([5, 4]);
    pen.beginPath(); lasso.forEach(([x, y], i) => i ? pen.lineTo(x, y) : pen.moveTo(x, y)); pen.closePath(); pen.stroke();
    pen.setLineDash([]);
  }

  // The sampled rows by cells of the map, so that the one under the pointer is found at once.
  function gridOf() {
    if (run.grid) return run.grid;
    const [[left, right], [low, high]] = run.limits, cells = new Map(), step = Math.max(right - left, high - low) / 64;
    for (let i = 0; i < run.rows.length; i++) {
      const key = Math.floor(run.places[2 * i] / step) + ":" + Math.floor(run.places[2 * i + 1] / step);
      if (!cells.has(key)) cells.set(key, []);
      cells.get(key).push(i);
    }
    return (run.grid = { cells, step });
  }

  function nearest(px, py) {
    const [x, y] = toMap(px, py), { cells, step } = gridOf(), reach = 12 / view.scale;
    let best = -1, least = reach * reach;
    for (let a = Math.floor((x - reach) / step); a <= Math.floor((x + reach) / step); a++)
      for (let b = Math.floor((y - reach) / step); b <= Math.floor((y + reach) / step); b++)
        for (const i of cells.get(a + ":" + b) || []) {
          if (column && hidden.has(column.codes[i])) continue;
          const d = (run.places[2 * i] - x) ** 2 + (run.places[2 * i + 1] - y) ** 2;
          if (d < least) { least = d; best = i; }
        }
    return best;
  }

  const textOf = (c, i) => c.texts ? (c.texts[i] ?? "none") : c.codes[i] < 0 ? "none" : c.values ? c.values[i] : c.names[c.codes[i]];
  const describe = (i) => ["row " + run.rows[i], ...run.columns.map((c) => c.name + ": " + textOf(c, i))].join("\n");

  function showTip(px, py) {
    const i = nearest(px, py);
    tip.hidden = i < 0;
    if (i < 0) return;
    tip.textContent = describe(i);
    tip.style.left = Math.min(px + 12, Math.max(0, size()[0] - 180)) + "px";
    tip.style.top = (py + 12) + "px";
  }

  function zoomAt(px, py, factor) {
    const [x, y] = toMap(px, py);
    view.scale = Math.min(fitted * 400, Math.max(fitted * .5, view.scale * factor));
    const [nx, ny] = toMap(px, py);
    view.x += x - nx; view.y += y - ny;
    draw();
  }

  const pointers = new Map();
  const at = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoomAt(...at(event), Math.exp(-event.deltaY / 400)); }, { passive: false });
  canvas.addEventListener("dblclick", (event) => zoomAt(...at(event), 2));
  let pressed = [0, 0];
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, pressed = at(event));
    if (selecting) lasso = [at(event)];
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = at(event), before = pointers.get(event.pointerId);
    if (!before) return showTip(...now);
    tip.hidden = true;
    if (lasso) { lasso.push(now); return draw(); }
    if (pointers.size === 1) { view.x -= (now[0] - before[0]) / view.scale; view.y += (now[1] - before[1]) / view.scale; }
    else {
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const apart = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]);
      zoomAt((now[0] + other[0]) / 2, (now[1] + other[1]) / 2, apart(now) / Math.max(1, apart(before)));
    }
    pointers.set(event.pointerId, now);
    draw();
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => {
    pointers.delete(event.pointerId);
    if (lasso) { choose(lasso); lasso = null; return draw(); }
    // A tap tells what a pointer does that only hovers.
    const [x, y] = at(event);
    if (Math.hypot(x - pressed[0], y - pressed[1]) < 5) showTip(x, y);
  });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  canvas.addEventListener("keydown", (event) => {
    const [w, h] = size(), step = 60 / view.scale;
    const keys = { ArrowLeft: () => { view.x -= step; }, ArrowRight: () => { view.x += step; }, ArrowUp: () => { view.y += step; },
      ArrowDown: () => { view.y -= step; }, "+": () => zoomAt(w / 2, h / 2, 1.4), "=": () => zoomAt(w / 2, h / 2, 1.4),
      "-": () => zoomAt(w / 2, h / 2, 1 / 1.4), "0": whole, Enter: middle, v: () => choose([[0, 0], [w, 0], [w, h], [0, h]]) };
    const act = keys[event.key] || keys[event.key.toLowerCase()];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault(); act(); draw();
  });

  // What a key asks for: the sampled row that is nearest to the middle of the map.
  function middle() {
    const [w, h] = size();
    let least = Infinity;
    marked = -1;
    for (let i = 0; i < run.rows.length; i++) {
      if (column && hidden.has(column.codes[i])) continue;
      const d = (run.places[2 * i] - view.x) ** 2 + (run.places[2 * i + 1] - view.y) ** 2;
      if (d < least) { least = d; marked = i; }
    }
    const [x, y] = marked < 0 ? [-1, -1] : toScreen(run.places[2 * marked], run.places[2 * marked + 1]);
    if (x < 0 || y < 0 || x > w || y > h) { marked = -1; return say("No sampled row is in view."); }
    say(describe(marked).replaceAll("\n", ", "));
  }

  function choose(polygon) {
    const found = [];
    for (let i = 0; i < run.rows.length; i++) {
      if (column && hidden.has(column.codes[i])) continue;
      const [x, y] = toScreen(run.places[2 * i], run.places[2 * i + 1]);
      if (inside(x, y, polygon)) found.push(i);
    }
    select(found, "are selected.");
  }

  function select(found, what) {
    chosen = new Set(found);
    byId("copy").disabled = !chosen.size;
    say(count(chosen.size) + " of " + count(run.rows.length) + " sampled rows " + what);
  }

  function inside(x, y, polygon) {
    let odd = false;
    for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
      const [ax, ay] = polygon[i], [bx, by] = polygon[j];
      if ((ay > y) !== (by > y) && x < (bx - ax) * (y - ay) / (by - ay) + ax) odd = !odd;
    }
    return odd;
  }

  byId("lasso").addEventListener("click", (event) => {
    selecting = !selecting;
    event.target.setAttribute("aria-pressed", selecting);
    canvas.classList.toggle("lasso", selecting);
    say(selecting ? "Draw around the rows to select." : "");
  });
  byId("copy").addEventListener("click", async () => {
    const ids = run.columns.filter((c) => c.texts);  // such as the index of a frame
    const text = [...chosen].map((i) => [run.rows[i], ...ids.map((c) => c.texts[i] ?? "")].join("\t")).join("\n");
    page.copied = text;
    try { await navigator.clipboard.writeText(text); say(count(chosen.size) + " rows are in the clipboard: their numbers" + (ids.length ? ", " + ids.map((c) => c.name).join(", ") + "." : ".")); }
    catch { const area = document.createElement("textarea"); area.value = text; area.setAttribute("aria-label", "Selected rows");
      said.replaceChildren("Copy these: ", area); area.select(); }
  });
  byId("whole").addEventListener("click", whole);
  const search = () => {
    const wanted = byId("search").value.trim();
    if (!wanted) return;
    const same = (text) => text !== null && String(text).toLowerCase() === wanted.toLowerCase();
    marked = run.rows.indexOf(Number(wanted));
    for (const c of run.columns) if (marked < 0 && c.texts) marked = c.texts.findIndex(same);
    if (marked >= 0) {
      view = { x: run.places[2 * marked], y: run.places[2 * marked + 1], scale: Math.max(view.scale, fitted * 4) };
      say(describe(marked).replaceAll("\n", ", "));
      return draw();
    }
    const of = run.columns.find((c) => c.names && c.names.some(same));
    if (of) { const code = of.names.findIndex(same); select([...run.rows.keys()].filter((i) => of.codes[i] === code), "have " + of.name + " " + of.names[code] + "."); }
    else say(wanted + " is none of the " + count(run.rows.length) + " sampled rows, of " + count(run.total) + " in all.");
    draw();
  };
  byId("find").addEventListener("click", search);
  byId("search").addEventListener("keydown", (event) => { if (event.key === "Enter") search(); });

  function legend() {
    const list = byId("legend");
    list.replaceChildren();
    byId("names").hidden = !column || Boolean(column.span);
    if (!column) return;
    if (column.span) {
      const item = document.createElement("li"), ramp = document.createElement("div");
      const palette = column.palette.light;
      ramp.className = "ramp"; ramp.style.background = "linear-gradient(to right," + palette.filter((_, i) => i % 16 === 0).join(",") + ")";
      item.append(column.name + ": " + Number(column.span[0].toPrecision(4)) + " or less", ramp, Number(column.span[1].toPrecision(4)) + " or more");
      item.style.cssText = "display:flex;gap:.5rem;align-items:center";
      return list.append(item);
    }
    column.names.forEach((name, code) => {
      const item = document.createElement("li"), button = document.createElement("button"), swatch = document.createElement("span");
      swatch.className = "swatch"; swatch.style.background = column.palette[dark.matches ? "dark" : "light"][code];
      button.type = "button"; button.setAttribute("aria-pressed", !hidden.has(code));
      button.append(swatch, name + " (" + column.counts[code].toLocaleString("en") + ")");
      button.addEventListener("click", () => { hidden.has(code) ? hidden.delete(code) : hidden.add(code); legend(); byId("legend").querySelectorAll("button")[code].focus();
        say(hidden.size ? "With classes hidden the sampled rows are drawn alone: " + count(run.rows.length) + " of " + count(run.total) + "." : ""); draw(); });
      item.append(button); list.append(item);
    });
  }

  byId("names").addEventListener("click", (event) => {
    named = !named;
    event.target.setAttribute("aria-pressed", named);
    draw();
  });

  function pickRun(number) {
    run = runs[number]; chosen = new Set(); marked = -1; hidden = new Set();
    const colours = run.columns.filter((c) => c.codes);
    byId("colour").replaceChildren(new Option("density", "-1"), ...colours.map((c, i) => new Option(c.name, i)));
    column = colours.length && run.coloured ? colours[0] : null;
    byId("colour").value = column ? "0" : "-1";
    byId("copy").disabled = true;
    legend(); whole();
  }
  for (const image of document.querySelectorAll("img[data-run]")) {
    const one = data.runs[image.dataset.run];
    image.src = ((one.coloured && one.columns[0].raster) || one.raster)[image.className];
  }
  runs.forEach((one, i) => byId("run").append(new Option(one.name, i)));
  byId("run").parentElement.hidden = runs.length < 2;
  byId("run").addEventListener("change", (event) => pickRun(Number(event.target.value)));
  byId("colour").addEventListener("change", (event) => {
    column = run.columns.filter((c) => c.codes)[Number(event.target.value)] || null;
    hidden = new Set(); legend(); draw();
  });
  dark.addEventListener("change", () => { legend(); draw(); });
  new ResizeObserver(resized).observe(canvas);
  pickRun(0);
})();
